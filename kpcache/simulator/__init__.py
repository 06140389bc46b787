"""Pools of key pairs under a virtual clock: what would the rules do, hours of it in seconds.

- ``world``      what there is: pairs by shard, makers and their orders, requests.
- ``engine``     runs a load against some rules, event by event.
- ``policy``     kpcache's own rules, put together from ``core`` as the daemon does it.
- ``baselines``  the rules of others, for comparison.
- ``loads``      made-up loads and recorded ones.
- ``scores``     what became of the requests, in figures.
- ``planner``    how large pools must be, and how many cores it takes.

No clock, no I/O; luck comes in as a ``random.Random``. What the simulation leaves out: a draw takes no
time, a pair is never unsound, and a maker gets a whole CPU.
"""
