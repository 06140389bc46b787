"""Judges of served keys: ``python -m bench.keys``. They see the bytes that a client gets and nothing else.

- ``__main__``  the command: which judges, how many keys, where the figures go.
- ``served``    pairs from a real daemon, through the client.
- ``flips``     damages each pair in every way that is asked about, and counts what kpcache's own check finds.
- ``damage``    the damages: each changed bit, exchanged primes, bytes behind, another pair's public key.
- ``outside``   judges that are not ours: badkeys, OpenSSL's full check, and whether a prime was seen before.
"""
