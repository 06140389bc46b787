"""The abuse harness: ``python -m bench.abuse``. What it does and how to read it: ``bench/README.md``.

- ``__main__``   the command: which runs, how much, where the figures go.
- ``kills`` ``sweep`` ``switched`` ``disk`` ``crowd`` ``clock`` ``oom`` ``soak``   the runs, each a function
  from a ``Run`` to an ``Outcome``: workers and daemon killed, failpoints, guards turned off, the ledger's
  disk, connections, the wall clock, memory, time.
- ``checker``    the rules: what clients' logs, ledger rows and statuses prove together. Pure.
- ``records``    what it judges, and what it finds.
- ``history``    reads logs and ledger for it.
- ``trial``      one daemon, clients that log, and the proof at the end.
- ``target``     the daemon that is abused, over all its lives.
- ``client``     a client that judges and logs what it gets.
- ``program``    ``kpcache`` with faults planted in it: daemon, shards and makers.
- ``planting``   how that is done, and how a failpoint fires.
- ``points`` ``guards``   the failpoints, and the guards that can be turned off.
- ``vmclock``    a file by which a copy of the machine is pretended.
- ``run`` ``outcome``     what a run is given, and what it has found.
"""
