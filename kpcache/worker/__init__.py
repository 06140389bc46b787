"""The programs that the daemon starts: plain, blocking, told what to do over a pipe, stopped by closing it.

- ``shard``     holds pairs and answers draws at once, at normal priority; starts and ends its makers.
- ``maker``     a child of a shard, in the idle scheduling class: makes pairs, checks them, hands them over.
- ``holding``   the pairs of one shard: unrecorded, held, forgotten.
- ``crew``      one maker as its shard sees it: process, pipe, order in work.
- ``generate``  how a pair of each spec is made.
- ``checks``    whether the bytes to be served are a sound pair, and the tags that it is known by.
- ``process``   what every worker does to itself, and how one is started.

Two programs, because one that both makes and holds would answer a draw only when its key is done and a
CPU is idle. Both are exec'd with ``-P``, a scrubbed environment and the root folder as their own, so that
nothing lying about where the daemon was started can run in them. Neither imports trio or boto3; a shard
does not import cryptography either.
"""
