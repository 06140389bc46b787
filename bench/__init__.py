"""The bench: ``python -m bench``. What it measures and how to read it stands in ``README.md``.

- ``__main__``   the command: which parts, how long, where the figures go.
- ``hit`` ``overhead`` ``refill`` ``hogs`` ``rest``   the parts, each a function from a ``Run`` to rows.
- ``run``        what a part is given: sizes, randomness, progress, a nest for its processes.
- ``daemon``     a real daemon of the bench's own, with its pools, its CPU time, its makers paused or not.
- ``peers``      what hits are compared with: the echo server, Redis, making the pair in process.
- ``echo`` ``makers`` ``hog`` ``shard``   helper programs and the bench's own end of a shard.
- ``nest``       processes and folders that are gone when the bench is, however it ends; CPU time.
- ``stats``      quantiles, intervals by bootstrap over rounds, verdicts.
- ``report``     rows: as one table, as JSON.
- ``progress``   what is going on, for whoever waits.

Programs of their own: ``fuzz`` (the wire format), ``keys`` (judges of served keys), ``simulate``.
"""
