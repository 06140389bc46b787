"""The makers: which are up, what each is making, and what becomes of what it made.

``refill.plan`` decides, from what ``planner`` sees; this carries its orders to the shards and the results
into the stock. All of it is synchronous except ``run``, which plans anew soon after pairs were taken.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from kpcache.core import refill
from kpcache.core.forecast import Forecast, not_before
from kpcache.core.histogram import are_durations
from kpcache.core.pool import State
from kpcache.daemon.brakes import Brakes
from kpcache.daemon.ledger_batch import Made, MakerStart, new_pairs
from kpcache.daemon.notices import log
from kpcache.daemon.planner import Planner
from kpcache.daemon.stock import Stock


class ShardFaultError(Exception):
    """A shard or its maker said something that cannot be true; the shard must be replaced."""


class Recorder(Protocol):
    """What records pairs: ``Ledger``."""

    @property
    def accepts(self) -> bool:
        """Whether pairs may be ordered."""

    @property
    def unable_s(self) -> float:
        """For so many seconds nothing can be recorded, so that no pair can come; 0 if it can, or may."""

    def put(self, made: Made) -> None:
        """Record the pairs, then settle them."""


@dataclass(slots=True)
class _Work:
    """An order under its number; ``due``: pairs of it to come; ``since``: when the next one was begun."""

    order: refill.Order
    number: int
    due: int
    since: float


@dataclass(slots=True)
class _Maker:
    """A maker that is up. ``work``: what it works on, and what it has next; at most two."""

    work: deque[_Work] = field(default_factory=deque)
    proved: bool = False


class Floor:
    """All makers. ``send(shard, message)`` writes to a shard."""

    def __init__(
        self,
        stock: Stock,
        planner: Planner,
        brakes: Brakes,
        send: Callable[[int, list[Any]], None],
        ledger: Recorder,
    ) -> None:
        self._stock = stock
        self._planner = planner
        self._brakes = brakes
        self._send = send
        self._ledger = ledger
        # By shard: the pairs that its present process has made and that are not recorded yet, by spec. One of
        # an earlier process is known by the counter that it was put into.
        self._unrecorded: dict[int, Counter[str]] = {}
        self._makers: dict[tuple[int, int], _Maker] = {}
        self._last_number = 0
        self._stopped_for: set[str] = set()
        # Its deadline is when manners may let makers do what they keep them from now.
        self._quiet = trio.CancelScope()
        self.wanted = trio.Event()  # set by whoever took pairs; ``run`` plans soon after
        self.busy = trio.Event()  # set when an order is placed

    async def run(self) -> None:
        """Plan whenever pairs are missing, at most every ``refill.PLAN_INTERVAL_S``. Runs until cancelled."""
        while True:
            with self._quiet:
                await self.wanted.wait()
            self._quiet = trio.CancelScope()
            self.wanted = trio.Event()
            self.plan()
            await trio.sleep(refill.PLAN_INTERVAL_S)

    def stop(self, why: str) -> None:
        """Order nothing more: the daemon drains, the alarm was raised, or a snapshot is to be taken."""
        self._stopped_for.add(why)

    def resume(self, why: str) -> None:
        """Order again what is missing, unless it was stopped for another reason as well."""
        self._stopped_for.discard(why)
        self.wanted.set()

    @property
    def manners(self) -> dict[str, Any]:
        """For the status: how many makers there are, how many may work on what is not urgent, and whether
        pairs are missing that manners keep them from making."""
        return {
            "makers": len(self._makers),
            "allowed": min(self._brakes.allowed, len(self._makers)),
            "holding_back": self._quiet.deadline < math.inf,
        }

    def in_work(self) -> dict[tuple[int, int], tuple[tuple[int, int], float]]:
        """By maker with an order: its progress (``restart.WorkSample``) and the CPU seconds of one key."""
        return {
            key: ((state.work[0].number, state.work[0].due), self._planner.cost_s[state.work[0].order.spec])
            for key, state in self._makers.items()
            if state.work
        }

    # --- orders

    def plan(self) -> None:
        """Give every idle maker its next order, if any pair is missing, and busy ones a second."""
        self._quiet.deadline = math.inf
        if self._stopped_for or not self._ledger.accepts:
            return
        self._planner.size()
        idle = self._views_of_makers(orders=0)
        if not idle and not self._views_of_makers(orders=1):
            return
        views = self._planner.views(self._on_order())
        if not views:
            return
        leisure = self._brakes.leisure(len(self._makers) - len(idle))
        for order in refill.plan(views, idle, self._crew(leisure)):
            self._place(order)
        if leisure < len(idle) and self._views_of_makers(orders=0) and self._planner.views(self._on_order()):
            self._quiet.deadline = self._brakes.next_look()
        if busy := self._views_of_makers(orders=1):
            # Those without a second order end soon: what counts is how many go on.
            leisure = self._brakes.leisure(sum(len(state.work) > 1 for state in self._makers.values()))
            for order in refill.follow_ups(self._planner.views(self._on_order()), busy, self._crew(leisure)):
                self._place(order)

    def _crew(self, leisure: int) -> refill.Crew:
        long_orders = sum(
            self._planner.is_long(state.work[0].order.spec) for state in self._makers.values() if state.work
        )
        return refill.Crew(len(self._makers), long_orders, leisure)

    def _views_of_makers(self, orders: int) -> list[refill.MakerView]:
        """Makers with so many orders; of those with one, only the proved that work on no long key."""
        return [
            refill.MakerView(shard, maker, state.proved)
            for (shard, maker), state in self._makers.items()
            if len(state.work) == orders
            and (not orders or (state.proved and not self._planner.is_long(state.work[0].order.spec)))
        ]

    def _on_order(self) -> dict[str, int]:
        on_order: dict[str, int] = {}
        for state in self._makers.values():
            for work in state.work:
                on_order[work.order.spec] = on_order.get(work.order.spec, 0) + work.due
        return on_order

    def forecast(self, spec: str, ahead: int) -> Forecast | None:
        """When a client will have its pair, if ``ahead`` others of its spec must be made before; None while
        no maker is up."""
        now = trio.current_time()
        makers = []
        for state in self._makers.values():
            orders: dict[str, int] = {}
            for work in state.work:
                orders[work.order.spec] = orders.get(work.order.spec, 0) + work.due
            makers.append((now - state.work[0].since if state.work else 0.0, orders))
        return not_before(self._planner.forecast(spec, ahead, makers), self._ledger.unable_s)

    def _place(self, order: refill.Order) -> None:
        self._last_number += 1
        work = _Work(order, self._last_number, order.count, trio.current_time())
        self._makers[order.shard, order.maker].work.append(work)
        self.busy.set()
        log.debug(
            "order %d: %d %s of maker %d of shard %d", work.number, order.count, order.spec, order.maker,
            order.shard,
        )  # fmt: skip
        self._send(order.shard, ["make", order.maker, self._last_number, order.spec, order.count])

    # --- what the shards report

    def maker_up(self, shard: int, maker: int, *, proved: bool = False) -> None:
        """A maker is ready for orders. ``proved``: it need not show with a quick one first that it works."""
        self._makers[shard, maker] = _Maker(proved=proved)
        self.plan()

    def maker_lost(self, shard: int, maker: int) -> None:
        """A maker is gone and its order void."""
        self._makers.pop((shard, maker), None)
        self.wanted.set()

    def lose_shard(self, shard: int, reason: str = "worker_lost") -> None:
        """A shard is gone, and its makers with it."""
        for key in [key for key in self._makers if key[0] == shard]:
            del self._makers[key]
        for spec, count in (+self._unrecorded.pop(shard, Counter())).items():
            self._stock.pools[spec].book.discard(State.CHECKED, reason, count)
        self.wanted.set()

    def made(
        self,
        by: MakerStart,
        number: int,
        spec: str,
        rows: Sequence[Any],
        keygen_s: float,
        took_s: Sequence[float],
    ) -> None:
        """Sound pairs, not yet held: have them recorded, and then let the shard hold those that are new.

        ``keygen_s``: CPU seconds that they took together; ``took_s``: seconds of the clock, of each.
        """
        state = self._working(by.shard, by.maker, number, spec, len(rows))
        if not 0 <= keygen_s < math.inf or not are_durations(took_s, len(rows)):
            raise ShardFaultError("pairs took an impossible time")
        pairs = new_pairs(spec, rows)
        # Nothing of a malformed message gets as far as the books.
        state.proved = True
        work, now = state.work[0], trio.current_time()
        self._planner.learn(spec, keygen_s / len(pairs), (now - work.since) / len(pairs))
        work.since = now
        self._brakes.spent(keygen_s)
        pool = self._stock.pools[spec]
        for each_s in took_s:
            pool.keygen_times.observe(each_s)
        book = pool.book
        book.make(len(pairs))
        book.move(State.MADE, State.CHECKED, len(pairs))
        unrecorded = self._unrecorded.setdefault(by.shard, Counter())
        unrecorded[spec] += len(pairs)
        self._ledger.put(Made(spec, by, pairs, lambda made, twins: self._settle(made, twins, unrecorded)))

    def _settle(self, made: Made, twins: frozenset[int], unrecorded: Counter[str]) -> None:
        """The pairs are recorded durably, but for the duplicates among them (``twins``)."""
        shard, spec, book = made.by.shard, made.spec, self._stock.pools[made.spec].book
        if self._unrecorded.get(shard) is not unrecorded:
            return  # the process that had them is gone: they are burnt, and will never be held
        unrecorded[spec] -= len(made.pairs)
        refused = [pair.serial for index, pair in enumerate(made.pairs) if index in twins]
        held = [pair.serial for index, pair in enumerate(made.pairs) if index not in twins]
        self._send(shard, ["verdict", held, refused])
        if refused:
            book.discard(State.CHECKED, "duplicate", len(refused))
        if held:
            book.move(State.CHECKED, State.RECORDED, len(held))
            self._stock.hold(shard, spec, len(held))

    def unsound(self, shard: int, maker: int, number: int, spec: str, count: int, reason: str) -> None:
        """Pairs that the maker's own checks refused; it has dropped them."""
        self._working(shard, maker, number, spec, count)
        book = self._stock.pools[spec].book
        book.make(count)
        book.discard(State.MADE, "unsound", count)
        log.error("%d %s pairs were made unsound and dropped (%s): suspect the machine", count, spec, reason)

    def done(self, shard: int, maker: int, number: int) -> None:
        """An order is finished; a maker without another gets one at once."""
        state = self._makers.get((shard, maker))
        if state is None or not state.work or state.work[0].number != number or state.work[0].due:
            raise ShardFaultError("an order was reported done that was not")
        finished = state.work.popleft()
        self._planner.attended(finished.order.spec)
        if state.work:
            # It goes on by itself: its next second order can wait for a plan that serves others as well.
            state.work[0].since = trio.current_time()
            self.wanted.set()
        else:
            self.plan()

    def _working(self, shard: int, maker: int, number: int, spec: str, count: int) -> _Maker:
        """The maker that works on this order, with ``count`` pairs less to come."""
        state = self._makers.get((shard, maker))
        work = state.work[0] if state is not None and state.work else None
        if (
            state is None
            or work is None
            or work.number != number
            or work.order.spec != spec
            or not 0 < count <= work.due
        ):
            raise ShardFaultError("pairs were reported that nobody ordered")
        work.due -= count
        return state
