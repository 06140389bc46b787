"""Puts together, from the settings, what keeps the pools: stock, planner, makers, and what was learned."""

from collections.abc import Callable
from typing import Any

import trio

from kpcache.core.buckets import Buckets
from kpcache.core.settings import Config, RefillSettings
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


class Pooling:
    """The parts, wired to ``supervisor``, ``ledger`` and ``fence``; ``cpus`` may be used."""

    def __init__(
        self, config: Config, supervisor: Supervisor, ledger: Recorder, fence: Fence, cpus: int
    ) -> None:
        makers, refill = config.workers.makers, config.refill
        self.stock = Stock(
            _plans(config, {}),
            supervisor.send_draw,
            supervisor.send_burn,
            lambda: self.floor.wanted.set(),
            lambda spec, ahead: self.floor.forecast(spec, ahead),
            fence,
            kept_percent=config.requests.keep_back_percent,
            buckets=Buckets([limit.rule for limit in config.limits]),
        )
        self._targets = Targets(now=trio.current_time(), **_sizing(config))
        self._planner = Planner(self.stock.pools, makers, self._targets)
        self._brakes = Brakes(refill.max_cpu_percent, cpus, makers, _pressure(refill))
        self.floor = Floor(self.stock, self._planner, self._brakes, supervisor.send, ledger)
        self.learned = Learned(config.daemon.state_dir, self._planner)
        if self._planner.adapts:
            self.learned.load()

    def apply(self, config: Config) -> None:
        """Have other settings of pools, refill and limits in force; at once, without a checkpoint."""
        self._targets.adjust(**_sizing(config))
        self._brakes.adjust(config.refill.max_cpu_percent, _pressure(config.refill))
        self.stock.replan(
            _plans(config, self._planner.targets(trio.current_time())),
            config.requests.keep_back_percent,
            [limit.rule for limit in config.limits],
        )


def _plans(config: Config, adapted: dict[str, int]) -> dict[str, PoolPlan]:
    """``adapted``: the adaptive targets, where they are known."""
    return {
        spec: PoolPlan(adapted.get(spec, settings.min), None, settings.max_age_s)
        if settings.is_adaptive
        else PoolPlan(int(settings.target), settings.low_water, settings.max_age_s)
        for spec, settings in config.pools.items()
    }


def _sizing(config: Config) -> dict[str, Any]:
    """What ``Targets`` goes by."""
    refill = config.refill
    return {
        "bounds": {
            spec: Bounds(settings.min, settings.max, SPECS[spec].pair_bytes)
            for spec, settings in config.pools.items()
            if settings.is_adaptive
        },
        "chance": refill.dry_chance,
        "max_pairs": refill.max_pairs,
        "max_bytes": refill.max_memory_mib * _MIB,
        "kept_percent": config.requests.keep_back_percent,
    }


def _pressure(refill: RefillSettings) -> Callable[[str], float] | None:
    return stalled_s if refill.heed_pressure else None
