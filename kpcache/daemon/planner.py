"""What the refill plan is made from: each pool's depth, demand, cost and waiters, as ``core`` wants them.

It learns what a pair costs (CPU seconds, for the plan) and how long a maker takes for it (by the clock, for
forecasts): makers in the background get less than a CPU where others work.
"""

from collections.abc import Mapping, Sequence

import trio

from kpcache.core import refill
from kpcache.core.demand import INTERVAL_S
from kpcache.core.forecast import Busy, Forecast, forecast, goes_first_s
from kpcache.core.specs import SPECS
from kpcache.core.targets import Seen, Targets
from kpcache.daemon.notices import log
from kpcache.daemon.pools import Pool


class Planner:
    """The pools as the plan sees them."""

    def __init__(self, pools: Mapping[str, Pool], makers: int, targets: Targets | None = None) -> None:
        """``makers`` there should be; ``targets``: of the pools whose target is adaptive, if any is."""
        now = trio.current_time()
        self._pools = pools
        self._makers = makers
        self._targets = targets
        self._sized = now
        self.cost_s = {name: spec.keygen_cost_s for name, spec in SPECS.items()}
        self._pair_s = dict(self.cost_s)
        # When each pool last missed nothing or was being made for; see ``PoolView.neglected_s``.
        self._attended = dict.fromkeys(pools, now)

    def is_long(self, spec: str) -> bool:
        return self.cost_s[spec] > refill.LONG_KEY_S

    def attended(self, spec: str) -> None:
        """A maker has just worked for this pool."""
        self._attended[spec] = trio.current_time()

    def learn(self, spec: str, cpu_s: float, clock_s: float) -> None:
        """What one pair has taken."""
        self.cost_s[spec] += refill.COST_WEIGHT * (cpu_s - self.cost_s[spec])
        self._pair_s[spec] += refill.COST_WEIGHT * (max(clock_s, cpu_s) - self._pair_s[spec])

    def views(self, on_order: Mapping[str, int]) -> list[refill.PoolView]:
        """The pools in which pairs are missing, with what is on order already."""
        now = trio.current_time()
        return [
            view
            for spec, pool in self._pools.items()
            if (view := self._view(pool, on_order.get(spec, 0), now)) is not None
        ]

    def _view(self, pool: Pool, on_order: int, now: float) -> refill.PoolView | None:
        spec = pool.spec
        known = refill.PoolView(
            spec=spec,
            available=pool.book.available,
            on_order=on_order,
            target=pool.target,
            low_water=pool.low_water,
            waiting=0,
            cost_s=self.cost_s[spec],
            neglected_s=0.0 if on_order else now - self._attended[spec],
        )
        view = pool.desk.view(known, pool.at_hand, self._owed_s, now)
        if on_order or view is None:
            self._attended[spec] = now
        if view is not None:
            pool.ready_target = refill.ready_target(pool.target, view.rate)
        return view

    def _owed_s(self, uid: int) -> float:
        """CPU seconds that makers owe because of what this user took."""
        return sum(pool.desk.shares.owes(uid) * self.cost_s[spec] for spec, pool in self._pools.items())

    def size(self) -> None:
        """Adapt the targets to the demand, now and then."""
        now = trio.current_time()
        if now - self._sized >= INTERVAL_S:
            self._sized = now
            self._resize(now)

    def _resize(self, now: float) -> None:
        for spec, target in self.targets(now).items():
            if target != self._pools[spec].target:
                log.debug("%s: target %d instead of %d", spec, target, self._pools[spec].target)
            self._pools[spec].desk.resize(target)

    @property
    def adapts(self) -> bool:
        """Whether the target of any pool is adaptive."""
        return self._targets is not None and bool(self._targets.wanted)

    def targets(self, now: float) -> dict[str, int]:
        """The adaptive targets, by the demand that is known now."""
        if self._targets is None or not self._targets.wanted:
            return {}
        seen = {
            spec: Seen(pool.desk.demand.lasting(now), pool.desk.demand.rate(now), self._pair_s[spec])
            for spec, pool in self._pools.items()
        }
        return self._targets.update(seen, self._makers, now)

    def state(self) -> dict[str, list[float]]:
        """What is worth keeping over a restart, by spec: plain numbers."""
        now = trio.current_time()
        wanted = self._targets.wanted if self._targets else {}
        return {
            spec: [*pool.desk.demand.state(now), wanted.get(spec, 0.0)] for spec, pool in self._pools.items()
        }

    def resume(self, state: Mapping[str, Sequence[float]], away_s: float) -> None:
        """Go on from such a state of ``away_s`` ago. Raises ``ValueError`` for one that cannot be."""
        for spec in self._pools.keys() & state.keys():
            weight, total, squares, _ = state[spec]
            self._pools[spec].desk.demand.resume((weight, total, squares), away_s)
        if self._targets is not None:
            self._targets.resume({spec: row[3] for spec, row in state.items()}, away_s)
            self._resize(trio.current_time())

    def forecast(
        self, spec: str, ahead: int, makers: Sequence[tuple[float, Mapping[str, int]]]
    ) -> Forecast | None:
        """When the pair after ``ahead`` others that must be made is there. ``makers``: for each that is up,
        how long its pair in work has been in the making, and the pairs that it has on order."""
        busy = [
            Busy(
                max(sum(count * self._pair_s[each] for each, count in orders.items()) - since_s, 0.0),
                orders.get(spec, 0),
            )
            for since_s, orders in makers
        ]
        now = trio.current_time()
        lacking = {
            name: max(pool.desk.servable(pool.at_hand, now) - pool.book.available, 0)
            for name, pool in self._pools.items()
        }
        return forecast(ahead, self._pair_s[spec], goes_first_s(spec, lacking, self._pair_s), busy)
