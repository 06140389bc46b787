"""Segments go one way, claimed before removed, removed before any shard has them; in doubt they are burnt."""

import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from kpcache.core import segment
from kpcache.core.segment import Header, Place
from kpcache.daemon import reserve as reserve_module
from kpcache.daemon.floor import ShardFaultError
from kpcache.daemon.ledger_store import LedgerUnavailableError
from kpcache.daemon.pools import PoolPlan
from kpcache.daemon.reserve import (
    FIRST_INTERVAL_S,
    FIRST_LOOKS,
    INTERVAL_S,
    LOOKED_AT_ONCE,
    LOOKS,
    Reserve,
)
from kpcache.daemon.reserve_start import Setup
from kpcache.daemon.segment_folder import EndNote, SegmentFolder
from tests.fakes import SPEC, FakeClaims, FakeShards, book_is_balanced, mock_clock

BOOT, MACHINE, LIFE = b"b" * 16, b"m" * 16, 8
PLACE = Place(BOOT, MACHINE, 0)
RSA = "RSA_2048"
_numbers = itertools.count(1)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SegmentFolder]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield SegmentFolder(fd)
    os.close(fd)


class House:
    """A reserve over fake shards and a fake ledger; ``steps`` is what happened, in order."""

    def __init__(self, path: Path, folder: SegmentFolder | None, shards: int = 1) -> None:
        self.path = path
        self.steps: list[str] = []
        self.sent: list[tuple[int, list[Any]]] = []
        self.reason = ""
        self.generation = 0
        plans = {SPEC: PoolPlan(8, 2, 100.0), RSA: PoolPlan(8, 2), "RSA_3072": PoolPlan(0, 0)}
        self.shards = FakeShards(plans)
        self.stock = self.shards.stock
        self.ledger = Claims(self)
        why = "" if folder is not None else "there is no folder"
        setup = Setup(path, why, folder, BOOT, MACHINE, LIFE, b"s" * 32)
        self.setup = setup
        self.reserve = Reserve(
            setup, lambda: self.generation, self.stock, self._send, self.ledger, lambda: self.reason, shards
        )

    def _send(self, shard: int, message: list[Any]) -> None:
        self.steps.append(message[0])
        self.sent.append((shard, message))
        if message[0] == "restore":
            assert not (self.path / message[1]).exists(), "removed before any shard has it"

    def put(self, pairs: int = 1, **changes: Any) -> str:
        """A segment of an earlier life; returns its name."""
        number = next(_numbers)
        name = number.to_bytes(16, "big")
        header = Header(name, PLACE, LIFE - 1, 0, 0, pairs, pairs, b"n" * 12)._replace(**changes)
        (self.path / segment.file_name(name)).write_bytes(header.pack() + b"rows")
        return segment.file_name(name)

    def given(self) -> list[str]:
        return [message[1] for _, message in self.sent if message[0] == "restore"]

    def verdicts(self) -> list[list[Any]]:
        return [message[1:] for _, message in self.sent if message[0] == "verdict"]

    def row(self, serial: int, spec: str = SPEC, age_s: float = 1.0, *, known: bool = True) -> list[Any]:
        tags = os.urandom(segment.tags_bytes(spec))
        if known:
            self.ledger.known |= {tags[:16], tags[-16:]}
        return [serial, spec, tags, age_s]

    async def settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()


class Claims(FakeClaims):
    def __init__(self, house: House) -> None:
        super().__init__()
        self._house = house
        self.go = trio.Event()
        self.go.set()

    async def claim(self, name: str) -> bool:
        assert (self._house.path / name).exists(), "claimed before it is removed"
        assert not any(name in message for _, message in self._house.sent)
        self._house.steps.append("claim")
        await self.go.wait()
        return await super().claim(name)

    async def unknown(self, tags: Any) -> set[int]:
        self._house.steps.append("unknown")
        await self.go.wait()
        return await super().unknown(tags)


@asynccontextmanager
async def house(path: Path, folder: SegmentFolder, shards: int = 1) -> AsyncIterator[House]:
    it = House(path, folder, shards)
    async with trio.open_nursery() as nursery:
        it.run = lambda: nursery.start_soon(it.reserve.run)  # type: ignore[attr-defined]
        yield it
        nursery.cancel_scope.cancel()
    assert book_is_balanced(it.stock)


def on_house(test: Callable[[House], Any]) -> Callable[[Path, SegmentFolder], None]:
    """Run a test on a house whose shard 0 is up and whose reserve is at work once ``start`` was called."""

    @mock_clock
    async def drive(tmp_path: Path, folder: SegmentFolder) -> None:
        async with house(tmp_path, folder) as it:
            await test(it)

    def run(tmp_path: Path, folder: SegmentFolder) -> None:
        drive(tmp_path, folder)

    run.__name__ = test.__name__
    return run


async def start(it: House) -> None:
    it.reserve.shard_up(0)
    it.run()  # type: ignore[attr-defined]
    await it.settle()


@on_house
async def test_a_segment_goes_its_way_and_its_pairs_are_held_again(it: House) -> None:
    name = it.put(3)
    await start(it)
    [(shard, [_, got, key, data])] = it.sent
    assert (shard, got, data[-4:]) == (0, name, b"rows")
    assert key == segment.derive_key(b"s" * 32, PLACE, LIFE - 1)
    it.reserve.opened(0, name, [it.row(1), it.row(2, RSA), it.row(3)])
    await it.settle()
    assert it.steps == ["claim", "restore", "unknown", "verdict"]
    assert it.verdicts() == [[[1, 3, 2], []]]
    books = [it.stock.pools[spec].book for spec in (SPEC, RSA)]
    assert [(book.restored, book.held, book.generated) for book in books] == [(2, 2, 0), (1, 1, 0)]
    status = it.reserve.status()
    assert (status["on"], status["restored"], status["dropped_segments"]) == (True, 3, {})
    with trio.fail_after(1):
        await it.reserve.wait_back()


@on_house
async def test_nothing_is_claimed_before_a_shard_is_there_to_take_it(it: House) -> None:
    """A daemon that cannot start its shards leaves the reserve to the next."""
    names = {it.put(), it.put()}
    it.run()  # type: ignore[attr-defined]
    await trio.sleep(5)
    assert it.steps == []
    assert set(os.listdir(it.path)) == names
    it.reserve.shard_up(0)
    await it.settle()
    assert it.steps == ["claim", "restore"]
    assert len(os.listdir(it.path)) == 1, "one at a time"


@on_house
async def test_a_name_that_was_claimed_before_is_deleted_unread(it: House) -> None:
    name = it.put()
    it.ledger.claimed.append(name)
    (it.path / name).chmod(0o000)
    await start(it)
    assert it.sent == []
    assert os.listdir(it.path) == []
    assert it.reserve.status()["dropped_segments"] == {"claimed_before": 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"place": PLACE._replace(boot=b"x" * 16)}, "foreign_boot"),
        ({"place": PLACE._replace(generation=1)}, "generation"),
        ({"life": LIFE}, "stale"),
        ({"name": b"x" * 16}, "format"),
    ],
)
def test_what_its_header_condemns_is_deleted_unread_and_not_claimed(
    changes: dict[str, Any], reason: str, tmp_path: Path, folder: SegmentFolder
) -> None:
    @mock_clock
    async def drive() -> None:
        async with house(tmp_path, folder) as it:
            it.put(**changes)
            await start(it)
            assert it.steps == []
            assert os.listdir(tmp_path) == []
            assert it.reserve.status()["dropped_segments"] == {reason: 1}

    drive()


@pytest.mark.parametrize("reason", ["alarm", "ledger_rolled_back"])
def test_with_an_alarm_or_a_ledger_rolled_back_all_is_deleted(
    reason: str, tmp_path: Path, folder: SegmentFolder
) -> None:
    @mock_clock
    async def drive() -> None:
        async with house(tmp_path, folder) as it:
            it.put(), it.put()
            it.reason = reason
            await start(it)
            assert it.steps == []
            assert os.listdir(tmp_path) == []
            assert it.reserve.status()["dropped_segments"] == {reason: 2}

    drive()


@on_house
async def test_an_alarm_that_is_raised_meanwhile_stops_what_is_under_way(it: House) -> None:
    it.ledger.go = trio.Event()
    it.put()
    await start(it)
    it.reason = "alarm"
    it.ledger.go.set()
    await it.settle()
    assert it.steps == ["claim"]
    it.reason = ""
    name = it.put()
    await trio.sleep(2 * FIRST_INTERVAL_S)
    assert it.given() == [name]
    it.ledger.go = trio.Event()
    it.reserve.opened(0, name, [it.row(1)])
    await it.settle()
    it.reason = "alarm"
    it.ledger.go.set()
    await it.settle()
    assert it.verdicts() == []
    assert it.reserve.status()["dropped_segments"] == {"alarm": 2}


@on_house
async def test_before_a_snapshot_all_is_deleted_what_waits_for_a_shard_too(it: House) -> None:
    given, waiting = it.put(), it.put()
    await start(it)
    it.reason = "quiesced"
    it.reserve.drop_all("quiesced")
    it.reserve.lose_shard(0)
    assert os.listdir(it.path) == []
    it.put()
    await trio.sleep(2 * FIRST_INTERVAL_S)
    it.reason = ""
    it.reserve.shard_up(0)
    await trio.sleep(1)
    assert it.given() == [given]
    assert waiting not in it.ledger.claimed
    assert it.reserve.status()["dropped_segments"] == {"quiesced": 2, "worker_lost": 1}


@on_house
async def test_a_machine_that_is_copied_meanwhile_has_none_of_it(it: House) -> None:
    first, second = it.put(), it.put()
    await start(it)
    it.ledger.go = trio.Event()
    it.reserve.opened(0, first, [it.row(1)])
    await it.settle()
    it.generation = 1
    it.ledger.go.set()
    await it.settle()
    assert it.verdicts() == []
    assert it.given() == [first]
    assert not (it.path / second).exists()
    assert it.reserve.status()["dropped_segments"] == {"generation": 2}


@on_house
async def test_pairs_that_the_ledger_does_not_know_are_refused_without_an_alarm(it: House) -> None:
    name = it.put(3)
    await start(it)
    half_known = it.row(3, RSA, known=False)
    it.ledger.known.add(half_known[2][:16])
    it.reserve.opened(0, name, [it.row(1), it.row(2, known=False), half_known])
    await it.settle()
    assert it.verdicts() == [[[1], [2, 3]]]
    assert it.reserve.status()["dropped_pairs"] == {"unknown_pairs": 2}


@on_house
async def test_what_is_too_old_or_has_no_pool_is_refused(it: House) -> None:
    name = it.put(4)
    await start(it)
    rows = [it.row(1, age_s=99.0), it.row(2, age_s=100.0), it.row(3, "RSA_3072"), it.row(4, RSA, 1e9)]
    it.reserve.opened(0, name, rows)
    await it.settle()
    assert it.verdicts() == [[[1, 4], [2, 3]]]
    assert it.reserve.status()["dropped_pairs"] == {"too_old": 1, "no_pool": 1}
    it.shards.deliver()
    it.stock.retire(it.stock.pools[SPEC], trio.current_time() + 1.1)
    assert it.stock.pools[SPEC].book.discarded == {"too_old": 1}, "it is as old as it was"


@on_house
async def test_pairs_age_while_the_ledger_is_asked(it: House) -> None:
    name = it.put(2)
    await start(it)
    it.ledger.go = trio.Event()
    it.reserve.opened(0, name, [it.row(1, age_s=89.0), it.row(2, age_s=91.0)])
    await trio.sleep(10)
    it.ledger.go.set()
    await it.settle()
    assert it.verdicts() == [[[1], [2]]]
    assert it.reserve.status()["dropped_pairs"] == {"too_old": 1}
    it.shards.deliver()
    it.stock.retire(it.stock.pools[SPEC], trio.current_time() + 1.1)
    assert it.stock.pools[SPEC].book.discarded == {"too_old": 1}


@on_house
async def test_more_than_the_target_is_kept(it: House) -> None:
    name = it.put(20)
    await start(it)
    it.reserve.opened(0, name, [it.row(n) for n in range(20)])
    await it.settle()
    assert it.stock.pools[SPEC].book.held == 20


@on_house
async def test_a_claim_that_fails_costs_its_segment_and_no_other(it: House) -> None:
    first, second = it.put(), it.put()
    it.ledger.failure = LedgerUnavailableError("disk full")
    it.ledger.go = trio.Event()
    await start(it)
    it.ledger.available = False
    it.ledger.go.set()
    await it.settle()
    assert it.sent == []
    assert os.listdir(it.path) == [second], "of the first it is not known whether it was claimed"
    assert it.reserve.status()["dropped_segments"] == {"unclaimed": 1}
    assert first != second


@on_house
async def test_while_the_ledger_is_away_segments_wait_for_it(it: House) -> None:
    """A name that was found is not passed over, and what it costs is time."""
    first, second = it.put(), it.put()
    it.ledger.available = False
    await start(it)
    await trio.sleep(INTERVAL_S * LOOKS / 2)
    assert it.steps == []
    it.ledger.available = True
    await trio.sleep(2 * INTERVAL_S)
    assert it.given() == [first]
    it.ledger.available = False
    it.reserve.opened(0, first, [it.row(1)])
    await trio.sleep(5 * INTERVAL_S)
    assert it.given() == [first]
    it.ledger.available = True
    await trio.sleep(2 * INTERVAL_S)
    assert it.given() == [first, second]


@on_house
async def test_for_a_ledger_that_stays_away_segments_wait_no_longer_than_the_looks_last(it: House) -> None:
    names = {it.put(), it.put()}
    it.ledger.available = False
    await start(it)
    await trio.sleep(FIRST_INTERVAL_S * FIRST_LOOKS + INTERVAL_S * (LOOKS + 2))
    it.ledger.available = True
    await trio.sleep(1000)
    assert it.steps == []
    assert set(os.listdir(it.path)) == names, "they are left for the next start"


@on_house
async def test_pairs_whose_tags_cannot_be_looked_up_are_not_held(it: House) -> None:
    name = it.put()
    await start(it)
    it.ledger.failure = LedgerUnavailableError("disk full")
    it.reserve.opened(0, name, [it.row(1)])
    await it.settle()
    assert it.verdicts() == []
    assert it.reserve.status()["dropped_segments"] == {"unclaimed": 1}


@on_house
async def test_what_cannot_be_removed_is_not_given_out(it: House) -> None:
    name = it.put()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentFolder, "unlink", lambda *_: (_ for _ in ()).throw(OSError(30, "read-only")))
        await start(it)
    assert it.sent == []
    assert os.listdir(it.path) == [name]
    assert it.ledger.claimed == [name]
    assert it.reserve.status()["dropped_segments"] == {"unclaimed": 1}


@on_house
async def test_what_another_removed_first_is_its_own_and_not_given_out_here(it: House) -> None:
    """Two daemons with two ledgers: each may claim the name, and each may have read the file."""
    name = it.put()
    read = SegmentFolder.read

    def read_as_another_removes_it(folder: SegmentFolder, name: str) -> bytes:
        data = read(folder, name)
        folder.remove(name)
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentFolder, "read", read_as_another_removes_it)
        await start(it)
    assert (it.sent, it.ledger.claimed) == ([], [name])
    assert it.reserve.status()["dropped_segments"] == {"unclaimed": 1}


@on_house
async def test_a_damaged_segment_is_dropped_and_the_next_one_served(it: House) -> None:
    first, second = it.put(), it.put()
    await start(it)
    it.reserve.opened(0, first, None)
    await it.settle()
    assert it.given() == [first, second]
    it.reserve.opened(0, second, [it.row(1)])
    await it.settle()
    assert it.reserve.status()["dropped_segments"] == {"damaged": 1}
    assert it.reserve.restored == 1


@on_house
async def test_a_shard_that_dies_over_a_segment_takes_it_along(it: House) -> None:
    first, second, third = it.put(), it.put(), it.put()
    await start(it)
    it.reserve.lose_shard(0)
    await it.settle()
    assert it.given() == [first], "there is no shard to give one to"
    it.reserve.shard_up(0)
    await it.settle()
    it.ledger.go = trio.Event()
    it.reserve.opened(0, second, [it.row(1)])
    await it.settle()
    it.reserve.lose_shard(0)
    it.reserve.shard_up(0)
    it.ledger.go.set()
    await it.settle()
    assert it.verdicts() == [], "the one that lives now has no such pair"
    it.reserve.opened(0, third, [it.row(1)])
    await it.settle()
    assert it.verdicts() == [[[1], []]]
    assert it.reserve.status()["dropped_segments"] == {"worker_lost": 2}
    assert it.stock.pools[SPEC].book.restored == 1


@on_house
async def test_a_shard_that_is_lost_before_it_is_up_or_twice_gets_its_segments_all_the_same(
    it: House,
) -> None:
    first, second = it.put(), it.put()
    it.run()  # type: ignore[attr-defined]
    await it.settle()
    it.reserve.lose_shard(0)  # it died in its start
    await it.settle()
    it.reserve.shard_up(0)
    await it.settle()
    assert it.given() == [first]
    for _ in range(2):  # it was killed, and then it ended
        it.reserve.lose_shard(0)
        await it.settle()
    it.reserve.shard_up(0)
    await it.settle()
    assert it.given() == [first, second]


@on_house
async def test_a_shard_that_is_up_for_a_moment_costs_no_segment(it: House) -> None:
    await start(it)
    it.reserve.lose_shard(0)
    name = it.put()
    await trio.sleep(2 * FIRST_INTERVAL_S)  # it is with the shard's task now, which waits for the shard
    it.reserve.shard_up(0)
    it.reserve.lose_shard(0)
    await it.settle()
    assert it.steps == []
    it.reserve.shard_up(0)
    await it.settle()
    assert it.given() == [name]


@pytest.mark.parametrize(
    "rows",
    [
        7, [7], [[1, SPEC, b"t" * 16]], [["1", SPEC, b"t" * 16, 1.0]], [[1, "SM3", b"t" * 16, 1.0]],
        [[1, SPEC, b"t" * 17, 1.0]], [[1, SPEC, b"t" * 16, -1.0]], [[1, SPEC, b"t" * 16, None]],
    ],
)  # fmt: skip
def test_a_lie_of_a_shard_is_its_fault(rows: Any, tmp_path: Path, folder: SegmentFolder) -> None:
    @mock_clock
    async def drive() -> None:
        async with house(tmp_path, folder) as it:
            name = it.put()
            await start(it)
            with pytest.raises((ShardFaultError, TypeError)):
                it.reserve.opened(0, name, rows)
            it.reserve.lose_shard(0)
            await it.settle()
            assert it.reserve.restored == 0

    drive()


@on_house
async def test_a_segment_that_was_not_given_cannot_come_back(it: House) -> None:
    with pytest.raises(ShardFaultError):
        it.reserve.opened(0, "", [])
    name = it.put()
    await start(it)
    with pytest.raises(ShardFaultError):
        it.reserve.opened(0, it.put(), [])
    it.reserve.opened(0, name, [it.row(1)])
    with pytest.raises(ShardFaultError):
        it.reserve.opened(0, name, [it.row(1)])


@on_house
async def test_late_segments_are_found_and_what_comes_later_waits_for_the_next_start(it: House) -> None:
    await start(it)
    await trio.sleep(0.5)
    for _ in range(2):
        name = it.put()
        await trio.sleep(INTERVAL_S + FIRST_INTERVAL_S)
        assert it.given()[-1] == name
        it.reserve.opened(0, name, [it.row(1)])
    await trio.sleep(FIRST_INTERVAL_S * FIRST_LOOKS + INTERVAL_S * LOOKS)
    it.put()
    await trio.sleep(1000)
    assert len(it.given()) == 2
    assert len(os.listdir(it.path)) == 1


@on_house
async def test_what_a_shard_did_not_finish_is_removed_when_it_is_surely_dead(it: House) -> None:
    old, new = (it.path / segment.temporary_name(bytes([n] * 16)) for n in (1, 2))
    old.touch()
    await start(it)
    new.touch()
    await trio.sleep(INTERVAL_S * LOOKS / 2)
    assert old.exists()
    await trio.sleep(INTERVAL_S * LOOKS)
    assert (old.exists(), new.exists()) == (False, True)


@mock_clock
async def _several_shards(path: Path, folder: SegmentFolder) -> None:
    async with house(path, folder, shards=2) as it:
        order = [it.put(shard=shard, number=number) for number in range(2) for shard in range(2)]
        it.reserve.shard_up(1)
        it.reserve.shard_up(0)
        it.run()  # type: ignore[attr-defined]
        await it.settle()
        assert sorted(it.given()) == sorted(order[:2]), "what is costliest comes first, to all shards at once"
        assert {shard for shard, _ in it.sent} == {0, 1}


@mock_clock
async def _one_of_two_shards(path: Path, folder: SegmentFolder) -> None:
    async with house(path, folder, shards=2) as it:
        names = [it.put(), it.put()]
        it.reserve.shard_up(1)
        it.run()  # type: ignore[attr-defined]
        for name in names:
            await it.settle()
            it.reserve.opened(1, name, [it.row(1)])
        await it.settle()
        assert it.reserve.restored == 2


def test_a_shard_that_is_not_up_keeps_nothing_from_others(tmp_path: Path, folder: SegmentFolder) -> None:
    _one_of_two_shards(tmp_path, folder)


def test_all_shards_take_part(tmp_path: Path, folder: SegmentFolder) -> None:
    _several_shards(tmp_path, folder)


@on_house
async def test_a_defect_in_it_ends_the_reserve_and_not_the_daemon(it: House) -> None:
    it.put()
    it.ledger.failure = RuntimeError("planted")
    await start(it)
    await trio.sleep(1)
    assert it.sent == []


MANY = 1000


def test_of_many_that_are_refused_there_is_one_line_and_others_have_their_turns_meanwhile(
    tmp_path: Path, folder: SegmentFolder, caplog: pytest.LogCaptureFixture
) -> None:
    @mock_clock
    async def drive() -> None:
        async with house(tmp_path, folder) as it, trio.open_nursery() as nursery:
            for _ in range(MANY):
                it.put(life=LIFE)
            left: list[int] = []

            async def look() -> None:
                while len(left) < 4 * MANY // LOOKED_AT_ONCE:
                    left.append(len(os.listdir(tmp_path)))
                    await trio.lowlevel.checkpoint()

            it.run()  # type: ignore[attr-defined]
            nursery.start_soon(look)
            await it.settle()
            # Of two tasks that take turns either may be first each time.
            assert len({*left}) >= MANY // LOOKED_AT_ONCE // 2

    drive()
    assert caplog.messages == [f"segments of the reserve dropped (stale), their pairs burnt: {MANY}"]


@on_house
async def test_what_is_dropped_between_two_parts_of_a_look_is_dropped_once(it: House) -> None:
    for _ in range(2 * LOOKED_AT_ONCE):
        it.put()
    it.run()  # type: ignore[attr-defined]
    while not it.reserve._seen:
        await trio.lowlevel.checkpoint()
    it.reserve.drop_all("quiesced")
    it.reserve.shard_up(0)
    await it.settle()
    assert it.steps == []
    assert it.reserve.status()["dropped_segments"] == {"quiesced": 2 * LOOKED_AT_ONCE}


@on_house
async def test_a_copy_that_is_noticed_at_a_look_drops_each_segment_once(it: House) -> None:
    for _ in range(3):
        it.put()

    def crossed() -> int:
        if not it.generation:
            it.generation = 1
            it.reserve.drop_all("generation")  # as ``Emergencies.burn_copied``
        return it.generation

    it.reserve._generation = crossed
    it.reserve.shard_up(0)
    it.run()  # type: ignore[attr-defined]
    await it.settle()
    assert it.steps == []
    assert it.reserve.status()["dropped_segments"] == {"generation": 3}


# --- what a restart has cost


def burnt(it: House) -> tuple[int, bool]:
    status = it.reserve.status()
    return status["burnt_last_restart"], status["burnt_is_exact"]


@mock_clock
async def _costs(path: Path, folder: SegmentFolder, note: EndNote | None) -> None:
    if note is not None:
        folder.leave_note(note)
    async with house(path, folder) as it:
        name = it.put(3, had=5)
        await start(it)
        is_exact = note is not None and note.life == LIFE - 1
        assert burnt(it) == (30 if is_exact else 5, is_exact)
        it.reserve.opened(0, name, [it.row(n) for n in range(3)])
        await it.settle()
        assert burnt(it) == (27 if is_exact else 2, is_exact)
        it.reserve.leave()
        assert folder.take_note() == EndNote(LIFE, 3)


@on_house
async def test_what_a_restart_burnt_is_of_the_last_life_and_of_what_is_fit_to_be_opened(it: House) -> None:
    it.put(had=4_000_000_000, shard=1, place=PLACE._replace(boot=b"x" * 16))
    it.put(had=4_000_000_000, shard=2, name=b"x" * 16)
    earlier, last = it.put(2, had=7, shard=3, life=LIFE - 2), it.put(3, had=5)
    await start(it)
    assert burnt(it) == (5, False)
    it.reserve.opened(0, earlier, [it.row(1), it.row(2)])
    await it.settle()
    assert burnt(it) == (5, False), "what is back of an earlier life makes up for none of this one"
    it.reserve.opened(0, last, [it.row(n) for n in range(3)])
    await it.settle()
    assert burnt(it) == (2, False)
    assert it.reserve.restored == 5


@pytest.mark.parametrize("note", [EndNote(LIFE - 1, 30), EndNote(LIFE - 2, 30), None])
def test_what_a_restart_burnt_is_told_exactly_after_an_ordinary_end(
    tmp_path: Path, folder: SegmentFolder, note: EndNote | None
) -> None:
    """After a kill the note is missing, or of an earlier life: then what shards had is the least."""
    _costs(tmp_path, folder, note)


def test_the_looks_are_bounded_and_mostly_seldom() -> None:
    pauses = list(reserve_module._pauses())
    assert sum(pauses) == pytest.approx(FIRST_LOOKS * FIRST_INTERVAL_S + LOOKS * INTERVAL_S)
    assert len(pauses) == FIRST_LOOKS + LOOKS


@mock_clock
async def _without_a_folder(path: Path) -> None:
    it = House(path, None)
    await it.reserve.run()
    assert it.reserve.status()["on"] is False


def test_a_daemon_without_a_reserve_says_so_and_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _without_a_folder(tmp_path)
    assert caplog.messages == ["no pair will wait out a restart: there is no folder"]
