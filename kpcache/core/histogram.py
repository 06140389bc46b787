"""Durations counted into buckets, as Prometheus reads them: each bucket has what took at most its bound.

Not prometheus_client's own: its ``observe`` takes a lock, and all children of one are rendered in one go.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

# 1, 2.5 and 5 of each power of ten, written out, so that an edge is the very number that was promised.
_EDGES: Final = tuple(float(f"{digits}e{power}") for power in range(-6, 3) for digits in ("1", "2.5", "5"))
# No key takes longer, nor does anything else that is timed; a sum of such can't become infinite.
MAX_S: Final = 86400.0


def edges(least_s: float, most_s: float) -> tuple[float, ...]:
    """The edges from one to the other, both among them."""
    return tuple(edge for edge in _EDGES if least_s <= edge <= most_s)


def are_durations(values: object, count: int) -> bool:
    """Whether this, which came from another process, is a list of ``count`` durations for ``observe``."""
    return (
        type(values) is list
        and len(values) == count
        and all(type(value) is float and 0.0 <= value <= MAX_S for value in values)
    )


class Histogram:
    """``bounds`` rise; beyond the last is one bucket more. ``counts`` are of each bucket alone."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one. On the hit path, so nothing is checked: it must be finite and not negative."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """Each bound, and how many took at most that; the last bound is infinity."""
        return [*zip((*self.bounds, math.inf), accumulate(self.counts), strict=True)]
