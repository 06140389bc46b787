"""Settings that change while the daemon runs: nobody who waits is lost, and a bad file changes nothing."""

import itertools
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kpcache.core.config import load
from kpcache.core.connection import Broken, Connection
from kpcache.core.fair_queue import Identity
from kpcache.core.limits import Limits
from kpcache.core.settings import Config, Defaults
from kpcache.core.specs import MAKEABLE, SPECS
from kpcache.daemon import reload as reload_module
from kpcache.daemon.administrator import MAX_MESSAGE_BYTES
from kpcache.daemon.descriptors import take_over
from kpcache.daemon.fence import Fence
from kpcache.daemon.ledger_batch import MakerStart
from kpcache.daemon.ledger_start import open_ledger
from kpcache.daemon.notices import log
from kpcache.daemon.parts import Parts
from kpcache.daemon.pooling import Pooling
from kpcache.daemon.pools import PoolPlan
from kpcache.daemon.reload import APPLIED, REFUSED, Reloader, Source
from kpcache.daemon.retirement import retire_old
from kpcache.daemon.supervisor import Supervisor
from kpcache.errors import ConfigError, KMSInternalException, KMSInvalidStateException, ThrottlingException
from kpcache.keyring.seal import Unlock
from kpcache.keyring.vault import Vault
from tests.fakes import (
    FakeLedger,
    FakeShards,
    FakeSource,
    book_is_balanced,
    fake_pair,
    made_rows,
    mock_clock,
    pack_request,
    real_clock,
)

QUICK, SMALL = "ECC_NIST_P256", "RSA_2048"
ALICE, BOB = Identity(1), Identity(2)
DEFAULTS = Defaults(socket="/run/x/kpcache.sock", state_dir="/nowhere/s", runtime_dir="/r", usable_cpus=2)


def config(pools: dict[str, Any] | None = None, **tables: Any) -> Config:
    """With these pools and no others: a target, "auto", or a table."""
    rows = {
        spec: target if isinstance(target, dict) else {"target": target}
        for spec, target in {**dict.fromkeys(MAKEABLE, 0), **(pools or {})}.items()
    }
    return load({"pools": rows, **tables}, defaults=DEFAULTS)


def still_fine() -> None:
    """Nothing has changed for a request while it waited."""


class Plant:
    """The real pools over two makers that take their keys' cost, and a shard that is quick to answer."""

    def __init__(self, nursery: trio.Nursery, settings: Config) -> None:
        self._nursery = nursery
        self._tags = itertools.count()
        self._orders = [trio.open_memory_channel[list[Any]](2) for _ in range(2)]
        self.pools = Pooling(settings, cast(Supervisor, self), FakeLedger(), Fence(FakeSource()), cpus=2)
        self.stock, self.floor = self.pools.stock, self.pools.floor
        nursery.start_soon(self.floor.run)
        nursery.start_soon(retire_old, self.stock)
        for maker in range(2):
            nursery.start_soon(self._make, maker)

    # --- as the supervisor

    def send(self, _shard: int, message: list[Any]) -> None:
        if message[0] == "make":
            self._orders[message[1]][0].send_nowait(message)

    def send_draw(self, shard: int, spec: str, count: int) -> None:
        self._nursery.start_soon(self._answer, shard, spec, count)

    def send_burn(self, shard: int, spec: str, count: int) -> None:
        """Pairs are made up when they are drawn."""

    async def _answer(self, shard: int, spec: str, count: int) -> None:
        await trio.sleep(0.001)
        self.stock.receive(shard, spec, [fake_pair(spec) for _ in range(count)])

    async def _make(self, maker: int) -> None:
        self.floor.maker_up(0, maker)
        async for _, _, number, spec, count in self._orders[maker][1]:
            for _ in range(count):
                await trio.sleep(SPECS[spec].keygen_cost_s)
                rows, cost_s = made_rows(spec, self._tags), SPECS[spec].keygen_cost_s
                self.floor.made(MakerStart(0, maker, 0), number, spec, rows, cost_s, [cost_s])
            self.floor.done(0, maker, number)

    # --- as clients

    async def ask(self, spec: str = QUICK, wait_s: float = 60.0, who: Identity = ALICE) -> str:
        """The reason of the refusal; empty when it got a pair."""
        try:
            pair = self.stock.take_nowait(spec, who)
            if pair is None:
                await self.stock.wait(self.stock.join_queue(spec, wait_s, who, still_fine))
        except ThrottlingException as error:
            return str(error.reason)
        self.stock.issue(spec)
        return ""

    def available(self, spec: str = QUICK) -> int:
        return self.stock.pools[spec].book.available


@asynccontextmanager
async def plant(settings: Config) -> AsyncIterator[Plant]:
    async with trio.open_nursery() as nursery:
        it = Plant(nursery, settings)
        yield it
        nursery.cancel_scope.cancel()
    assert book_is_balanced(it.stock)


# --- targets


@mock_clock
async def test_a_target_that_rises_is_filled_also_from_none() -> None:
    async with plant(config({SMALL: 4})) as it:
        await trio.sleep(10)
        assert (it.available(SMALL), it.available(QUICK)) == (4, 0)
        it.pools.apply(config({SMALL: 30, QUICK: 20}))
        await trio.sleep(10)
        assert (it.available(SMALL), it.available(QUICK)) == (30, 20)


@pytest.mark.parametrize("target", [4, 0])
@mock_clock
async def test_above_a_target_that_fell_pairs_are_given_out_and_none_is_burnt(target: int) -> None:
    async with plant(config({QUICK: 100})) as it:
        await trio.sleep(10)
        it.pools.apply(config({QUICK: target}))
        await trio.sleep(10)
        assert it.available() == 100
        for left in range(99, -1, -1):
            assert await it.ask(wait_s=0) == ""
            await trio.sleep(0.01)
            assert it.available() >= left
        assert await it.ask() == ""  # of a pool of none it is made now
        await trio.sleep(1)
        book = it.stock.pools[QUICK].book
        assert (book.issued, book.discarded.total(), it.available()) == (101, 0, target)


@mock_clock
async def test_what_is_above_a_fallen_target_is_given_out_as_fast_as_before() -> None:
    """The ready set is kept up while there are pairs to keep it up with: a hit stays a hit."""
    async with plant(config({QUICK: 100})) as it:
        await trio.sleep(10)
        it.pools.apply(config())
        for _ in range(80):
            assert it.stock.take_nowait(QUICK, ALICE)
            it.stock.issue(QUICK)
            await trio.sleep(0.01)


@mock_clock
async def test_an_adaptive_target_keeps_what_it_has_learned_unless_it_was_fixed_meanwhile() -> None:
    auto = {"target": "auto", "min": 4, "max": 5000}
    async with plant(config({QUICK: auto, SMALL: 2})) as it:
        for _ in range(3000):
            await it.ask()
            await trio.sleep(0.1)
        learned = it.stock.pools[QUICK].target
        assert learned > 12
        await trio.sleep(1)
        it.pools.apply(config({QUICK: auto, SMALL: 3}))
        assert learned - 1 <= it.stock.pools[QUICK].target <= learned  # it falls with time
        it.pools.apply(config({QUICK: {**auto, "max": learned - 3}}))
        assert it.stock.pools[QUICK].target == learned - 3
        it.pools.apply(config({QUICK: {**auto, "min": learned + 7}}))
        assert it.stock.pools[QUICK].target == learned + 7
        it.pools.apply(config({QUICK: 9}))
        await trio.sleep(60)
        assert it.stock.pools[QUICK].target == 9  # nothing resizes it any more
        # What was asked for is known all the same.
        it.pools.apply(config({QUICK: auto}))
        assert it.stock.pools[QUICK].target > 12


@mock_clock
async def test_a_pool_that_becomes_adaptive_is_refilled_at_once_up_to_its_low_watermark() -> None:
    async with plant(config()) as it:
        pool = it.stock.pools[QUICK]
        it.pools.apply(config({QUICK: {"target": "auto", "min": 40, "max": 5000}}))
        assert (pool.target, pool.low_water) == (40, 10)
        it.pools.apply(config({QUICK: 12}))
        assert (pool.target, pool.low_water) == (12, 3)


@mock_clock
async def test_an_age_limit_is_in_force_at_once_and_can_be_taken_away() -> None:
    async with plant(config({QUICK: 10})) as it:
        book = it.stock.pools[QUICK].book
        await trio.sleep(100)
        it.pools.apply(config({QUICK: {"target": 10, "max_age_s": 60}}))
        await trio.sleep(0.2)
        assert book.discarded == {"too_old": 10}
        await trio.sleep(50)
        assert (it.available(), book.discarded.total()) == (10, 10)
        it.pools.apply(config({QUICK: 10}))
        await trio.sleep(1000)
        assert book.discarded.total() == 10


@mock_clock
async def test_makers_keep_to_the_share_of_the_cpus_that_was_set_last() -> None:
    pools = {SMALL: {"target": 100, "low_water": 0}}
    async with plant(config(pools, refill={"max_cpu_percent": 1, "heed_pressure": False})) as it:
        await trio.sleep(10)
        assert it.available(SMALL) < 20
        it.pools.apply(config(pools, refill={"max_cpu_percent": 100, "heed_pressure": False}))
        await trio.sleep(10)
        assert it.available(SMALL) == 100


# --- those who wait, limits and shares


@mock_clock
async def test_whoever_may_have_a_ready_pair_now_is_handed_it_at_once() -> None:
    shards = FakeShards({QUICK: PoolPlan(20, 2)}, kept_percent=50)
    shards.stock.pools[QUICK].ready_target = 20
    shards.fill(20)
    for who in (BOB, *[ALICE] * 10):
        shards.stock.take_nowait(QUICK, who)
    waiter = shards.stock.join_queue(QUICK, 60.0, ALICE, still_fine)
    served = [waiter.woken.is_set()]
    shards.stock.replan({QUICK: PoolPlan(20, 2)}, 0, [])
    served.append(waiter.woken.is_set() and waiter.pair is not None)
    assert served == [False, True]


@mock_clock
async def test_a_larger_ready_set_is_drawn_and_missing_pairs_are_planned_for_at_once() -> None:
    shards = FakeShards({QUICK: PoolPlan(0, 0)})
    shards.hold(40)
    asked = shards.plans_asked
    assert not shards.draws
    shards.stock.replan({QUICK: PoolPlan(60, 2)}, 0, [])
    assert shards.draws == [(0, QUICK, 15)]
    assert shards.plans_asked > asked


@mock_clock
async def test_a_client_that_waits_keeps_its_place_and_its_time() -> None:
    async with plant(config({SMALL: 2})) as it:
        results: list[tuple[str, float]] = []

        async def ask(wait_s: float) -> None:
            results.append((await it.ask("RSA_4096", wait_s), trio.current_time()))

        async with trio.open_nursery() as clients:
            for _ in range(8):
                clients.start_soon(ask, 60.0)
            await trio.sleep(0.5)
            for target in (0, 50, 3, 0):
                it.pools.apply(config({"RSA_4096": target}, requests={"wait_timeout_s": 0}))
                await trio.sleep(0.3)
        assert [reason for reason, _ in results] == [""] * 8


@mock_clock
async def test_one_whom_a_share_keeps_waiting_is_served_when_nothing_is_kept_back_any_more() -> None:
    async with plant(config({QUICK: 20}, requests={"keep_back_percent": 50})) as it:
        await trio.sleep(10)
        await it.ask(who=BOB)
        it.floor.stop("a test")
        while it.stock.take_nowait(QUICK, ALICE):
            it.stock.issue(QUICK)
            await trio.sleep(0.01)
        assert it.available()
        waiter = it.stock.join_queue(QUICK, 60.0, ALICE, still_fine)
        await trio.sleep(1)
        assert waiter.pair is None
        it.pools.apply(config({QUICK: 20}, requests={"keep_back_percent": 0}))
        assert await it.stock.wait(waiter)
        it.stock.issue(QUICK)


@mock_clock
async def test_limits_come_change_and_go_and_one_that_stays_forgets_nothing() -> None:
    slow, other = {"rate_per_s": 0.001, "burst": 3}, {"rate_per_s": 0.001, "burst": 50, "uid": 7}
    async with plant(config({QUICK: 50})) as it:
        await trio.sleep(10)

        async def burst() -> int:
            for number in range(10):
                if await it.ask() == "rate_limited":
                    return number
            return 10

        assert await burst() == 10
        it.pools.apply(config({QUICK: 50}, limits=[slow]))
        assert await burst() == 3
        it.pools.apply(config({QUICK: 50}, limits=[other, slow]))
        assert await burst() == 0
        it.pools.apply(config({QUICK: 50}, limits=[{**slow, "burst": 5}]))
        assert await burst() == 5
        it.pools.apply(config({QUICK: 50}))
        assert await burst() == 10


@mock_clock
async def test_a_request_that_fails_after_the_limits_changed_gives_back_nothing_that_it_did_not_take() -> (
    None
):
    slow = {"rate_per_s": 0.001, "burst": 3}
    async with plant(config()) as it:
        it.floor.stop("a test")
        waiters = [it.stock.join_queue(QUICK, 5.0, ALICE, still_fine) for _ in range(3)]
        it.pools.apply(config(limits=[slow]))
        for _ in range(3):  # the tokens are taken, and none is left
            assert it.stock.take_nowait(QUICK, BOB) is it.stock.take_nowait(QUICK, ALICE) is None
        for waiter in waiters:
            with pytest.raises(ThrottlingException, match="no ECC_NIST_P256 pair"):
                await it.stock.wait(waiter)
        with pytest.raises(ThrottlingException, match="limits"):
            it.stock.take_nowait(QUICK, ALICE)


TARGETS = st.one_of(
    st.integers(0, 60),
    st.builds(lambda least, more: {"target": "auto", "min": least, "max": least + more},
              st.integers(1, 30), st.integers(0, 60)),
    st.builds(lambda target, age: {"target": target, "max_age_s": age},
              st.integers(0, 60), st.integers(10, 30)),
)  # fmt: skip
CONFIGS = st.builds(
    lambda quick, small, kept, percent, limits: config(
        {QUICK: quick, SMALL: small},
        requests={"keep_back_percent": kept},
        refill={"max_cpu_percent": percent, "heed_pressure": False},
        limits=limits,
    ),
    TARGETS,
    TARGETS,
    st.sampled_from([0, 20, 90]),
    st.sampled_from([50, 100]),
    st.sampled_from([[], [{"rate_per_s": 1, "burst": 5}], [{"rate_per_s": 9, "burst": 9, "uid": 1}]]),
)
STEPS = st.lists(
    st.one_of(
        CONFIGS,
        st.tuples(st.sampled_from([QUICK, SMALL]), st.sampled_from([ALICE, BOB]), st.integers(1, 40)),
        st.floats(0, 2),
    ),
    max_size=30,
)


@hypothesis_settings(max_examples=25, deadline=None)
@given(CONFIGS, STEPS)
def test_whatever_is_reloaded_books_balance_and_whoever_waits_is_served(
    first: Config, steps: list[Any]
) -> None:
    @mock_clock
    async def story() -> None:
        async with plant(first) as it:
            now_in_force, asked, results = first, 0, list[str]()

            async def ask(spec: str, who: Identity) -> None:
                # Nobody is let wait for another one's debts for longer than an hour (core/shares).
                results.append(await it.ask(spec, 3600.0, who))

            async with trio.open_nursery() as clients:
                for step in steps:
                    if isinstance(step, Config):
                        now_in_force = step
                        it.pools.apply(step)
                    elif isinstance(step, float):
                        await trio.sleep(step)
                    else:
                        spec, who, count = step
                        asked += count
                        for _ in range(count):
                            clients.start_soon(ask, spec, who)
                    assert book_is_balanced(it.stock)
            assert len(results) == asked
            assert set(results) <= {"", "rate_limited"}
            await trio.sleep(600)
            for spec in (QUICK, SMALL):
                pool = it.stock.pools[spec]
                assert it.available(spec) >= pool.target or pool.max_age_s
                assert not pool.desk.queue
                wanted = now_in_force.pools[spec]
                assert pool.target == wanted.target or wanted.min <= pool.target <= wanted.max

    story()


# --- limits of connections


def test_bounds_that_change_are_in_force_for_connections_that_are_open() -> None:
    limits = Limits()
    connection = Connection(limits)
    large = pack_request(1, "kpcache.Ping", {"x": "y" * 20_000})
    connection.feed(large)
    assert not isinstance(connection.next_event(), Broken)
    take_over(limits, Limits(max_message_bytes=16_384))
    connection.feed(pack_request(2, "kpcache.Ping"))  # begun under the limit that was
    assert not isinstance(connection.next_event(), Broken)
    connection.feed(large)
    assert isinstance(connection.next_event(), Broken)


@real_clock
async def test_every_part_goes_by_the_settings_that_were_applied(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path, create="if_empty", default_alias="alias/kpcache", unlock=Unlock())
    opened = open_ledger(vault, tmp_path, tmp_path / "reserve")
    level = log.level
    try:
        parts = Parts(config(), vault, opened, None)
        administrators = parts.administrator.limits
        everything = config(
            {QUICK: 7},
            daemon={"ready_level": "full", "log_level": "error"},
            requests={"message_timeout_s": 1.5, "max_in_flight_per_connection": 3, "on_dry": "fail"},
            ledger={"when_unavailable": "stop"},
        )
        parts.apply(everything)
        assert parts.stock.pools[QUICK].target == 7
        assert (parts.status.ready_level, log.level) == ("full", logging.ERROR)
        for limits in (parts.limits, administrators):
            assert (limits.message_timeout_s, limits.max_in_flight_per_connection) == (1.5, 3)
        assert (parts.limits.wait_when_dry, administrators.max_message_bytes) == (False, MAX_MESSAGE_BYTES)
        # No disk has failed yet; when one has, the choice can still be made, and unmade.
        issuing = [parts.gate.issuing]
        parts.ledger.fault = "disk I/O error"
        for settings in (everything, config()):
            parts.apply(settings)
            issuing.append(parts.gate.issuing)
        assert issuing == [True, False, True]
    finally:
        log.setLevel(level)
        opened.store.close()


def test_no_level_makes_the_loggers_of_others_talk(caplog: pytest.LogCaptureFixture) -> None:
    """At their DEBUG they print private keys."""
    caplog.set_level(logging.DEBUG, "kpcache")
    for name in ("boto3", "botocore", "urllib3"):
        assert logging.getLogger(name).getEffectiveLevel() >= logging.WARNING


# --- reading the file again


class File:
    """A file of settings: gives ``wanted``, or raises ``failure``."""

    def __init__(self, wanted: Config) -> None:
        self.wanted = wanted
        self.failure: Exception | None = None
        self.reads = 0
        self.applied: list[Config] = []
        self.announced: list[bool] = []
        self.now = 1000.0

    def read(self) -> Config:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return self.wanted

    def reloader(self) -> Reloader:
        return Reloader(
            self.wanted,
            Source("/a/file", self.read),
            self.applied.append,
            self.announced.append,
            lambda: self.now,
        )


@pytest.fixture
def read_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No threads, for which the mock clock would not wait; a read takes as long as the list says."""
    takes_s = [0.0]

    async def in_a_while(call: Callable[[], object], **_: object) -> object:
        await trio.sleep(takes_s[0])
        return call()

    monkeypatch.setattr(trio.to_thread, "run_sync", in_a_while)
    return takes_s


BEFORE, AFTER = config({QUICK: 5}), config({QUICK: 9}, metrics={"listen": ""})


@pytest.mark.usefixtures("read_s")
def test_what_can_change_is_applied_and_what_cannot_is_named_until_it_is_put_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    @mock_clock
    async def story() -> None:
        file = File(BEFORE)
        reloader = file.reloader()
        assert reloader.status() == {
            "file": "/a/file",
            "last_reload": {"at": 1000.0, "successful": True, "error": ""},
            "waits_for_restart": [],
        }
        file.wanted, file.now = AFTER, 2000.0
        answer, _ = await reloader.reload()
        assert answer == {
            "File": "/a/file",
            "Changed": [f"pools.{QUICK}.target", f"pools.{QUICK}.low_water"],
            "WaitsForRestart": ["metrics.listen"],
        }
        assert file.applied == [config({QUICK: 9})]  # with the listener that there is
        assert "metrics.listen" in caplog.records[-1].getMessage()
        # Again: it still waits, and nothing else has changed.
        answer, _ = await reloader.reload()
        assert (answer["Changed"], answer["WaitsForRestart"]) == ([], ["metrics.listen"])
        assert reloader.status()["waits_for_restart"] == ["metrics.listen"]
        file.wanted = config({QUICK: 9})
        await reloader.reload()
        assert reloader.status()["waits_for_restart"] == []
        assert (reloader.outcomes, reloader.last_success_s) == ({APPLIED: 3, REFUSED: 0}, 2000.0)
        assert file.announced == [True, False] * 3

    story()


@pytest.mark.usefixtures("read_s")
def test_a_file_that_is_refused_changes_nothing_and_says_why_until_one_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @mock_clock
    async def story() -> None:
        file = File(BEFORE)
        reloader = file.reloader()
        file.failure, file.now = ConfigError("/a/file: pools.X.target = -1: must be a whole number"), 2000.0
        with pytest.raises(
            KMSInvalidStateException, match=r"stay as they are: /a/file: pools\.X\.target = -1"
        ):
            await reloader.reload()
        assert not file.applied
        assert "pools.X.target = -1: must be" in caplog.text
        assert reloader.status()["last_reload"] == {
            "at": 2000.0,
            "successful": False,
            "error": "/a/file: pools.X.target = -1: must be a whole number",
        }
        assert (reloader.last_successful, reloader.last_success_s) == (False, 1000.0)
        assert reloader.outcomes == {APPLIED: 0, REFUSED: 1}
        assert file.announced == [True, False]
        file.failure, file.wanted, file.now = None, AFTER, 3000.0
        await reloader.reload()
        assert (reloader.last_successful, reloader.last_success_s) == (True, 3000.0)
        assert reloader.status()["last_reload"]["error"] == ""

    story()


@pytest.mark.usefixtures("read_s")
def test_a_defect_in_what_applies_is_told_and_everything_is_applied_the_next_time() -> None:
    @mock_clock
    async def story() -> None:
        file = File(BEFORE)
        failures: list[Exception] = [ValueError("a SECRET")]

        def apply(settings: Config) -> None:
            if failures:
                raise failures.pop()
            file.applied.append(settings)

        reloader = Reloader(BEFORE, Source("/a/file", file.read), apply)
        file.wanted = AFTER
        with pytest.raises(KMSInternalException):
            await reloader.reload()
        assert not reloader.last_successful
        answer, _ = await reloader.reload()
        assert f"pools.{QUICK}.target" in answer["Changed"]
        assert len(file.applied) == 1

    story()


def test_signals_in_a_burst_are_one_reload_and_the_last_content_is_in_force(read_s: list[float]) -> None:
    @mock_clock
    async def story() -> None:
        file = File(BEFORE)
        reloader = file.reloader()
        read_s[0] = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reloader.run)
            for target in range(50):
                file.wanted = config({QUICK: target})
                reloader.ask()
            await trio.sleep(0.5)
            assert file.reads == 0
            for target in range(50, 100):  # while it reads
                file.wanted = config({QUICK: target})
                reloader.ask()
            await trio.sleep(10)
            assert file.reads == 2
            assert file.applied[-1] == config({QUICK: 99})
            nursery.cancel_scope.cancel()

    story()


def test_two_who_ask_at_once_are_served_one_after_the_other(read_s: list[float]) -> None:
    @mock_clock
    async def story() -> None:
        file = File(BEFORE)
        reloader = file.reloader()
        read_s[0] = 1.0
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(reloader.reload)
        assert file.announced == [True, False] * 3

    story()


@pytest.mark.usefixtures("read_s")
def test_a_signal_whose_file_is_bad_does_not_end_the_reloading() -> None:
    @mock_clock
    async def story() -> None:
        file = File(BEFORE)
        reloader = file.reloader()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reloader.run)
            for failure in (ConfigError("bad"), ValueError("a defect"), None):
                file.failure = failure
                reloader.ask()
                await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert reloader.outcomes == {APPLIED: 1, REFUSED: 2}

    story()


@mock_clock
async def test_without_a_file_there_is_nothing_to_reload_and_the_cure_is_told() -> None:
    applied: list[Config] = []
    reloader = Reloader(BEFORE, None, applied.append)
    with pytest.raises(KMSInvalidStateException, match="--config FILE"):
        await reloader.reload()
    assert (reloader.status()["file"], reloader.last_successful) == ("", True)
    assert not applied
    assert reloader.outcomes == {APPLIED: 0, REFUSED: 0}


@real_clock
async def test_a_file_server_that_hangs_holds_up_neither_the_loop_nor_more_than_one_thread() -> None:
    file = File(BEFORE)
    answers, reading = threading.Event(), threading.active_count()
    before, reads = reload_module.READ_TIMEOUT_S, 0

    def read() -> Config:
        nonlocal reads
        reads += 1
        assert answers.wait(20)
        return AFTER

    reloader = Reloader(BEFORE, Source("/a/file", read), file.applied.append)
    reload_module.READ_TIMEOUT_S = 0.05  # type: ignore[misc]
    try:
        for _ in range(3):
            with pytest.raises(KMSInvalidStateException, match="could not be read within"):
                await reloader.reload()
        assert reads == 1
        assert threading.active_count() <= reading + 1
        assert not file.applied
    finally:
        reload_module.READ_TIMEOUT_S = before  # type: ignore[misc]
        answers.set()
    await reloader.reload()
    assert len(file.applied) == 1
