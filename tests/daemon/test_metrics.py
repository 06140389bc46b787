"""Each metric tells the truth, in pieces small enough to hold nobody up, under names that people rely on."""

import math
import shutil
import subprocess
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import Metric

from kpcache.core.histogram import Histogram, edges
from kpcache.core.pool import REASONS
from kpcache.core.specs import MAKEABLE
from kpcache.daemon import families
from kpcache.daemon.metrics import Metrics
from kpcache.daemon.pools import PoolPlan
from kpcache.daemon.tally import HIT, KEYRING, OUTCOMES
from kpcache.daemon.worker_record import Worker
from kpcache.errors import ThrottlingException
from tests.fakes import SPEC, WHO, Bench, fake_pair, mock_clock, no_reserve
from tests.scrapes import Scrape, none_fell

# What people build dashboards and alerts on: the names and labels that were fixed from the first.
FIXED: dict[str, tuple[str, set[str]]] = {
    "request_duration_seconds": ("histogram", {"operation", "spec", "provider", "outcome"}),
    "pool_pairs": ("gauge", {"spec", "place"}),
    "pool_target_pairs": ("gauge", {"spec"}),
    "pool_dry_total": ("counter", {"spec"}),
    "pairs_generated_total": ("counter", {"spec"}),
    "pairs_issued_total": ("counter", {"spec"}),
    "pairs_discarded_total": ("counter", {"spec", "reason"}),
    "pairs_restored_total": ("counter", {"spec"}),
    "pairs_in_hand": ("gauge", {"spec"}),
    "keygen_duration_seconds": ("histogram", {"spec"}),
    "draw_duration_seconds": ("histogram", set()),
    "wrap_duration_seconds": ("histogram", {"provider"}),
    "ledger_commit_duration_seconds": ("histogram", set()),
    "ledger_fingerprints": ("gauge", set()),
    "ledger_bytes": ("gauge", set()),
    "oldest_pair_age_seconds": ("gauge", {"spec"}),
    "worker_restarts_total": ("counter", {"role"}),
    "connections": ("gauge", set()),
    "ready": ("gauge", set()),
    "issuing": ("gauge", set()),
    "clone_guard": ("gauge", {"mode"}),
    "build_info": ("info", {"version", "python_version"}),
}
MOST_SAMPLES = 22  # of a histogram: its buckets, infinity, sum and count


class Whole:
    """All metrics, over fakes where a part has loops, files or processes of its own."""

    def __init__(self, pools: dict[str, PoolPlan] | None = None) -> None:
        self.bench = Bench(pools)
        self.stock, self.shards, self.gate = self.bench.stock, self.bench.shards, self.bench.gate
        self.tally = self.bench.dispatcher.tally
        self.workers = [Worker("shard", 0), Worker("maker", 0, 0), Worker("maker", 0, 1)]
        self.manners = {"holding_back": False}
        self.ledger = {"tags": 0, "bytes": 0, "waiting": 0, "available": True, "rolled_back": ""}
        self.commits = Histogram(edges(0.001, 10.0))
        self.clients = {"cut": 0, "notifications": 0}
        self.connections = 0
        self.keyring = {"unexported_changes": 0, "fault": "", "default_key_state": "Enabled"}
        self.reserve = no_reserve(self.stock)
        self.outcomes = {"applied": 0, "refused": 0}
        self.is_ready = False

    def scrape(self) -> Scrape:
        return Scrape(self.metrics())

    def metrics(self) -> Metrics:
        stand_in: Callable[..., Any] = SimpleNamespace
        return Metrics(
            self.stock,
            stand_in(workers=self.workers),
            self.gate,
            self.stock.fence,
            stand_in(manners=self.manners),
            stand_in(status=lambda: self.ledger, commit_times=self.commits, failures=3),
            stand_in(),
            self.reserve,
            self.tally,
            stand_in(connections=self.connections, clients=lambda: self.clients),
            lambda: self.keyring,
            stand_in(
                last_successful=not self.outcomes["refused"], last_success_s=5.0, outcomes=self.outcomes
            ),
            lambda: self.is_ready,
        )


# --- names


@mock_clock
async def test_the_names_are_those_that_were_fixed() -> None:
    whole = Whole()
    whole.shards.fill(4)
    whole.tally.note(("Decrypt", "none", "keyring", HIT), 0.001)
    found = whole.scrape().families()
    for name, (kind, labels) in FIXED.items():
        family = found["kpcache_" + name.removesuffix("_total").removesuffix("_info")]
        assert family.type == kind
        suffixes = {"counter": {"_total"}, "info": {"_info"}, "gauge": {""}}
        names = {sample.name.removeprefix(family.name) for sample in family.samples}
        assert names == suffixes.get(kind, {"_bucket", "_sum", "_count"}), name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="NOT TESTED: promtool is not installed (Debian: apt-get install prometheus)",
)
def test_prometheus_own_linter_finds_nothing_to_say() -> None:
    texts: list[bytes] = []

    @mock_clock
    async def read() -> None:
        whole = Whole()
        texts.extend([whole.scrape().text(), busy(whole).text()])

    read()
    assert [said_of(text) for text in texts] == ["", ""]
    # It has read them: of what is wrong with them now it speaks.
    wrong = texts[1].replace(b"kpcache_pool_dry_total", b"kpcache_pool_dries")
    assert "kpcache_pool_dries" in said_of(wrong)


def said_of(text: bytes) -> str:
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert bool(done.returncode) == bool(done.stdout or done.stderr)
    return (done.stdout + done.stderr).decode()


def busy(whole: Whole) -> Scrape:
    """With something in every family."""
    whole.shards.fill(4)
    for spec in MAKEABLE:
        for outcome in OUTCOMES:
            whole.tally.note(("GenerateDataKeyPair", spec, KEYRING, outcome), 0.001)
            whole.tally.refusals["GenerateDataKeyPair", "ThrottlingException", "pool_dry"] += 1
    scrape = whole.scrape()
    assert all(family.samples for family in scrape.families().values())
    return scrape


# --- pieces


def large() -> Whole:
    """More children of a histogram than any daemon has."""
    whole = Whole({spec: PoolPlan(64, 2) for spec in MAKEABLE})
    for number in range(200):
        whole.tally.note((f"operation {number}", "none", "none", HIT), 0.001)
        whole.tally.refusals[f"operation {number}", "ValidationException", "none"] += 1
    whole.workers += [Worker("maker", shard, maker) for shard in range(8) for maker in range(8)]
    return whole


@mock_clock
async def test_no_piece_has_more_than_one_child_of_a_histogram() -> None:
    scrape = large().scrape()
    for piece in scrape.pieces:
        assert len(piece.samples) <= MOST_SAMPLES
        assert sum(sample.name.endswith("_count") for sample in piece.samples) <= 1
    assert sum(piece.name == "kpcache_request_duration_seconds" for piece in scrape.pieces) == 200
    assert sum(piece.name == "kpcache_requests_refused" for piece in scrape.pieces) == 10
    scrape.families()  # which fails if those of one are not together


@mock_clock
async def test_no_piece_takes_long_to_make() -> None:
    """Some 50 µs at most on a quiet machine. Of several rounds the best, since others use this CPU too."""
    metrics = large().metrics()
    best: dict[int, float] = {}
    for _ in range(10):
        steps, number = metrics.families(), 0
        while True:
            begun = time.perf_counter()
            piece = next(steps, None)
            took_s = time.perf_counter() - begun
            if piece is None:
                break
            best[number] = min(best.get(number, math.inf), took_s)
            number += 1
    assert max(best.values()) < 0.001


@mock_clock
async def test_what_happens_between_two_pieces_upsets_nothing() -> None:
    whole = Whole()
    whole.shards.fill(64)
    metrics, seen = whole.metrics(), list[Metric]()
    for number, piece in enumerate(metrics.families()):
        seen.append(piece)
        whole.tally.note((f"operation {number}", "none", "none", HIT), 0.001)
        whole.tally.refusals[f"operation {number}", "ValidationException", "none"] += 1
        if number < 60:
            assert whole.stock.take_nowait(SPEC, WHO)
            whole.stock.issue(SPEC)
        while whole.shards.draws:
            whole.shards.deliver()
    stand_in = cast(Metrics, SimpleNamespace(families=lambda: seen))
    assert Scrape(stand_in).adds_up(SPEC)


# --- the truth


STEPS = st.lists(
    st.sampled_from(["fill", "hold", "issue", "gone", "lose", "restore", "damage", "burn"]), max_size=30
)


@settings(deadline=None)
@given(STEPS)
def test_pairs_add_up_by_the_metrics_alone_and_no_counter_falls(steps: list[str]) -> None:
    @mock_clock
    async def drive() -> None:
        whole = Whole()
        before = whole.scrape()
        for step in steps:
            play(whole, step)
            now = whole.scrape()
            assert now.adds_up(SPEC)
            assert none_fell(before, now)
            before = now

    drive()


def play(whole: Whole, step: str) -> None:
    shards, stock = whole.shards, whole.stock
    if step in ("fill", "hold"):
        shards.hold(5)
    if step in ("fill", "damage") and shards.draws:
        shards.deliver(lambda pair: pair if step == "fill" else fake_pair("RSA_2048"))
    if step in ("issue", "gone") and stock.take_nowait(SPEC, WHO):
        if step == "issue":
            stock.issue(SPEC)
        else:
            stock.burn(SPEC, "client_gone")
    if step == "lose":
        shards.draws.clear()
        stock.lose_shard(0)
    if step == "restore":
        stock.restore(0, SPEC, [5.0, 4.0])
    if step == "burn":
        stock.burn_ready("copied")


@mock_clock
async def test_where_pairs_are_and_what_became_of_them() -> None:
    whole = Whole({SPEC: PoolPlan(64, 7)})
    whole.shards.hold(20)
    held = whole.scrape()
    assert (held.value("pool_pairs", spec=SPEC, place="held")) == 20
    assert held.value("pairs_generated_total", spec=SPEC) == 20
    whole.shards.deliver()
    drawn = whole.scrape()
    ready = drawn.value("pool_pairs", spec=SPEC, place="ready")
    assert ready > 0
    assert drawn.value("pool_pairs", spec=SPEC, place="held") == 20 - ready
    assert whole.stock.take_nowait(SPEC, WHO)
    assert whole.scrape().value("pairs_in_hand", spec=SPEC) == 1
    whole.stock.issue(SPEC)
    assert whole.scrape().value("pairs_in_hand", spec=SPEC) == 0
    assert whole.scrape().value("pairs_issued_total", spec=SPEC) == 1
    whole.stock.restore(1, SPEC, [3.0])
    assert whole.scrape().value("pairs_restored_total", spec=SPEC) == 1
    whole.stock.lose_shard(1)
    assert whole.scrape().value("pairs_discarded_total", spec=SPEC, reason="worker_lost") == 1
    assert whole.scrape().value("pool_target_pairs", spec=SPEC) == 64
    assert whole.scrape().value("pool_low_water_pairs", spec=SPEC) == 7


@mock_clock
async def test_every_reason_is_there_before_it_comes_up() -> None:
    """Or the first of its kind would be no increase."""
    scrape = Whole().scrape()
    for reason in REASONS:
        assert scrape.value("pairs_discarded_total", spec=SPEC, reason=reason) == 0


@mock_clock
async def test_the_age_of_the_oldest_pair_and_none_where_there_is_none() -> None:
    whole = Whole()
    with pytest.raises(KeyError):
        whole.scrape().value("oldest_pair_age_seconds", spec=SPEC)
    whole.shards.hold(1)
    await trio.sleep(7)
    assert whole.scrape().value("oldest_pair_age_seconds", spec=SPEC) == 7
    whole.stock.restore(0, SPEC, [30.0])
    assert whole.scrape().value("oldest_pair_age_seconds", spec=SPEC) == 30


@mock_clock
async def test_a_request_that_finds_no_pair_ready_is_one_of_three() -> None:
    whole = Whole({SPEC: PoolPlan(16, 2)})
    stock, shards = whole.stock, whole.shards

    def found() -> tuple[float, ...]:
        scrape = whole.scrape()
        names = ("pool_dry_total", "pool_dry_while_held_total", "pool_kept_back_total")
        return tuple(scrape.value(name, spec=SPEC) for name in names)

    with pytest.raises(ThrottlingException):
        stock.join_queue(SPEC, 0, WHO, lambda: None)
    assert found() == (1, 0, 0)
    shards.hold(1)
    waiter = stock.join_queue(SPEC, 0, WHO, lambda: None)
    assert found() == (1, 1, 0)
    with pytest.raises(ThrottlingException):
        stock.join_queue(SPEC, 0, WHO, lambda: None)  # the one that is held is promised
    assert found() == (2, 1, 0)
    assert whole.scrape().value("pool_waiting_requests", spec=SPEC) == 1
    await trio.sleep(0.3)
    shards.deliver()
    await stock.wait(waiter)
    stock.issue(SPEC)
    scrape = whole.scrape()
    assert scrape.value("pool_waiting_requests", spec=SPEC) == 0
    # It waited for a draw, and for nothing else.
    for name, labels in (("queue_wait_seconds", {"spec": SPEC}), ("draw_duration_seconds", {})):
        assert scrape.value(f"{name}_count", **labels) == 1
        assert scrape.value(f"{name}_sum", **labels) == pytest.approx(0.3)
        assert scrape.value(f"{name}_bucket", **labels, le="0.25") == 0
        assert scrape.value(f"{name}_bucket", **labels, le="0.5") == 1


@mock_clock
async def test_one_who_waits_in_vain_has_waited_all_the_same() -> None:
    whole = Whole({SPEC: PoolPlan(16, 2)})
    waiter = whole.stock.join_queue(SPEC, 2.0, WHO, lambda: None)
    with pytest.raises(ThrottlingException):
        await whole.stock.wait(waiter)
    with trio.move_on_after(1.0):
        await whole.stock.wait(whole.stock.join_queue(SPEC, 2.0, WHO, lambda: None))
    assert whole.scrape().value("queue_wait_seconds_count", spec=SPEC) == 2
    assert whole.scrape().value("queue_wait_seconds_sum", spec=SPEC) == pytest.approx(3.0)


@mock_clock
async def test_a_draw_that_never_comes_is_no_draw() -> None:
    whole = Whole()
    whole.shards.hold(8)
    whole.stock.lose_shard(0)
    whole.shards.draws.clear()
    await trio.sleep(50)
    whole.shards.fill(8)
    assert whole.scrape().value("draw_duration_seconds_count") == 1
    assert whole.scrape().value("draw_duration_seconds_sum") == 0


@mock_clock
async def test_each_state_is_shown() -> None:
    whole = Whole()
    plain = whole.scrape()
    assert [plain.value(name) for name in ("ready", "issuing", "alarm", "quiesced", "draining")] == [
        0, 1, 0, 0, 0,
    ]  # fmt: skip
    whole.is_ready = True
    assert whole.scrape().value("ready") == 1
    for name in ("alarm", "quiesced", "draining"):
        setattr(whole.gate, name, True)
        assert whole.scrape().value(name) == 1
        assert whole.scrape().value("issuing") == (name == "draining")
        setattr(whole.gate, name, False)
    whole.gate.ledger_down = True
    assert whole.scrape().value("issuing") == 0


@mock_clock
async def test_the_guard_against_copies_and_what_it_has_seen() -> None:
    whole = Whole()
    scrape = whole.scrape()
    modes = {mode: scrape.value("clone_guard", mode=mode) for mode in ("vmclock", "kmsg", "stand-in", "none")}
    assert modes == {"vmclock": 0, "kmsg": 0, "stand-in": 1, "none": 0}
    whole.shards.fill(4)
    whole.shards.source.generation += 1
    assert not whole.stock.fence.stands()
    after = whole.scrape()
    assert after.value("clone_guard_changes_total") == 1
    assert after.total("pairs_discarded_total", reason="copied") == 4


@mock_clock
async def test_workers_by_role_and_state() -> None:
    whole = Whole()
    shard, maker, other = whole.workers
    for worker in whole.workers:
        worker.start()
    shard.state = maker.state = "up"
    other.state = "failed"
    other.deaths = 2
    other.start()
    scrape = whole.scrape()
    assert scrape.value("workers", role="shard", state="up") == 1
    assert scrape.value("workers", role="maker", state="up") == 1
    assert scrape.value("workers", role="maker", state="starting") == 1
    assert scrape.value("workers", role="maker", state="failed") == 0
    assert scrape.total("workers") == 3
    assert scrape.value("worker_restarts_total", role="maker") == 1
    assert scrape.value("worker_restarts_total", role="shard") == 0
    assert scrape.value("worker_deaths_total", role="maker") == 2


@mock_clock
async def test_the_ledger_the_keyring_the_clients_and_the_reserve() -> None:
    whole = Whole()
    whole.ledger = {"tags": 7, "bytes": 4096, "waiting": 3, "available": False, "rolled_back": "two lives"}
    whole.commits.observe(0.004)
    whole.keyring = {"unexported_changes": 4, "fault": "gone", "default_key_state": "Disabled"}
    whole.connections, whole.clients = 5, {"cut": 2, "notifications": 9}
    whole.tally.broken = 6
    whole.manners["holding_back"] = True
    whole.reserve.dropped_segments["stale"] += 2
    whole.reserve.dropped_pairs["too_old"] += 3
    scrape = whole.scrape()
    expected = {
        "ledger_fingerprints": 7, "ledger_bytes": 4096, "ledger_waiting_pairs": 3, "ledger_available": 0,
        "ledger_rolled_back": 1, "ledger_failures_total": 3, "ledger_commit_duration_seconds_count": 1,
        "keyring_unexported_changes": 4, "keyring_fault": 1, "keyring_default_key_enabled": 0,
        "connections": 5, "connections_cut_total": 2, "connections_broken_total": 6, "notifications_total": 9,
        "refill_held_back": 1, "reserve_on": 0, "restart_burnt_pairs": 0,
    }  # fmt: skip
    assert {name: scrape.value(name) for name in expected} == expected
    assert scrape.value("reserve_dropped_segments_total", reason="stale") == 2
    assert scrape.value("reserve_dropped_pairs_total", reason="too_old") == 3
    healthy = Whole().scrape()
    assert healthy.value("ledger_available") == healthy.value("keyring_default_key_enabled") == 1
    assert healthy.value("ledger_rolled_back") == healthy.value("keyring_fault") == 0


@mock_clock
async def test_reloads_are_told_of() -> None:
    whole = Whole()
    assert whole.scrape().value("config_last_reload_successful") == 1
    whole.outcomes = {"applied": 2, "refused": 3}
    scrape = whole.scrape()
    assert scrape.value("config_last_reload_successful") == 0
    assert scrape.value("config_last_reload_success_timestamp_seconds") == 5.0
    assert scrape.value("config_reloads_total", outcome="applied") == 2
    assert scrape.value("config_reloads_total", outcome="refused") == 3


def test_a_family_is_there_before_it_has_a_child() -> None:
    [gauge] = families.gauge("a", "Told.", ("b",), [])
    [histogram] = families.histogram("c", "Told.", ("d",), [])
    assert (gauge.samples, histogram.samples) == ([], [])


@pytest.mark.parametrize(("samples", "sizes"), [(19, [19]), (20, [20]), (21, [20, 1]), (40, [20, 20])])
def test_a_family_is_cut_where_a_piece_is_full(samples: int, sizes: list[int]) -> None:
    for make in (families.gauge, families.counter):
        pieces = [*make("a_total", "Told.", ("b",), (((str(n),), n) for n in range(samples)))]
        assert [len(piece.samples) for piece in pieces] == sizes
        values = [sample.value for piece in pieces for sample in piece.samples]
        assert values == [*range(samples)]


def test_a_histogram_shows_its_bounds_as_prometheus_reads_them() -> None:
    child = Histogram(edges(25e-6, 10.0))
    child.observe(0.000025)
    child.observe(11.0)
    [piece] = families.histogram("x_seconds", "Told.", (), [((), child)])
    buckets = {
        sample.labels["le"]: sample.value for sample in piece.samples if sample.name.endswith("_bucket")
    }
    assert [float(bound) for bound in buckets] == [*edges(25e-6, 10.0), math.inf]
    assert (buckets["2.5e-05"], buckets["10.0"], buckets["+Inf"]) == (1, 1, 2)
    others = {sample.name: sample.value for sample in piece.samples if "le" not in sample.labels}
    assert others == {"kpcache_x_seconds_count": 2, "kpcache_x_seconds_sum": 11.000025}
