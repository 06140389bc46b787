"""Workers come back with back-off, a batch is taken in once, and no lie of a shard upsets the books."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing

from kpcache import __version__
from kpcache.core.pool import IllegalMoveError
from kpcache.core.restart import FAILED_AFTER
from kpcache.daemon import supervisor as supervisor_module
from kpcache.daemon import watch
from kpcache.daemon.brakes import Brakes
from kpcache.daemon.endings import WorkersRemainError
from kpcache.daemon.fence import Fence
from kpcache.daemon.floor import Floor, ShardFaultError
from kpcache.daemon.planner import Planner
from kpcache.daemon.pools import PoolPlan
from kpcache.daemon.stock import Stock
from kpcache.daemon.supervisor import (
    END_TIMEOUT_S,
    KILL_TIMEOUT_S,
    START_TIMEOUT_S,
    MakerSettings,
    Supervisor,
)
from kpcache.daemon.watch import WATCH_INTERVAL_S
from kpcache.worker import RESTARTED, SPENT
from tests.fakes import (
    SPEC,
    WHO,
    FakeLedger,
    FakeSource,
    batch_rows,
    book_is_balanced,
    fake_pair,
    mock_clock,
    no_reserve,
)

# What the pipe takes for a shard's fault; anything else would be raised through the whole daemon.
FAULTS = (ShardFaultError, IllegalMoveError, ValueError, TypeError, LookupError)


@dataclass
class FakeLink:
    """A shard's life without a process: ``say`` is what it writes, ``sent`` what it was told."""

    shard: int
    handle: Callable[[list[Any]], None]
    pid: int = 4711
    sent: list[list[Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    hangs: bool = False
    cannot_die: bool = False

    def __post_init__(self) -> None:
        self._end = trio.Event()
        self._reason = ""

    def send(self, message: list[Any]) -> None:
        self.sent.append(message)

    async def run(self) -> str:
        await self._end.wait()
        return self._reason

    def die(self, reason: str = "signal 9") -> None:
        self._reason = reason
        self._end.set()

    def give_up(self, fault: str) -> None:
        self.faults.append(fault)
        if not self.cannot_die:
            self.die(fault)

    def end(self) -> None:
        self.send(["end"])
        if not self.hangs:
            self.die("exit 0")

    def say(self, *message: Any) -> None:
        try:
            self.handle(list(message))
        except FAULTS as error:
            self.die(f"broke the rules: {error}")

    def told(self, name: str) -> list[list[Any]]:
        return [message[1:] for message in self.sent if message[0] == name]


@dataclass
class House:
    """Supervisor, floor and stock over fake links."""

    supervisor: Supervisor
    stock: Stock
    floor: Floor
    links: dict[int, FakeLink]  # the last one of each shard
    starts: list[float]
    ledger: FakeLedger
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def book(self) -> Any:
        return self.stock.pools[SPEC].book

    def shard_up(self, shard: int = 0) -> FakeLink:
        link = self.links[shard]
        link.say("ready")
        for (maker,) in link.told("start_maker"):
            link.say("maker", maker, "up", 100 + maker, "")
        return link

    def make(self, link: FakeLink, tags: list[bytes] | None = None) -> int:
        """The maker fulfils its last order and reports it done; returns how many pairs it made."""
        maker, order, spec, count = link.told("make")[-1]
        rows = [
            [n, tags or [hashlib.blake2b(b"%d" % next(self.numbers)).digest()[:16]], b"public"]
            for n in range(count)
        ]
        link.say("made", maker, order, spec, rows, 0.0002 * count, [0.0002] * count)
        link.say("done", maker, order)
        return int(count)


@asynccontextmanager
async def house(
    monkeypatch: pytest.MonkeyPatch, placement: list[int] | None = None, target: int = 8
) -> AsyncIterator[House]:
    links: dict[int, FakeLink] = {}
    starts: list[float] = []

    def make_link(shard: int, handle: Callable[[list[Any]], None]) -> FakeLink:
        links[shard] = FakeLink(shard, handle)
        starts.append(trio.current_time())
        return links[shard]

    monkeypatch.setattr(supervisor_module, "ShardLink", make_link)
    supervisor = Supervisor(placement or [1], SETTINGS, Fence(FakeSource()), told_of_reserve)
    ledger = FakeLedger()
    floor: Floor
    stock = Stock(
        {SPEC: PoolPlan(target, 2)},
        supervisor.send_draw,
        supervisor.send_burn,
        lambda: floor.wanted.set(),
        lambda spec, ahead: floor.forecast(spec, ahead),
        Fence(FakeSource()),
    )
    makers = sum(placement or [1])
    floor = Floor(stock, Planner(stock.pools, makers), Brakes(100, 1, makers, None), supervisor.send, ledger)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run, stock, floor, no_reserve(stock))
        nursery.start_soon(floor.run)
        await trio.testing.wait_all_tasks_blocked()
        yield House(supervisor, stock, floor, links, starts, ledger)
        nursery.cancel_scope.cancel()
    assert book_is_balanced(stock)


SETTINGS = MakerSettings(bytes(range(32)), "idle", 1000, 60.0)


def told_of_reserve(generation: int) -> dict[str, int]:
    return {"generation": generation}


def answer_draw(link: FakeLink, sequence: int, change: int = 0) -> None:
    """Answer the last draw, with ``change`` pairs more or fewer."""
    draw, spec, count = link.told("draw")[-1]
    link.say("batch", draw, sequence, spec, batch_rows([fake_pair(spec) for _ in range(count + change)]))


# --- the way of a pair


@mock_clock
async def test_a_pair_goes_from_an_order_to_the_ready_set(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as it:
        link = it.links[0]
        assert link.told("init")[0][0] == {
            "shard": 0, "version": __version__,
            "maker": {**SETTINGS._asdict(), "generation": 0, "guard": ["stand-in", "/a/file"]},
            "reserve": {"generation": 0},
        }  # fmt: skip
        assert link.told("make") == []  # nothing is ordered of a maker that is not up
        it.shard_up()
        assert it.make(link) == 8
        assert link.told("verdict") == [[list(range(8)), []]]
        assert it.book.held == 8
        assert it.stock.pools[SPEC].keygen_times.count == 8
        assert it.stock.pools[SPEC].keygen_times.sum == pytest.approx(8 * 0.0002)
        answer_draw(link, 1)
        assert (it.book.ready, it.book.held) == (2, 6)
        assert len(link.told("make")) == 1  # full: nothing more is ordered
        assert it.stock.take_nowait(SPEC, WHO)
        await trio.sleep(1)
        assert len(link.told("make")) == 2
        it.stock.issue(SPEC)


@mock_clock
async def test_a_duplicate_is_refused_and_all_orders_stop_when_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch, target=100) as it:
        link = it.shard_up()
        it.make(link)
        assert it.ledger.duplicates == []
        known = b"k" * 16
        link.say(
            "made", *link.told("make")[-1][:3], [[50, [known], b"1"], [51, [known], b"2"]], 0.1, [0.1] * 2
        )
        assert link.told("verdict")[-1] == [[50], [51]]
        assert it.ledger.duplicates == [SPEC]
        assert it.book.discarded == {"duplicate": 1}
        it.floor.stop("drain")
        orders = len(link.told("make"))
        it.floor.plan()
        await trio.sleep(5)
        assert len(link.told("make")) == orders
        it.floor.resume("drain")
        await trio.sleep(5)
        assert len(link.told("make")) > orders


@mock_clock
async def test_a_pair_is_held_only_when_it_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as it:
        it.ledger.is_slow = True
        link = it.shard_up()
        assert it.make(link) == 8
        await trio.sleep(5)
        assert (it.book.held, it.book.in_hand, link.told("verdict")) == (0, 8, [])
        assert len(link.told("make")) == 1  # what waits is not made again
        it.ledger.commit()
        assert (it.book.held, link.told("verdict")) == (8, [[list(range(8)), []]])


@mock_clock
async def test_what_a_lost_shard_had_unrecorded_is_lost_with_it_and_never_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its successor numbers its pairs anew: the late verdict would be taken for one on these."""
    async with house(monkeypatch) as it:
        it.ledger.is_slow = True
        it.make(it.shard_up())
        it.links[0].die()
        await trio.testing.wait_all_tasks_blocked()
        assert it.book.discarded == {"worker_lost": 8}
        link = it.shard_up()
        it.make(link)
        assert len(it.ledger.waiting) == 2
        late, _ = it.ledger.waiting
        late.settle(late, frozenset())
        assert (it.book.held, link.told("verdict")) == (0, [])
        del it.ledger.waiting[0]
        it.ledger.commit()
        assert it.book.held == 8


@mock_clock
async def test_nothing_is_ordered_while_the_ledger_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as it:
        it.ledger.accepts = False
        link = it.shard_up()
        it.floor.wanted.set()
        await trio.sleep(5)
        assert link.told("make") == []
        it.ledger.accepts = True
        it.floor.wanted.set()
        await trio.sleep(1)
        assert it.make(link) == 8


@mock_clock
async def test_all_shards_are_replaced_when_nothing_that_they_hold_may_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch, [1, 1], target=200) as it:
        links = [it.shard_up(shard) for shard in (0, 1)]
        for link in links:
            it.make(link)
        it.supervisor.replace_shards("the alarm was raised", "not_issuing")
        assert it.book.discarded["not_issuing"] == it.book.discarded.total() > 0  # at once
        await trio.testing.wait_all_tasks_blocked()
        assert all(it.links[shard] is not links[shard] for shard in (0, 1))
        assert (it.book.held, it.book.available) == (0, 0)


@mock_clock
@pytest.mark.parametrize("hangs", [False, True])
async def test_all_workers_are_ended_and_started_again_when_told(
    monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    async with house(monkeypatch, [1, 1], target=200) as it:
        links = [it.shard_up(shard) for shard in (0, 1)]
        it.make(links[0])
        links[1].hangs = hangs
        before = trio.current_time()
        await it.supervisor.end_workers("quiesced")
        assert trio.current_time() - before == (END_TIMEOUT_S if hangs else 0)
        assert [bool(link.faults) for link in links] == [False, hangs]
        assert all(link.told("end") for link in links)
        assert (it.book.held, it.book.available) == (0, 0)
        assert it.book.discarded["quiesced"] == it.book.generated
        await trio.sleep(100)
        await it.supervisor.end_workers("quiesced")  # once more: all the same
        assert [it.links[0], it.links[1]] == links  # none was started
        assert {(worker.state, worker.pid) for worker in it.supervisor.workers} == {("stopped", None)}
        it.supervisor.start_workers()
        await trio.testing.wait_all_tasks_blocked()
        assert it.make(it.shard_up(0)) > 0


@mock_clock
async def test_a_shard_that_cannot_be_killed_is_told_and_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch) as it:
        link = it.shard_up()
        link.hangs = link.cannot_die = True
        with pytest.raises(WorkersRemainError):
            await it.supervisor.end_workers("quiesced")
        assert trio.current_time() == pytest.approx(it.starts[0] + END_TIMEOUT_S + KILL_TIMEOUT_S)
        link.die()
        await it.supervisor.end_workers("quiesced")


@mock_clock
async def test_shards_that_are_replaced_again_and_again_start_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is no fault of theirs that the machine is copied."""
    async with house(monkeypatch) as it:
        for _ in range(8):
            it.shard_up()
            it.supervisor.replace_shards("the machine was copied", "copied")
            await trio.sleep(0.1)
        assert len(it.starts) == 9
        [shard] = it.supervisor.shards
        assert (shard.failures, shard.state, shard.reason) == (0, "starting", "the machine was copied")


@mock_clock
async def test_a_maker_that_is_spent_is_followed_by_another_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as it:
        link, record = it.shard_up(), it.supervisor.makers[0, 0]
        it.make(link)
        record.failures = 7
        link.say("maker", 0, "lost", 100, SPENT)
        assert len(link.told("start_maker")) == 2
        assert record.failures == 0
        # One that made nothing is no success.
        link.say("maker", 0, "up", 101, "")
        assert it.floor._makers[0, 0].proved
        link.say("maker", 0, "lost", 101, SPENT)
        await trio.testing.wait_all_tasks_blocked()
        assert (record.failures, record.reason) == (1, SPENT)
        await trio.sleep(1)
        assert len(link.told("start_maker")) == 3


@mock_clock
async def test_unsound_pairs_are_counted_and_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as it:
        link = it.shard_up()
        maker, order, spec, count = link.told("make")[-1]
        link.say("unsound", maker, order, spec, count, "d is wrong\n")
        link.say("done", maker, order)
        assert (it.book.held, it.book.discarded) == (0, {"unsound": count})
        assert it.make(link) == 8  # and are made again


# --- lies


@mock_clock
async def test_a_batch_that_comes_twice_ends_the_shard_and_gives_no_pair_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch) as it:
        link = it.shard_up()
        it.make(link)
        answer_draw(link, 5)
        for _ in range(2):
            assert it.stock.take_nowait(SPEC, WHO)
            it.stock.issue(SPEC)
        assert len(link.told("draw")) == 2
        answer_draw(link, 5)  # the sequence number is not above the last
        assert it.book.ready == 0
        await trio.testing.wait_all_tasks_blocked()
        assert it.links[0] is not link
        assert (it.book.held, it.book.discarded) == (0, {"worker_lost": 6})


@pytest.mark.parametrize("change", [-1, 1])
@mock_clock
async def test_a_batch_of_another_size_ends_the_shard(monkeypatch: pytest.MonkeyPatch, change: int) -> None:
    async with house(monkeypatch) as it:
        link = it.shard_up()
        it.make(link)
        answer_draw(link, 1, change)
        await trio.testing.wait_all_tasks_blocked()
        assert it.links[0] is not link
        assert (it.book.ready, it.book.discarded) == (0, {"worker_lost": 8})


T = b"t" * 16
ROW = [1, 0, b"private", b"public", b"digest"]
LIES: list[list[Any]] = [
    ["what"],
    ["ready", 1],
    ["maker", 7, "up", 1, ""],
    ["maker", 0, "lost", 1, None],
    ["maker", 0, "lost", 1, [1]],
    ["maker", 0, "gone", 1, ""],
    ["maker", [], "up", 1, ""],
    ["made", 0, 999, SPEC, [[1, [T], b"p"]], 0.1, [0.1]],
    ["made", 0, 1, "RSA_2048", [[1, [T], b"p"]], 0.1, [0.1]],
    ["made", 0, 1, SPEC, [], 0.1, []],
    ["made", 0, 1, SPEC, [[n, [b"%016d" % n], b"p"] for n in range(9)], 0.1, [0.1] * 9],
    ["made", 0, 1, SPEC, [[1, [["unhashable"]], b"p"]], 0.1, [0.1]],
    ["made", 0, 1, SPEC, [[1, [T[1:]], b"p"]], 0.1, [0.1]],
    ["made", 0, 1, SPEC, [[1, [T, T], b"p"]], 0.1, [0.1]],
    ["made", 0, 1, SPEC, [[1, [], b"p"]], 0.1, [0.1]],
    ["made", 0, 1, SPEC, [[1, [T], b""]], 0.1, [0.1]],
    ["made", 0, 1, SPEC, [[1, [T], "p"]], 0.1, [0.1]],
    ["made", 0, 1, SPEC, [[None, [T], b"p"]], 0.1, [0.1]],
    ["made", 0, 1, SPEC, [[1, [T]]], 0.1, [0.1]],
    ["made", 0, 1, SPEC, [[1]], 0.1, [0.1]],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], "long", [0.1]],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], float("nan"), [0.1]],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], float("inf"), [0.1]],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], 0.1],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], 0.1, []],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], 0.1, [0.1, 0.1]],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], 0.1, [float("nan")]],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], 0.1, [float("inf")]],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], 0.1, [-0.1]],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], 0.1, [1e300]],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], 0.1, ["long"]],
    ["made", 0, 1, SPEC, [[1, [T], b"p"]], 0.1, None],
    ["unsound", 0, 1, SPEC, 9, "reason"],
    ["unsound", 0, 1, SPEC, -1, "reason"],
    ["unsound", 0, 1, SPEC, 1, [1]],
    ["done", 0, 1],
    ["done", 0, 2],
    ["batch", 1, 1, SPEC, []],
    ["batch", 1, 1, "nothing", [ROW]],
    ["batch", 1, 1, [], [ROW]],
    ["batch", 1, None, SPEC, [ROW]],
]
# As answers to a draw of two; the first is sound.
BAD_ROWS: list[Any] = [
    None,
    [1, 0, b"private", b"public"],
    [1, 0, "private", b"public", b"digest"],
    [1, 0, 5, b"public", b"digest"],
    [1, -1, b"private", b"public", b"digest"],
    [1, 2**64, b"private", b"public", b"digest"],
    [1, "0", b"private", b"public", b"digest"],
    [1, 0, b"private", None, b"digest"],
]


@pytest.mark.parametrize("lie", LIES, ids=repr)
@mock_clock
async def test_a_shard_that_lies_is_replaced_and_the_books_stay_right(
    monkeypatch: pytest.MonkeyPatch, lie: list[Any]
) -> None:
    async with house(monkeypatch) as it:
        link = it.shard_up()
        link.say(*lie)
        await trio.testing.wait_all_tasks_blocked()
        assert it.links[0] is not link
        assert it.book.in_hand == it.book.available == 0
        assert book_is_balanced(it.stock)
        link = it.shard_up()
        assert it.make(link) == 8


@pytest.mark.parametrize("row", BAD_ROWS, ids=repr)
@mock_clock
async def test_a_batch_with_something_else_than_pairs_ends_the_shard(
    monkeypatch: pytest.MonkeyPatch, row: Any
) -> None:
    async with house(monkeypatch) as it:
        link = it.shard_up()
        it.make(link)
        draw, spec, count = link.told("draw")[-1]
        assert count == 2
        link.say("batch", draw, 1, spec, [*batch_rows([fake_pair()]), row])
        await trio.testing.wait_all_tasks_blocked()
        assert it.links[0] is not link
        assert it.book.in_hand == it.book.available == 0
        assert it.book.discarded == {"worker_lost": 8}


# --- restarts


@mock_clock
async def test_a_shard_that_dies_takes_its_own_part_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch, [1, 1], target=200) as it:
        links = [it.shard_up(shard) for shard in (0, 1)]
        for link in links:
            it.make(link)
        held = it.stock.pools[SPEC].held
        lost, kept = held[0], held[1]
        links[0].die()
        await trio.testing.wait_all_tasks_blocked()
        assert it.stock.pools[SPEC].held == {1: kept}
        assert it.book.discarded == {"worker_lost": lost}
        assert it.supervisor.shards[0].restarts == 1
        assert it.supervisor.shards[1].restarts == 0


@mock_clock
async def test_a_shard_that_cannot_stay_up_is_started_later_and_later_and_shown_as_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch) as it:
        start = trio.current_time()
        for _ in range(FAILED_AFTER):
            it.links[0].die("exit 3: no memory\x1b[2J")
            link = it.links[0]
            while it.links[0] is link:  # noqa: ASYNC110 - time jumps to its restart
                await trio.sleep(0.05)
        gaps = [round(after - before, 2) for before, after in itertools.pairwise(it.starts)]
        assert gaps == [pytest.approx(delay, abs=0.06) for delay in (0, 0.25, 0.5, 1, 2)]
        it.links[0].die("exit 3: no memory\x1b[2J")
        await trio.testing.wait_all_tasks_blocked()
        worker = it.supervisor.shards[0]
        assert (worker.state, worker.pid, worker.reason) == ("failed", None, "exit 3: no memory\\x1b[2J")
        with trio.move_on_after(0):
            await it.supervisor.wait_settled()  # a daemon whose workers fail does not wait for them
            assert trio.current_time() - start < 10


@mock_clock
async def test_a_maker_that_dies_is_started_again_by_its_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as it:
        link = it.shard_up()
        for restarts in (1, 2, 3):
            before = trio.current_time()
            link.say("maker", 0, "lost", 100, "signal 9")
            worker = it.supervisor.makers[0, 0]
            while len(link.told("start_maker")) <= restarts:  # noqa: ASYNC110 - as above
                await trio.sleep(0.01)
            assert trio.current_time() - before == pytest.approx([0, 0, 0.25, 0.5][restarts], abs=0.02)
            orders = len(link.told("make"))
            link.say("maker", 0, "up", 100, "")
            assert (worker.state, worker.restarts) == ("up", restarts)
            assert len(link.told("make")) == orders + 1  # what its order lacked is ordered again
        assert it.make(link) == 8
        assert it.links[0] is link


@mock_clock
async def test_a_maker_in_back_off_is_not_started_in_a_shard_that_died_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch) as it:
        link = it.shard_up()
        for _ in range(3):
            link.say("maker", 0, "lost", 100, "signal 9")
            await trio.testing.wait_all_tasks_blocked()
        link.die()
        await trio.sleep(20)
        assert it.links[0] is not link
        assert it.links[0].told("start_maker") == []  # its own "ready" starts its makers
        it.shard_up()
        await trio.sleep(60)
        assert it.links[0].told("start_maker") == [[0]]


@mock_clock
async def test_a_shard_that_hangs_in_its_start_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as it:
        link = it.links[0]
        await trio.sleep(START_TIMEOUT_S + 1)
        assert it.links[0] is not link
        assert "said nothing" in it.supervisor.shards[0].reason


@mock_clock
async def test_a_maker_that_hangs_in_its_start_is_started_again_once_a_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its shard kills it, says so and starts another; that is no death to back off from."""
    async with house(monkeypatch) as it:
        link = it.links[0]
        link.say("ready")
        for starts in (2, 3):
            await trio.sleep(START_TIMEOUT_S + 1)
            assert len(link.told("start_maker")) == starts
            link.say("maker", 0, "lost", 100, RESTARTED)
            await trio.sleep(1)
            assert len(link.told("start_maker")) == starts
        link.say("maker", 0, "up", 101, "")
        await trio.sleep(10 * START_TIMEOUT_S)
        assert len(link.told("start_maker")) == 3
        assert it.supervisor.makers[0, 0].state == "up"


@mock_clock
async def test_a_maker_that_hangs_over_an_order_is_replaced_and_its_order_given_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel shows it stopped, at the same place, at two looks; one that uses CPU is left alone."""
    seen = {"cpu_s": 1.0}
    monkeypatch.setattr(watch, "process_state", lambda _: ("T", seen["cpu_s"]))
    async with house(monkeypatch) as it:
        link = it.shard_up()
        await trio.sleep(WATCH_INTERVAL_S / 2)  # between two looks
        for _ in range(5):
            await trio.sleep(WATCH_INTERVAL_S)
            seen["cpu_s"] += 0.1
        assert len(link.told("start_maker")) == 1
        await trio.sleep(3 * WATCH_INTERVAL_S)
        assert len(link.told("start_maker")) == 2
        assert it.supervisor.makers[0, 0].reason == "hung over an order"
        orders = len(link.told("make"))
        link.say("maker", 0, "lost", 100, RESTARTED)
        link.say("maker", 0, "up", 101, "")
        assert len(link.told("make")) == orders + 1


@mock_clock
async def test_while_nothing_is_ordered_nobody_looks_at_makers(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def look(pid: int) -> tuple[str, float]:
        looks.append(pid)
        return "S", 1.0

    monkeypatch.setattr(watch, "process_state", look)
    async with house(monkeypatch, target=8) as it:
        link = it.shard_up()
        it.make(link)
        await trio.sleep(2 * WATCH_INTERVAL_S)  # the watch of that order ends
        looks.clear()
        await trio.sleep(1000 * WATCH_INTERVAL_S)
        assert looks == []


@mock_clock
async def test_a_maker_has_its_next_order_before_it_is_done_and_never_a_third(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house(monkeypatch, target=200) as it:
        link = it.shard_up()
        assert len(link.told("make")) == 1  # it has proved nothing yet
        it.make(link)
        assert len(link.told("make")) == 3  # done with the first: one to work on, one to come
        await trio.sleep(1)
        assert len(link.told("make")) == 3
        maker, order, spec, count = link.told("make")[1]
        link.say(
            "made",
            maker,
            order,
            spec,
            [[n, [bytes([n]) * 16], b"p"] for n in range(count)],
            0.01,
            [0.01] * count,
        )
        link.say("done", maker, order)
        assert len(link.told("make")) == 3  # it has one to work on: the next comes with the next plan
        await trio.sleep(1)
        assert len(link.told("make")) == 4
        assert sum(count for *_, count in link.told("make")) <= 200
