"""When a waiting client can have its pair, by the rates seen: whether to wait at all, when to ask again.

A forecast is of a mean. How far one pair's time lies from it is luck (half of it is the search for primes),
so a client is only turned away when it would take two standard deviations of luck to serve it in time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kpcache.core.targets import SERVICE_VARIATION

_LUCK: Final = 2.0


@dataclass(frozen=True, slots=True)
class Busy:
    """A maker that is alive. ``free_in_s``: when its orders are done; of them, ``pairs`` are of the spec
    in question."""

    free_in_s: float = 0.0
    pairs: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds from now. ``served_s`` is the mean; sooner than ``at_best_s`` it is all but impossible."""

    served_s: float
    at_best_s: float


def forecast(ahead: int, pair_s: float, before_s: float, makers: Sequence[Busy]) -> Forecast | None:
    """When the pair is made that comes after ``ahead`` others of its spec that clients wait for.

    ``pair_s``: what one takes a maker by the wall clock; ``before_s``: maker seconds of other work that goes
    first. None while there are no makers: when they come back is not known.
    """
    if not makers:
        return None
    number = ahead + 1
    on_order = sum(maker.pairs for maker in makers)
    if number <= on_order:
        # The makers at it work side by side; the rest of their orders does not matter to this client.
        at_it = sum(1 for maker in makers if maker.pairs)
        mean_s = math.ceil(number / at_it) * pair_s
        return _with_luck(mean_s, number / at_it, pair_s)
    number -= on_order
    mean_s = max(_level([maker.free_in_s for maker in makers], before_s + number * pair_s), pair_s)
    return _with_luck(mean_s, max(number / len(makers), 1.0), pair_s)


def not_before(told: Forecast | None, earliest_s: float) -> Forecast | None:
    """What becomes of a forecast where no pair can come sooner than ``earliest_s`` at all."""
    if not earliest_s:
        return told
    told = told or Forecast(0.0, 0.0)
    return Forecast(max(told.served_s, earliest_s), max(told.at_best_s, earliest_s))


def goes_first_s(spec: str, lacking: Mapping[str, int], pair_s: Mapping[str, float]) -> float:
    """Maker seconds for those who wait for cheaper pairs than of ``spec``, who go first (``refill``).

    ``lacking``, by spec: the pairs that must be made for those who wait.
    """
    return sum(count * pair_s[each] for each, count in lacking.items() if pair_s[each] < pair_s[spec])


def _with_luck(mean_s: float, pairs_in_a_row: float, pair_s: float) -> Forecast:
    deviation_s = pair_s * math.sqrt(pairs_in_a_row * SERVICE_VARIATION)
    return Forecast(mean_s, max(mean_s - _LUCK * deviation_s, 0.0))


def _level(free_in_s: Sequence[float], work_s: float) -> float:
    """When makers that become free at these times have done so much between them, each taking its part."""
    level = 0.0
    ordered = sorted(free_in_s)
    for count, begins_s in enumerate(ordered, start=1):
        ends_s = ordered[count] if count < len(ordered) else math.inf
        level = max(begins_s, 0.0)
        if work_s <= (ends_s - level) * count:
            return level + work_s / count
        work_s -= (ends_s - level) * count
    return level
