"""A load against some rules, event by event, under a virtual clock.

The rules decide; the engine carries out, keeps the books and lets time pass. It plans as the daemon does:
when a maker has finished at once, when pairs were taken at most every ``PLAN_INTERVAL_S``.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from kpcache.core.refill import PLAN_INTERVAL_S
from kpcache.core.specs import SPECS
from kpcache.simulator.loads import Load
from kpcache.simulator.world import Arrival, Ending, Loss, Order, Request, World, cpu_s


class Rules(Protocol):
    """How pools are run. ``now`` never goes back from call to call."""

    def asks(self, request: Request, now: float) -> bool | None:
        """What a new request gets: True a pair that is at hand, None a place in the queue, False nothing."""

    def next_waiter(self, spec: str, now: float) -> Request | None:
        """Take out of the queue whoever is to have the pair that is there; None if nobody may."""

    def forget(self, request: Request) -> None:
        """A request's time is over: take it out of the queue."""

    def took(self, request: Request) -> None:
        """A request was given a pair."""

    def made(self, spec: str, count: int, cpu_s: float) -> None:
        """New pairs are at hand; what each took on average."""

    def lost(self, spec: str, count: int) -> None:
        """So many pairs, at hand or on order, are gone with a shard."""

    def plan(self, now: float) -> Sequence[Order]:
        """Orders for makers, to be placed now."""

    def wake_s(self, now: float) -> float:
        """When to plan again though nothing has happened; infinity for never."""


@dataclass
class Run:
    """What happened. ``made`` and the counts after it are pairs by spec; ``switches``: orders of another
    spec than the same maker's order before."""

    requests: list[Request] = field(default_factory=list)
    cpu_s: float = 0.0
    start: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    orders: int = 0
    switches: int = 0
    # Pairs at hand at even times, in the order of the load's pools.
    levels: list[tuple[float, list[int]]] = field(default_factory=list)


def run(
    load: Load,
    rules: Callable[[World], Rules],
    arrivals: Iterable[Arrival],
    luck: random.Random,
    samples: int = 0,
) -> Run:
    """Run until the load is over and every request has ended. ``luck`` is that of the key times; pools
    begin full. ``samples``: how often to note the pools' levels."""
    return _Engine(load, rules, luck).run(iter(arrivals), samples)


class _Engine:
    def __init__(self, load: Load, rules: Callable[[World], Rules], luck: random.Random) -> None:
        self._load = load
        self._luck = luck
        self._world = World(load.machine, load.pools)
        self._fill()
        self._rules = rules(self._world)
        self._now = 0.0
        self._end_s = load.duration_s
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._plan_at_s = math.inf  # when the next plan is due
        self._planned_s = -math.inf
        zero = dict.fromkeys(load.pools, 0)
        self._run = Run(start=dict(self._world.at_hand), made=dict(zero), given=dict(zero), lost=dict(zero))

    def run(self, arrivals: Iterator[Arrival], samples: int) -> Run:
        self._next_arrival(arrivals)
        for loss in self._load.losses:
            self._at(loss.at_s, partial(self._lose, loss))
        for number in range(samples):
            self._at(self._load.duration_s * number / samples, self._sample)
        self._want_plan()
        while self._events and self._events[0][0] <= self._end_s:
            self._now, _, act = heapq.heappop(self._events)
            act()
        self._close()
        return self._run

    def _at(self, when_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._numbers), act))

    def _fill(self) -> None:
        shards = self._load.machine.shards
        for spec, size in self._load.pools.items():
            for shard in range(shards):
                self._world.put(spec, shard, (size.target + shard) // shards)

    # --- requests

    def _next_arrival(self, arrivals: Iterator[Arrival]) -> None:
        arrival = next(arrivals, None)
        if arrival is not None:
            self._at(arrival.at_s, lambda: self._arrive(arrival, arrivals))

    def _arrive(self, arrival: Arrival, arrivals: Iterator[Arrival]) -> None:
        self._next_arrival(arrivals)
        request = Request(*arrival)
        self._run.requests.append(request)
        answer = self._rules.asks(request, self._now)
        if answer:
            request.found = True
            self._give(request)
        elif answer is None:
            deadline_s = self._now + request.wait_s
            self._end_s = max(self._end_s, deadline_s)
            self._at(deadline_s, lambda: self._time_out(request))
        else:
            self._end(request, Ending.REFUSED)
        self._want_plan()

    def _give(self, request: Request) -> None:
        self._world.take(request.spec)
        self._rules.took(request)
        self._run.given[request.spec] += 1
        self._end(request, Ending.GIVEN)

    def _time_out(self, request: Request) -> None:
        if request.ending is None:
            self._rules.forget(request)
            self._end(request, Ending.TIMED_OUT)

    def _end(self, request: Request, ending: Ending) -> None:
        request.ending, request.ended_s = ending, self._now

    # --- makers

    def _want_plan(self) -> None:
        """Plan soon."""
        self._plan_by(max(self._planned_s + PLAN_INTERVAL_S, self._now))

    def _plan_by(self, when_s: float) -> None:
        if when_s < self._plan_at_s:
            self._plan_at_s = when_s
            self._at(when_s, self._plan_if_due)

    def _plan_if_due(self) -> None:
        if self._now >= self._plan_at_s:
            self._plan()

    def _plan(self) -> None:
        self._planned_s, self._plan_at_s = self._now, math.inf
        for order in self._rules.plan(self._now):
            maker = self._world.makers[order.maker]
            self._run.orders += 1
            self._run.switches += maker.last_spec not in ("", order.spec)
            maker.last_spec = order.spec
            self._world.place(order)
            if len(maker.work) == 1:
                self._begin(order.maker)
        if (wake_s := self._rules.wake_s(self._now)) < math.inf:
            self._plan_by(wake_s)

    def _begin(self, number: int) -> None:
        """A maker starts on the next pairs of its order: RSA one by one, as makers hand them over."""
        maker = self._world.makers[number]
        work, life = maker.work[0], maker.life
        count = 1 if SPECS[work.spec].family == "rsa" else work.due
        took_s = cpu_s(work.spec, self._load.machine.cost_s[work.spec], count, self._luck)
        maker.begun_s = self._now
        self._at(self._now + took_s, lambda: self._made(number, life, count, took_s))

    def _made(self, number: int, life: int, count: int, took_s: float) -> None:
        maker = self._world.makers[number]
        if maker.life != life:
            return
        spec = maker.work[0].spec
        is_done = self._world.hand_over(maker, count)
        maker.proved = True
        self._run.cpu_s += took_s
        self._run.made[spec] += count
        self._rules.made(spec, count, took_s / count)
        self._serve(spec)
        if maker.work:
            self._begin(number)
        if is_done:
            self._plan()

    def _serve(self, spec: str) -> None:
        while self._world.at_hand[spec] and (request := self._rules.next_waiter(spec, self._now)) is not None:
            self._give(request)

    def _lose(self, loss: Loss) -> None:
        for maker in self._world.of_shard(loss.shard):
            self._run.cpu_s += self._now - maker.begun_s if maker.work else 0.0
        held, ordered = self._world.lose(loss.shard)
        for spec, count in held.items():
            self._run.lost[spec] += count
            self._rules.lost(spec, count + ordered[spec])
        self._at(loss.back_s, lambda: self._come_back(loss.shard))
        self._want_plan()

    def _come_back(self, shard: int) -> None:
        for maker in self._world.of_shard(shard):
            maker.alive = True
        self._plan()

    # --- the books

    def _sample(self) -> None:
        self._run.levels.append((self._now, list(self._world.at_hand.values())))

    def _close(self) -> None:
        self._now = self._end_s
        self._run.cpu_s += sum(self._now - maker.begun_s for maker in self._world.makers if maker.work)
        self._run.left = dict(self._world.at_hand)
