"""Puts together, from the settings, what keeps the pools: stock, planner, makers, and what was learned."""

from typing import NamedTuple

import trio

from kpcache.core.buckets import Buckets
from kpcache.core.config import Config, PoolSettings
from kpcache.core.specs import SPECS
from kpcache.core.targets import Bounds, Targets
from kpcache.daemon.brakes import Brakes, stalled_s
from kpcache.daemon.fence import Fence
from kpcache.daemon.floor import Floor, Recorder
from kpcache.daemon.learned import Learned
from kpcache.daemon.planner import Planner
from kpcache.daemon.pools import PoolPlan
from kpcache.daemon.stock import Stock
from kpcache.daemon.supervisor import Supervisor

_MIB = 1024 * 1024


class Pooling(NamedTuple):
    """``learned`` is None where no target is adaptive: nothing would be made of it."""

    stock: Stock
    floor: Floor
    learned: Learned | None


def pooling(config: Config, supervisor: Supervisor, ledger: Recorder, fence: Fence, cpus: int) -> Pooling:
    """The parts, wired to ``supervisor``, ``ledger`` and ``fence``; ``cpus`` may be used."""
    floor: Floor
    stock = Stock(
        {spec: _plan(settings) for spec, settings in config.pools.items()},
        supervisor.send_draw,
        supervisor.send_burn,
        lambda: floor.wanted.set(),
        lambda spec, ahead: floor.forecast(spec, ahead),
        fence,
        kept_percent=config.requests.keep_back_percent,
        buckets=Buckets([limit.rule for limit in config.limits]) if config.limits else None,
    )
    makers, refill = config.workers.makers, config.refill
    targets = _targets(config)
    planner = Planner(stock.pools, makers, targets)
    brakes = Brakes(refill.max_cpu_percent, cpus, makers, stalled_s if refill.heed_pressure else None)
    floor = Floor(stock, planner, brakes, supervisor.send, ledger)
    learned = Learned(config.daemon.state_dir, planner) if targets else None
    if learned is not None:
        learned.load()
    return Pooling(stock, floor, learned)


def _plan(settings: PoolSettings) -> PoolPlan:
    if settings.is_adaptive:
        return PoolPlan(settings.min, None, settings.max_age_s)
    return PoolPlan(int(settings.target), settings.low_water, settings.max_age_s)


def _targets(config: Config) -> Targets | None:
    bounds = {
        spec: Bounds(settings.min, settings.max, SPECS[spec].pair_bytes)
        for spec, settings in config.pools.items()
        if settings.is_adaptive
    }
    if not bounds:
        return None
    refill = config.refill
    return Targets(
        bounds,
        chance=refill.dry_chance,
        max_pairs=refill.max_pairs,
        max_bytes=refill.max_memory_mib * _MIB,
        now=trio.current_time(),
        kept_percent=config.requests.keep_back_percent,
    )
