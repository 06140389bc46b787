"""How large pools must be for what will be asked of them, and how many cores it takes.

Targets come from the formula that adaptive targets go by (``core/targets``), for requests independent of
each other; a burst must be at hand on top of that, with the low watermark at what the rate alone needs. The
answer is then tried out on the daemon's own rules.
"""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from heapq import merge
from typing import Final

from kpcache.core.demand import Lasting
from kpcache.core.shares import KEPT_PERCENT
from kpcache.core.specs import SPECS
from kpcache.core.targets import Bounds, Seen, Targets, default_low_water
from kpcache.simulator.engine import run
from kpcache.simulator.loads import Load, burst, machine, poisson
from kpcache.simulator.policy import KpcacheRules, Settings
from kpcache.simulator.world import Arrival, PoolSize

MOST_CORES: Final = 1024
MOST_PAIRS: Final = 100_000  # the largest target that the configuration takes
# A pool's size grows with 1 / (1 - use): at 80 % it is five times that of idle makers, and there is a fifth
# of the cores left to fill up again after a burst or a restart.
USUAL_USE: Final = 0.8
# From here on, pools would be all luck (``core/targets``).
HIGHEST_USE: Final = 0.98
# Of the spec that is asked for least in a trial, and of all together: what a few seconds can simulate.
_TRIAL_OF_EACH: Final = 4000
_TRIAL_OF_ALL: Final = 20_000
_RAISES: Final = 8
_BURST_WITHIN_S: Final = 1.0
# So many dry requests prove nothing: they come in clusters.
_FEW: Final = 10
# One who asks for nearly all, and another who is about, so that a share is kept back from the first.
_ONE_USER: Final = (1000,)
_USERS: Final = (1000,) * 49 + (1001,)


@dataclass(frozen=True, slots=True)
class Need:
    """``rate`` requests a second, and ``burst`` of them at once now and then."""

    rate: float
    burst: int


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What one pool needs. ``fill_s``: how long all cores take to fill it, when it is the only one."""

    need: Need
    size: PoolSize
    memory_bytes: int
    fill_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """``use``: the share of the cores that the rates take; ``again_s``: after a burst in every pool, how
    soon all are full again."""

    cores: int
    use: float
    again_s: float
    pools: dict[str, PoolPlan]


@dataclass(frozen=True, slots=True)
class Trial:
    """By spec: requests, and those of them that found no pair."""

    asked: dict[str, int]
    dry: dict[str, int]

    def exceeds(self, chance: float) -> list[str]:
        """The specs that were dry more often than that, beyond luck."""
        return [spec for spec, dry in self.dry.items() if dry > chance * self.asked[spec] + _FEW]


def cores_for(needs: Mapping[str, Need], cost_s: Mapping[str, float], use: float = USUAL_USE) -> int:
    """The fewest cores of which these rates take no more than ``use``."""
    return max(math.ceil(_work(needs, cost_s) / use - 1e-9), 1)


def size_pools(needs: Mapping[str, Need], cost_s: Mapping[str, float], cores: int, chance: float) -> Plan:
    """Targets for which a request that is in no burst finds no pair with a chance of at most ``chance``."""
    use = _work(needs, cost_s) / cores
    bounds = {spec: Bounds(1, 10 * MOST_PAIRS, SPECS[spec].pair_bytes) for spec in needs}
    unlimited = 10 * MOST_PAIRS * len(needs)
    targets = Targets(
        bounds,
        chance=chance,
        max_pairs=unlimited,
        max_bytes=10_000 * unlimited,
        now=0.0,
        kept_percent=KEPT_PERCENT,
    )
    seen = {spec: Seen(Lasting(need.rate, 1.0), need.rate, cost_s[spec]) for spec, need in needs.items()}
    pools = {}
    for spec, steady in targets.update(seen, cores, 0.0).items():
        need = needs[spec]
        target = steady + math.ceil(need.burst / (1 - KEPT_PERCENT / 100))
        low_water = steady if need.burst else default_low_water(steady)
        # What is kept back for others must not be left to be filled at leisure.
        size = PoolSize(target, max(low_water, math.ceil(target * KEPT_PERCENT / 100)))
        pools[spec] = PoolPlan(
            need, size, size.target * SPECS[spec].pair_bytes, size.target * cost_s[spec] / cores
        )
    bursts_s = sum(need.burst * cost_s[spec] for spec, need in needs.items())
    return Plan(cores, use, bursts_s / (cores * (1 - use)), pools)


def settled(
    plan: Plan, cost_s: Mapping[str, float], chance: float, luck: random.Random
) -> tuple[Plan, Trial]:
    """The plan with targets raised until a trial does not exceed ``chance``, or ``_RAISES`` times.

    The formula knows nothing of how pools share their makers.
    """
    trial = try_out(plan, cost_s, luck)
    for _ in range(_RAISES):
        if not (exceeded := trial.exceeds(chance)):
            break
        pools = {
            spec: _raised(pool, cost_s[spec] / plan.cores) if spec in exceeded else pool
            for spec, pool in plan.pools.items()
        }
        plan = replace(plan, pools=pools)
        trial = try_out(plan, cost_s, luck)
    return plan, trial


def _raised(pool: PoolPlan, pair_s: float) -> PoolPlan:
    """With half as much again of what is there for the rate."""
    more = (pool.size.target - pool.need.burst + 1) // 2
    target = pool.size.target + more
    low_water = pool.size.low_water + (more if pool.need.burst else more // 4)
    size = PoolSize(target, max(low_water, math.ceil(target * KEPT_PERCENT / 100)))
    memory_bytes = pool.memory_bytes // pool.size.target * size.target
    return replace(pool, size=size, memory_bytes=memory_bytes, fill_s=size.target * pair_s)


def try_out(plan: Plan, cost_s: Mapping[str, float], luck: random.Random) -> Trial:
    """Run the plan on the daemon's rules: requests at its rates, and once, halfway, all bursts at once."""
    until_s = _trial_s(plan)
    streams: list[Iterator[Arrival]] = []
    for spec, pool in plan.pools.items():
        streams.append(poisson(luck, spec, pool.need.rate, until_s, _USERS))
        streams.append(burst(luck, spec, pool.need.burst, until_s / 2, _BURST_WITHIN_S, _ONE_USER))
    sizes = {spec: pool.size for spec, pool in plan.pools.items()}
    load = Load("plan", "", until_s, machine(plan.cores, 8, cost_s), sizes, lambda _: merge(*streams))
    done = run(load, lambda world: KpcacheRules(world, sizes, Settings()), load.arrivals(luck), luck)
    trial = Trial(dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0))
    for request in done.requests:
        trial.asked[request.spec] += 1
        trial.dry[request.spec] += not request.found
    return trial


def _trial_s(plan: Plan) -> float:
    rates = [pool.need.rate for pool in plan.pools.values() if pool.need.rate > 0]
    if not rates:
        return 2 * _BURST_WITHIN_S
    return min(_TRIAL_OF_EACH / min(rates), _TRIAL_OF_ALL / sum(rates))


def _work(needs: Mapping[str, Need], cost_s: Mapping[str, float]) -> float:
    """CPU seconds a second."""
    return sum(need.rate * cost_s[spec] for spec, need in needs.items())
