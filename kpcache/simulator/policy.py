"""kpcache's own rules, put together from ``core`` as the daemon does it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from kpcache.core import refill
from kpcache.core.desk import Desk
from kpcache.core.fair_queue import Identity
from kpcache.core.forecast import Busy, forecast, goes_first_s
from kpcache.core.shares import KEPT_PERCENT
from kpcache.core.targets import Bounds, Seen, Targets, default_low_water
from kpcache.simulator.world import Maker, Order, PoolSize, Request, World

# How often adaptive targets are worked out anew.
_TARGETS_INTERVAL_S: Final = 10.0


@dataclass(frozen=True)
class Settings:
    """``kept_percent``: see ``core/shares``. Pools in ``adaptive`` have ``target = "auto"`` within these
    bounds, for a dry pool with a chance of ``chance``; the others keep their size."""

    kept_percent: float = KEPT_PERCENT
    adaptive: Mapping[str, Bounds] = field(default_factory=dict)
    chance: float = 0.001


class KpcacheRules:
    """See ``engine.Rules``."""

    def __init__(self, world: World, pools: Mapping[str, PoolSize], settings: Settings) -> None:
        self._world = world
        self._desks: dict[str, Desk[Request]] = {
            spec: Desk(size.target, settings.kept_percent, 0.0) for spec, size in pools.items()
        }
        self._low_water = {spec: size.low_water for spec, size in pools.items()}
        self._cost_s = dict(world.machine.cost_s)
        # When each pool last missed nothing or was being made for; see ``PoolView.neglected_s``.
        self._attended = dict.fromkeys(pools, 0.0)
        self._adaptive = settings.adaptive
        self._targets = Targets(
            settings.adaptive, chance=settings.chance, max_pairs=10**6, max_bytes=10**10, now=0.0
        )
        self._targets_due_s = _TARGETS_INTERVAL_S

    def sizes(self) -> dict[str, PoolSize]:
        """The pools' sizes in force."""
        return {spec: PoolSize(desk.target, self._low_water[spec]) for spec, desk in self._desks.items()}

    # --- requests

    def asks(self, request: Request, now: float) -> bool | None:
        desk, uid = self._desks[request.spec], request.uid
        desk.asked(uid, now)
        at_hand = self._world.at_hand[request.spec]
        if at_hand and desk.may_take(uid, at_hand, now):
            return True
        if request.wait_s <= 0 or desk.may_queue(uid) or self._is_too_late(request, now):
            self._missed(request, now)
            return False
        desk.queue.put(Identity(uid), request)
        return None

    def _is_too_late(self, request: Request, now: float) -> bool:
        """Whether it takes more than luck to serve it in time."""
        spec, at_hand = request.spec, self._world.at_hand
        ahead = self._desks[spec].ahead_of(Identity(request.uid), at_hand[spec], now)
        makers = [self._busy(maker, spec) for maker in self._world.makers if maker.alive]
        lacking = {
            each: max(desk.servable(at_hand[each], now) - at_hand[each], 0)
            for each, desk in self._desks.items()
        }
        before_s = goes_first_s(spec, lacking, self._cost_s)
        expected = forecast(ahead, self._cost_s[spec], before_s, makers)
        return expected is not None and request.wait_s < expected.at_best_s

    def _busy(self, maker: Maker, spec: str) -> Busy:
        free_in_s, pairs = 0.0, 0
        for work in maker.work:
            free_in_s += work.due * self._cost_s[work.spec]
            pairs += work.due if work.spec == spec else 0
        return Busy(free_in_s, pairs)

    def next_waiter(self, spec: str, now: float) -> Request | None:
        return self._desks[spec].next_in_turn(self._world.at_hand[spec], now)

    def forget(self, request: Request) -> None:
        self._desks[request.spec].queue.remove(Identity(request.uid), request)
        self._missed(request, request.at_s + request.wait_s)

    def _missed(self, request: Request, now: float) -> None:
        """It counts as demand, unless others' share was all that kept it from a pair."""
        desk, at_hand = self._desks[request.spec], self._world.at_hand[request.spec]
        if not at_hand or desk.may_take(request.uid, at_hand, now):
            desk.missed()

    def took(self, request: Request) -> None:
        self._desks[request.spec].took(request.uid)

    # --- makers

    def made(self, spec: str, count: int, cpu_s: float) -> None:
        self._cost_s[spec] += refill.COST_WEIGHT * (cpu_s - self._cost_s[spec])
        desk = self._desks[spec]
        desk.made(count, max(desk.target - self._world.at_hand[spec], 0))

    def lost(self, spec: str, count: int) -> None:
        """The plan counts what is there."""

    def wake_s(self, now: float) -> float:  # noqa: ARG002 - of the interface
        return math.inf

    def plan(self, now: float) -> Sequence[Order]:
        if self._adaptive and now >= self._targets_due_s:
            self._size_targets(now)
        idle, busy = self._world.with_orders(0), self._world.with_orders(1)
        if not idle and not busy:
            return []
        alive = self._world.alive
        long_orders = sum(self._is_long(maker.work[0].spec) for maker in self._world.makers if maker.work)
        views = [
            view for spec, desk in self._desks.items() if (view := self._view(spec, desk, now)) is not None
        ]
        orders = refill.plan(views, _maker_views(idle), refill.Crew(alive, long_orders, alive))
        # Makers that are in the middle of a long key, or have proved nothing, get no second order.
        at_work = {number: maker.work[0].spec for number, maker in busy}
        at_work |= {order.maker: order.spec for order in orders}
        may_follow = [
            (number, self._world.makers[number])
            for number, spec in at_work.items()
            if self._world.makers[number].proved and not self._is_long(spec)
        ]
        if may_follow:
            ordered = _summed(orders)
            views = [
                replace(view, on_order=view.on_order + ordered[view.spec]) if view.spec in ordered else view
                for view in views
            ]
            long_orders += sum(self._is_long(order.spec) for order in orders)
            crew = refill.Crew(alive, long_orders, alive)
            orders += refill.follow_ups(views, _maker_views(may_follow), crew)
        return [Order(order.maker, order.spec, order.count) for order in orders]

    def _size_targets(self, now: float) -> None:
        self._targets_due_s = now + _TARGETS_INTERVAL_S
        seen = {
            spec: Seen(desk.demand.lasting(now), desk.demand.rate(now), self._cost_s[spec])
            for spec, desk in self._desks.items()
        }
        for spec, target in self._targets.update(seen, self._world.alive, now).items():
            self._desks[spec].resize(target)
            self._low_water[spec] = default_low_water(target)

    def _is_long(self, spec: str) -> bool:
        return self._cost_s[spec] > refill.LONG_KEY_S

    def _view(self, spec: str, desk: Desk[Request], now: float) -> refill.PoolView | None:
        at_hand, on_order = self._world.at_hand[spec], self._world.on_order[spec]
        known = refill.PoolView(
            spec=spec,
            available=at_hand,
            on_order=on_order,
            target=desk.target,
            low_water=self._low_water[spec],
            waiting=0,
            cost_s=self._cost_s[spec],
            neglected_s=0.0 if on_order else now - self._attended[spec],
        )
        view = desk.view(known, at_hand, self._owed_s, now)
        if on_order or view is None:
            self._attended[spec] = now
        return view

    def _owed_s(self, uid: int) -> float:
        """CPU seconds that makers owe for pairs that this user took, of all pools."""
        return sum(desk.shares.owes(uid) * self._cost_s[spec] for spec, desk in self._desks.items())


def _maker_views(makers: Sequence[tuple[int, Maker]]) -> list[refill.MakerView]:
    return [refill.MakerView(maker.shard, number, maker.proved) for number, maker in makers]


def _summed(orders: Sequence[refill.Order]) -> dict[str, int]:
    """Pairs by spec."""
    ordered: dict[str, int] = {}
    for order in orders:
        ordered[order.spec] = ordered.get(order.spec, 0) + order.count
    return ordered
