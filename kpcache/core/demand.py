"""What is asked of one pool: how fast at present, and how unevenly over the last hours.

Two estimates, both forgetting exponentially and both brought up to date only when something is counted, so
that a pool which nobody asks for costs nothing:

- ``rate``: arrivals a second over about the last ``RATE_TAU_S``; the refill plan goes by it.
- ``lasting``: mean and index of dispersion of the arrivals in intervals of ``INTERVAL_S`` over about the
  last ``LASTING_TAU_S``; adaptive targets are sized by it (``core/targets``). The index of dispersion is
  the counts' variance over their mean: 1 for arrivals independent of each other (Poisson), about B for
  bursts of B (Cox and Lewis, The Statistical Analysis of Series of Events, 1966, ch. 4).

Times are monotonic seconds.
"""

import math
from dataclasses import dataclass
from typing import Final

# Long enough to see a rate of one in some seconds, short enough that a burst is soon past.
RATE_TAU_S: Final = 30.0
INTERVAL_S: Final = 10.0
LASTING_TAU_S: Final = 3600.0
# A mean over less than five minutes says little: what was before counts as nothing.
_LEAST_WEIGHT: Final = 30.0
_FORGOTTEN: Final = 1e-9
_KEEP: Final = math.exp(-INTERVAL_S / LASTING_TAU_S)


@dataclass(frozen=True, slots=True)
class Lasting:
    """``rate`` in arrivals a second; ``dispersion`` is at least 1, since a few counts prove no evenness."""

    rate: float
    dispersion: float


class Demand:
    """The arrivals at one pool. ``now`` never goes back from one call to the next."""

    __slots__ = ("_begun", "_in_interval", "_recent", "_squares", "_sum", "_updated", "_weight")

    def __init__(self, now: float) -> None:
        self._recent = 0.0  # arrivals, each worth less the longer it is past
        self._updated = now
        self._begun = now  # the interval under way
        self._in_interval = 0
        # Decayed sums over the intervals that are over: of one, of the counts, of their squares.
        self._weight = self._sum = self._squares = 0.0

    def note(self, now: float, count: int) -> None:
        """``count`` requests came since the last call."""
        self._close_intervals(now)
        self._recent = self._recent * math.exp((self._updated - now) / RATE_TAU_S) + count
        self._updated = now
        self._in_interval += count

    def rate(self, now: float) -> float:
        """Arrivals a second, of late."""
        return self._recent * math.exp((self._updated - now) / RATE_TAU_S) / RATE_TAU_S

    def lasting(self, now: float) -> Lasting:
        """The arrivals of the last hours; none until an interval is over."""
        self._close_intervals(now)
        if not self._sum:
            return Lasting(0.0, 1.0)
        weight = max(self._weight, _LEAST_WEIGHT)
        mean = self._sum / weight
        variance = self._squares / weight - mean * mean
        return Lasting(mean / INTERVAL_S, max(variance / mean, 1.0))

    def state(self, now: float) -> tuple[float, float, float]:
        """What is worth keeping over a restart: the three sums of ``lasting``."""
        self._close_intervals(now)
        return self._weight, self._sum, self._squares

    def resume(self, state: tuple[float, float, float], away_s: float) -> None:
        """Go on from an earlier ``state``, ``away_s`` ago; what nobody could ask for then counts as nothing.

        Raises ``ValueError`` for sums that no arrivals have.
        """
        weight, total, squares = state
        # Whole counts: no square is less than its count, nor all of them than that of their mean.
        if not (0 <= weight <= 1 / (1 - _KEEP) + 1 and 0 <= total <= squares <= 1e18):
            raise ValueError("no sums of counts")
        if total * total > squares * weight * (1 + 1e-9):
            raise ValueError("no sums of counts")
        keep = math.exp(-max(away_s, 0.0) / LASTING_TAU_S)
        self._weight, self._sum, self._squares = weight * keep, total * keep, squares * keep

    def _close_intervals(self, now: float) -> None:
        over = int((now - self._begun) / INTERVAL_S)
        if over <= 0:
            return
        count = self._in_interval
        # The one that is over with its count, and then ``over - 1`` in which nothing came.
        keep = _KEEP ** (over - 1)
        self._weight = (self._weight * _KEEP + 1) * keep + (1 - keep) / (1 - _KEEP)
        self._sum = (self._sum * _KEEP + count) * keep
        self._squares = (self._squares * _KEEP + count * count) * keep
        if self._sum < _FORGOTTEN:
            # Else it would go on shrinking to numbers that a float can no longer halve, and stay there.
            self._sum = self._squares = 0.0
        self._begun += over * INTERVAL_S
        self._in_interval = 0
