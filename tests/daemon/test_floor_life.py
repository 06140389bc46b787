"""Whatever happens to makers, shards and clients, orders go to makers that are there, for pairs that are
missing, and nobody who waits is forgotten."""

import itertools
from collections import deque
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kpcache.core.fair_queue import Identity
from kpcache.daemon.brakes import Brakes
from kpcache.daemon.floor import Floor
from kpcache.daemon.ledger_batch import MakerStart
from kpcache.daemon.planner import Planner
from kpcache.daemon.pools import PoolPlan, Waiter
from tests.fakes import FakeLedger, FakeShards, book_is_balanced, made_rows, mock_clock

POOLS = {"RSA_2048": PoolPlan(6, 2), "RSA_4096": PoolPlan(2, 1), "ECC_NIST_P256": PoolPlan(0, 0)}
MAKERS = [(0, 0), (0, 1), (1, 0)]
SPECS = st.sampled_from(sorted(POOLS))

steps = st.lists(
    st.one_of(
        st.tuples(st.just("up"), st.sampled_from(MAKERS)),
        st.tuples(st.just("lost"), st.sampled_from(MAKERS)),
        st.tuples(st.just("shard lost"), st.sampled_from([0, 1])),
        st.tuples(st.just("work"), st.sampled_from(MAKERS)),
        st.tuples(st.just("ask"), st.tuples(SPECS, st.integers(1, 3), st.integers(0, 2))),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("slow"), st.booleans()),
    ),
    max_size=60,
)


class Story:
    """Plays shards and makers to a floor; checks each order as it is placed."""

    def __init__(self) -> None:
        self.shards = FakeShards(POOLS, kept_percent=20)
        self.stock = self.shards.stock
        self.alive: dict[tuple[int, int], deque[list[Any]]] = {}  # with the orders that each has
        self.waiting: list[Waiter] = []
        self.left = 0  # of those who waited
        planner = Planner(self.stock.pools, len(MAKERS))
        brakes = Brakes(100, 2, len(MAKERS), None)
        self.ledger = FakeLedger()
        self.floor = Floor(self.stock, planner, brakes, self._send, self.ledger)
        self._numbers = itertools.count()

    def _send(self, shard: int, message: list[Any]) -> None:
        if message[0] != "make":
            return
        _, maker, number, spec, count = message
        assert (shard, maker) in self.alive, "an order to a maker that is not there"
        orders = self.alive[shard, maker]
        assert len(orders) < 2
        orders.append([number, spec, count])
        pool = self.stock.pools[spec]
        ordered = sum(due for each in self.alive.values() for _, name, due in each if name == spec)
        assert pool.book.available + ordered <= pool.target + len(pool.desk.queue), "more than is missing"

    def up(self, key: tuple[int, int]) -> None:
        if key not in self.alive:
            self.alive[key] = deque()
            self.floor.maker_up(*key)

    def lost(self, key: tuple[int, int]) -> None:
        if self.alive.pop(key, None) is not None:
            self.floor.maker_lost(*key)

    def shard_lost(self, shard: int) -> None:
        for key in [key for key in self.alive if key[0] == shard]:
            del self.alive[key]
        self.shards.draws = [draw for draw in self.shards.draws if draw[0] != shard]
        self.floor.lose_shard(shard)
        self.stock.lose_shard(shard)

    def work(self, key: tuple[int, int]) -> None:
        """A maker hands over one pair of its first order."""
        if not self.alive.get(key):
            return
        order = self.alive[key][0]
        number, spec, _ = order
        order[2] -= 1
        self.floor.made(MakerStart(*key, 0), number, spec, made_rows(spec, self._numbers), 0.01, [0.01])
        while self.shards.draws:
            self.shards.deliver()
        if not order[2]:
            self.alive[key].popleft()
            self.floor.done(*key, number)

    def slow(self, is_slow: bool) -> None:
        """The ledger's disk hangs, or no longer; what it has recorded by then is settled."""
        self.ledger.is_slow = is_slow
        self.ledger.commit()
        while self.shards.draws:
            self.shards.deliver()

    def ask(self, spec: str, uid: int, cgroup: int) -> None:
        who = Identity(uid, cgroup)
        if self.stock.take_nowait(spec, who):
            self.stock.issue(spec)
        else:
            self.waiting.append(self.stock.join_queue(spec, 1e5, who, lambda: None))
        while self.shards.draws:
            self.shards.deliver()

    def leave(self, number: int) -> None:
        if number < len(self.waiting):
            waiter = self.waiting.pop(number)
            self.left += 1
            if waiter.pair is not None:
                self.stock.burn(waiter.spec, "client_gone")
            self.stock.pools[waiter.spec].desk.queue.remove(waiter.who, waiter)

    def finish(self) -> None:
        """All makers are there and work until nothing is left to do: then nobody waits."""
        self.slow(False)
        for key in MAKERS:
            self.up(key)
        for _ in range(1000):
            self.floor.plan()
            busy = [key for key, orders in self.alive.items() if orders]
            if not busy:
                break
            for key in busy:
                self.work(key)
        assert all(waiter.pair is not None for waiter in self.waiting), "somebody is forgotten"
        # Who left may have had a pair ordered for him, which is there now beyond the target.
        for pool in self.stock.pools.values():
            assert pool.target <= pool.book.available <= pool.target + self.left
        assert book_is_balanced(self.stock)


@settings(deadline=None)
@given(steps)
def test_orders_are_sound_and_nobody_is_forgotten(story: list[tuple[str, Any]]) -> None:
    @mock_clock
    async def drive() -> None:
        it = Story()
        for step, what in story:
            match step:
                case "up":
                    it.up(what)
                case "lost":
                    it.lost(what)
                case "shard lost":
                    it.shard_lost(what)
                case "work":
                    it.work(what)
                case "ask":
                    it.ask(*what)
                case "slow":
                    it.slow(what)
                case _:
                    it.leave(what)
            await trio.sleep(0.03)
            it.floor.plan()
            assert book_is_balanced(it.stock)
        it.finish()

    drive()
