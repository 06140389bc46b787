"""How many pairs a pool with ``target = "auto"`` keeps, so that it is rarely dry.

The pairs missing from a full pool behave as a queue: each request adds one, the makers take them away, and
the pool is dry when as many are missing as its target. For such a queue, with arrivals of index of
dispersion I and service times of squared coefficient of variation C, at utilisation u, Kingman's
heavy-traffic approximation (J. F. C. Kingman, The single server queue in heavy traffic, 1961; Kleinrock,
Queueing Systems II, 1976, sec. 2.1) is an exponential tail:

    P(n or more missing)  ≈  exp(−2 (1 − u) n / (I + C))

so a chance of at most e takes n = ln(1/e) (I + C) / (2 (1 − u)) pairs. u is that of all pools together,
since the makers serve them all. Before the makers can begin, a time L passes: a key in the making is not
cut short, and the first new pair has to be made. What comes meanwhile, at rate r, has mean rL and variance
I rL, and exceeds rL + sqrt(2 ln(1/e) I rL) with a chance of about e (the tail bound of a normal
distribution). The target is the sum of both, and as much more as is kept back from any single user, between
``min`` and ``max``.

It rises at once and falls by half in ``FALL_HALF_LIFE_S``: pairs are dear and kept ones cost nothing, so a
night must not undo what the day has shown. Pairs above a target that has fallen are given out, not burnt.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kpcache.core.demand import Lasting
from kpcache.core.refill import LONG_KEY_S, ORDER_CPU_S

FALL_HALF_LIFE_S: Final = 12 * 3600.0
# Of the CPU time that an RSA key takes, the search for two primes: measured 0.37 (400 keys of RSA_2048), 0.47
# (80 of RSA_3072) and 0.40 (40 of RSA_4096).
SERVICE_VARIATION: Final = 0.5
# From here on the makers cannot be said to keep up, and no target makes up for that: ``max`` bounds it.
_HIGHEST_USE: Final = 0.98


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one pool with an adaptive target, in pairs; ``bytes_per_pair`` is what one takes in memory."""

    least: int
    most: int
    bytes_per_pair: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one spec, adaptive or not: its requests, those of the last seconds included, and
    the seconds that a maker takes for a pair."""

    lasting: Lasting
    rate: float
    pair_s: float


class Targets:
    """The adaptive targets of all pools that have them. ``now`` is in monotonic seconds."""

    def __init__(
        self,
        bounds: Mapping[str, Bounds],
        *,
        chance: float,
        max_pairs: int,
        max_bytes: int,
        now: float,
        kept_percent: float = 0.0,
    ) -> None:
        """``kept_percent`` of each target is kept back from any single user (``shares``), so there must be as
        much more for one."""
        self._at = now
        # Before they are cut to their bounds.
        self.wanted: dict[str, float] = {}
        self.adjust(
            bounds, chance=chance, max_pairs=max_pairs, max_bytes=max_bytes, kept_percent=kept_percent
        )

    def adjust(
        self,
        bounds: Mapping[str, Bounds],
        *,
        chance: float,
        max_pairs: int,
        max_bytes: int,
        kept_percent: float,
    ) -> None:
        """Go by these from now on. What a pool is known to want stays, as long as its target is adaptive."""
        self._kept_percent = kept_percent
        self._bounds = bounds
        self._chance = chance
        self._max_pairs = max_pairs
        self._max_bytes = max_bytes
        self.wanted = {spec: self.wanted.get(spec, 0.0) for spec in bounds}

    def resume(self, wanted: Mapping[str, float], away_s: float) -> None:
        """Go on from targets of an earlier time, ``away_s`` ago."""
        for spec in self._bounds.keys() & wanted.keys():
            self.wanted[spec] = fallen(wanted[spec], away_s)

    def update(self, seen: Mapping[str, Seen], makers: int, now: float) -> dict[str, int]:
        """The targets from now on. ``seen`` has every spec that can be asked for: all share the ``makers``,
        as many as there should be."""
        rates = {spec: max(each.lasting.rate, each.rate) for spec, each in seen.items()}
        asked_for = [seen[spec].pair_s for spec, rate in rates.items() if rate > 0]
        # By what lasts: one burst of one spec says nothing of the time that all pools will have.
        use = sum(each.lasting.rate * each.pair_s for each in seen.values()) / makers
        for spec in self._bounds:
            each = seen[spec]
            # Of several makers one is kept from long keys, so a cheap pair is begun as soon as an order ends.
            behind_s = ORDER_CPU_S
            if makers < 2 or each.pair_s > LONG_KEY_S:
                behind_s = max(asked_for, default=0.0) * _longest(self._chance)
            reaction_s = behind_s + each.pair_s
            need = needed(rates[spec], each.lasting.dispersion, use, reaction_s, self._chance)
            need = math.ceil(need / (1 - self._kept_percent / 100))
            self.wanted[spec] = max(need, fallen(self.wanted[spec], now - self._at))
        self._at = now
        return fit(self.wanted, self._bounds, self._max_pairs, self._max_bytes)


def needed(rate: float, dispersion: float, utilisation: float, reaction_s: float, chance: float) -> int:
    """The pairs that keep the chance that a pool is dry at about ``chance``, by the formula above.

    ``rate`` requests a second for this pool; ``utilisation``: the share of the makers' time that all pools
    take, 1 and more when they do not keep up; ``reaction_s``: L.
    """
    if rate <= 0:
        return 0
    tail = -math.log(chance)
    idle = 1 - min(utilisation, _HIGHEST_USE)
    meanwhile = rate * reaction_s
    queue = tail * (dispersion + SERVICE_VARIATION) / (2 * idle)
    return math.ceil(meanwhile + math.sqrt(2 * tail * dispersion * meanwhile) + queue)


def _longest(chance: float) -> float:
    """How many times its mean a key takes at most, but for this chance: part fixed, part exponential."""
    spread = math.sqrt(SERVICE_VARIATION)
    return 1 - spread - spread * math.log(chance)


def default_low_water(target: int) -> int:
    """Where none is given: a quarter of the target; of a single pair, that one."""
    return max(target // 4, min(target, 1))


def fallen(target: float, since_s: float) -> float:
    """What is left of a target that nothing asks for any more, after ``since_s``."""
    return target * math.pow(0.5, max(since_s, 0.0) / FALL_HALF_LIFE_S)


def fit(
    wanted: Mapping[str, float], bounds: Mapping[str, Bounds], max_pairs: int, max_bytes: int
) -> dict[str, int]:
    """The targets in force: each within its bounds, all together within ``max_pairs`` and ``max_bytes``.

    If not all fit, what each has above its least is cut by the same factor; the leasts are never cut.
    """
    inside = {
        spec: min(max(math.ceil(value), bounds[spec].least), bounds[spec].most)
        for spec, value in wanted.items()
    }
    factor = 1.0
    for limit, weight in (
        (max_pairs, dict.fromkeys(inside, 1)),
        (max_bytes, {spec: bounds[spec].bytes_per_pair for spec in inside}),
    ):
        least = sum(bounds[spec].least * weight[spec] for spec in inside)
        above = sum(count * weight[spec] for spec, count in inside.items()) - least
        if above > 0:
            factor = min(factor, max(limit - least, 0) / above)
    return {
        spec: bounds[spec].least + int((count - bounds[spec].least) * factor)
        for spec, count in inside.items()
    }
