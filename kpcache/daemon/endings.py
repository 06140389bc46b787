"""Waits for processes to end that are no children of the daemon's: makers, which are their shards'."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio


class WorkersRemainError(Exception):
    """Processes that were killed are still there: they got no CPU to die on, or hang in the kernel."""


@contextmanager
def watched(pids: Sequence[int]) -> Iterator[list[int]]:
    """A descriptor for each of these processes that is there; readable when it has ended (pidfd_open(2)). -1
    for one that cannot be watched: there are no descriptors left.

    Take them while the processes live: a number can be another process's afterwards.
    """
    pidfds: list[int] = []
    try:
        for pid in pids:
            try:
                pidfds.append(os.pidfd_open(pid))
            except ProcessLookupError:
                continue
            except OSError:
                pidfds.append(-1)
        yield pidfds
    finally:
        for fd in pidfds:
            if fd >= 0:
                os.close(fd)


async def wait_ended(pidfds: Sequence[int], timeout_s: float) -> None:
    """Until all have ended. Raises ``WorkersRemainError``, also where that is not known."""
    if -1 in pidfds:
        raise WorkersRemainError
    with trio.move_on_after(timeout_s) as scope:
        for fd in pidfds:
            await trio.lowlevel.wait_readable(fd)
    if scope.cancelled_caught:
        raise WorkersRemainError
