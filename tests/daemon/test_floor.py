"""The makers at work on the plan: manners above the low watermark, stable orders, forecasts."""

import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from kpcache.core.fair_queue import Identity
from kpcache.core.manners import LOOK_INTERVAL_S
from kpcache.core.specs import SPECS
from kpcache.daemon.brakes import Brakes
from kpcache.daemon.floor import Floor
from kpcache.daemon.ledger_batch import MakerStart
from kpcache.daemon.planner import Planner
from kpcache.daemon.pools import PoolPlan
from tests.fakes import FakeLedger, FakeShards, book_is_balanced, made_rows, mock_clock

SMALL, QUICK, LARGE = "RSA_2048", "ECC_NIST_P256", "RSA_4096"
ALICE = Identity(1)


def still_fine() -> None:
    """Nothing has changed for a request while it waited."""


class Works:
    """Makers that take exactly their keys' cost, on a floor; pairs are held, and draws answered at once."""

    def __init__(self, pools: dict[str, PoolPlan], makers: int, brakes: Brakes) -> None:
        self.shards = FakeShards(pools)
        self.ledger = FakeLedger()
        self.orders: list[tuple[float, str, int]] = []  # when, of what, how many
        self.stopped: set[int] = set()
        planner = Planner(self.shards.stock.pools, makers)
        self.floor = Floor(self.shards.stock, planner, brakes, self._send, self.ledger)
        self._tags = itertools.count()
        self._channels = [trio.open_memory_channel[list[Any]](2) for _ in range(makers)]

    def _send(self, _shard: int, message: list[Any]) -> None:
        if message[0] == "make":
            _, maker, _, spec, count = message
            self.orders.append((trio.current_time(), spec, count))
            self._channels[maker][0].send_nowait(message)

    async def make(self, maker: int) -> None:
        """One maker's life."""
        self.floor.maker_up(0, maker)
        async for _, _, number, spec, count in self._channels[maker][1]:
            for _ in range(count):
                await trio.sleep(SPECS[spec].keygen_cost_s)
                pairs = made_rows(spec, self._tags)
                cost_s = SPECS[spec].keygen_cost_s
                self.floor.made(MakerStart(0, maker, 0), number, spec, pairs, cost_s, [cost_s])
                while self.shards.draws:
                    self.shards.deliver()
            self.floor.done(0, maker, number)

    def available(self, spec: str) -> int:
        return self.shards.stock.pools[spec].book.available

    def take(self, spec: str) -> bool:
        taken = self.shards.stock.take_nowait(spec, ALICE) is not None
        if taken:
            self.shards.stock.issue(spec)
        while self.shards.draws:
            self.shards.deliver()
        self.floor.wanted.set()
        return taken


@asynccontextmanager
async def works(
    pools: dict[str, PoolPlan], makers: int = 2, brakes: Brakes | None = None
) -> AsyncIterator[Works]:
    it = Works(pools, makers, brakes or Brakes(100, makers, makers, None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.floor.run)
        for maker in range(makers):
            nursery.start_soon(it.make, maker)
        yield it
        nursery.cancel_scope.cancel()
    assert not it.ledger.duplicates
    assert book_is_balanced(it.shards.stock)


@mock_clock
async def test_a_burst_of_a_whole_pool_then_silence_ends_at_the_target_with_stable_orders() -> None:
    """As many pairs are ordered as were taken, none beyond, and nothing happens after."""
    pools = {SMALL: PoolPlan(64, 16), LARGE: PoolPlan(8, 2), QUICK: PoolPlan(64, 16)}
    async with works(pools) as it:
        await trio.sleep(60)
        assert all(it.available(spec) == plan.target for spec, plan in pools.items())
        it.orders.clear()
        while it.available(SMALL):
            assert it.take(SMALL)
        await trio.sleep(60)
        assert {spec: it.available(spec) for spec in pools} == {SMALL: 64, LARGE: 8, QUICK: 64}
        assert Counter(spec for _, spec, _ in it.orders) == {SMALL: 64}
        ended = it.orders[-1][0]
        await trio.sleep(3600)
        assert it.orders[-1][0] == ended


@mock_clock
async def test_above_the_low_watermark_makers_keep_to_their_share_of_the_cpus() -> None:
    """10 % of 2 CPUs: 0.2 CPU seconds a second, on average, what was urgent included."""
    async with works({SMALL: PoolPlan(200, 40)}, brakes=Brakes(10, 2, 2, None)) as it:
        cost_s = SPECS[SMALL].keygen_cost_s
        await trio.sleep(40 * cost_s / 2 + 0.5)
        assert 40 <= it.available(SMALL) <= 50
        await trio.sleep(30 - trio.current_time())
        assert it.available(SMALL) * cost_s == pytest.approx(0.2 * 30, rel=0.1)
        await trio.sleep(60)
        assert it.available(SMALL) == 200


@mock_clock
async def test_under_pressure_one_maker_works_and_all_of_them_when_it_is_urgent() -> None:
    def always_waiting(resource: str) -> float:
        return trio.current_time() if resource == "cpu" else 0.0

    async with works({SMALL: PoolPlan(400, 100)}, 4, Brakes(100, 4, 4, always_waiting)) as it:
        cost_s = SPECS[SMALL].keygen_cost_s
        await trio.sleep(100 * cost_s / 4 + 2 * LOOK_INTERVAL_S)
        assert it.available(SMALL) >= 100
        before = it.available(SMALL)
        await trio.sleep(50 * cost_s)
        assert it.available(SMALL) - before == pytest.approx(50, abs=5)
        while it.available(SMALL) > 50:
            it.take(SMALL)
        await trio.sleep(10 * cost_s)
        assert it.available(SMALL) - 50 == pytest.approx(40, abs=6)


@mock_clock
async def test_what_manners_kept_from_being_made_is_made_when_they_allow_it() -> None:
    """Nobody asks meanwhile: the plan must wake by itself."""
    waited = {"cpu": 0.0, "memory": 0.0}
    async with works({SMALL: PoolPlan(100, 1)}, 4, Brakes(50, 1, 4, waited.__getitem__)) as it:
        await trio.sleep(100 * SPECS[SMALL].keygen_cost_s / 0.5 + 5)
        assert it.available(SMALL) == 100


@mock_clock
async def test_a_waiter_is_told_when_by_the_makers_at_work() -> None:
    async with works({SMALL: PoolPlan(0, 0), LARGE: PoolPlan(0, 0)}) as it:
        await trio.testing.wait_all_tasks_blocked()
        told = it.floor.forecast(LARGE, 3)
        assert told is not None
        assert told.served_s == pytest.approx(4 * SPECS[LARGE].keygen_cost_s / 2)
        for maker in (0, 1):
            it.floor.maker_lost(0, maker)
        assert it.floor.forecast(LARGE, 3) is None


@mock_clock
async def test_a_waiter_is_told_that_no_pair_can_come_before_the_ledger_is_tried_again() -> None:
    async with works({SMALL: PoolPlan(0, 0)}) as it:
        await trio.testing.wait_all_tasks_blocked()
        it.ledger.accepts, it.ledger.unable_s = False, 30.0
        told = it.floor.forecast(SMALL, 0)
        assert told is not None
        assert (told.served_s, told.at_best_s) == (30.0, 30.0)
