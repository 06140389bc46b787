"""The abuse harness. What it does and how to read it: ``bench/README.md``.

- ``checker``    the rules: what clients' logs, ledger rows and statuses prove together. Pure.
- ``history``    reads logs and ledger for it.
- ``client``     a client that judges and logs what it gets.
"""
