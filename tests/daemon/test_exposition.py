"""The metrics as text: what the library would print at once, in slices, for all who ask together."""

import time
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from kpcache.daemon import exposition
from kpcache.daemon.exposition import SAMPLES_PER_SLICE, Exposition
from tests.fakes import mock_clock

CHILDREN, BUCKETS = 200, 18
MAX_SLICE_S = 200e-6


def histogram_child(
    number: int, buckets: int = BUCKETS, name: str = "kpcache_request_duration_seconds"
) -> Metric:
    metric = Metric(name, "How long a request takes.", "histogram")
    labels = {
        "operation": "GenerateDataKeyPairWithoutPlaintext",
        "spec": f"SPEC_{number}",
        "provider": "keyring",
        "outcome": "hit",
    }
    for bucket in range(buckets):
        le = "+Inf" if bucket == buckets - 1 else str(25e-6 * 2**bucket)
        metric.add_sample(f"{name}_bucket", {**labels, "le": le}, float(number + bucket))
    metric.add_sample(f"{name}_count", labels, float(number + buckets - 1))
    metric.add_sample(f"{name}_sum", labels, number / 3)
    return metric


def children(number: int = CHILDREN) -> Iterator[Metric]:
    return (histogram_child(each) for each in range(number))


def as_one(metrics: list[Metric]) -> list[Metric]:
    """The families, each whole."""
    families: dict[str, Metric] = {}
    for metric in metrics:
        family = families.setdefault(
            metric.name, Metric(metric.name, metric.documentation, metric.type, metric.unit)
        )
        family.samples.extend(metric.samples)
    return list(families.values())


class Whole(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


async def text_of(families: Callable[[], Iterator[Metric]]) -> bytes:
    return b"".join(await Exposition(families).text())


# --- what it says


@mock_clock
async def test_it_is_what_the_library_prints_at_once() -> None:
    metrics = [
        GaugeMetricFamily("kpcache_ready", 'Help with "quotes", a \\ and\na line.', 1),
        *children(5),
        GaugeMetricFamily("kpcache_pool_pairs", "Pairs.", labels=["spec"]),  # a family without samples yet
        CounterMetricFamily("kpcache_pairs_issued", "Pairs.", 7),
        *(histogram_child(each, 3, "kpcache_draw_duration_seconds") for each in range(2)),
    ]
    text = await text_of(lambda: iter(metrics))
    assert text == generate_latest(Whole(as_one(metrics)))
    assert text.count(b"# TYPE kpcache_request_duration_seconds histogram\n") == 1
    assert len(text.splitlines()) == len(set(text.splitlines()))


names = st.sampled_from(["kpcache_a", "kpcache_b", "kpcache_c"])
values = st.floats(allow_nan=False)
label_texts = st.text(max_size=12)
sizes = st.lists(
    st.lists(st.tuples(label_texts, values), max_size=3 * SAMPLES_PER_SLICE), min_size=1, max_size=4
)


@given(st.dictionaries(names, sizes, max_size=3))
@settings(max_examples=50, deadline=None)
def test_whatever_families_come_in_whatever_parts_their_text_is_the_same(
    families: dict[str, list[list[tuple[str, float]]]],
) -> None:
    metrics = []
    for name, parts in families.items():
        for part in parts:
            metric = Metric(name, "Help.", "gauge")
            for label, value in part:
                metric.add_sample(name, {"label": label}, value)
            metrics.append(metric)
    assert trio.run(text_of, lambda: iter(metrics)) == generate_latest(Whole(as_one(metrics)))


@mock_clock
async def test_times_of_creation_do_not_tear_a_family_apart() -> None:
    first, second = histogram_child(1), histogram_child(2)
    for metric in (first, second):
        metric.add_sample(f"{metric.name}_created", {"spec": "x"}, 1.0)
    text = await text_of(lambda: iter([first, second]))
    assert b"_created" not in text
    assert [each.name for each in text_string_to_metric_families(text.decode())] == [first.name]


# --- slices


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop: in each, all who can go on do, and clients are looked at anew."""

    def __init__(self) -> None:
        self.number = 0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - the instrument's signature
        self.number += 1


@mock_clock
async def test_no_slice_has_more_than_its_share_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    work: list[tuple[int, str, int]] = []  # turn, what, samples

    def families() -> Iterator[Metric]:
        for child in children():
            work.append((turns.number, "made", len(child.samples)))
            yield child

    def render(collector: Collector) -> bytes:
        work.append((turns.number, "rendered", sum(len(metric.samples) for metric in collector.collect())))
        return generate_latest(collector)

    monkeypatch.setattr(exposition, "generate_latest", render)
    trio.lowlevel.add_instrument(turns)
    await text_of(families)
    assert len({turn for turn, _, _ in work}) == len(work), "two pieces of work without a turn between them"
    assert max(samples for _, what, samples in work if what == "rendered") == SAMPLES_PER_SLICE
    assert sum(samples for _, what, samples in work if what == "rendered") == CHILDREN * (BUCKETS + 2)


class Stopwatch(trio.abc.Instrument):
    """CPU time of each step of one task: what others do to this machine meanwhile does not count."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self._task = task
        self._begun = time.thread_time()
        self.steps: list[float] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - as above
        self._begun = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self.steps.append(time.thread_time() - self._begun)


def test_no_slice_takes_over_200_us_with_200_histograms() -> None:
    async def steps() -> list[float]:
        stopwatch = Stopwatch(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(stopwatch)
        await Exposition(children).text()
        trio.lowlevel.remove_instrument(stopwatch)
        return stopwatch.steps

    # The same slices several times: what a slice itself takes is the least of its times, and all that is
    # above that is a cache, a frequency or an interrupt.
    runs = [trio.run(steps) for _ in range(7)]
    assert len({len(run) for run in runs}) == 1
    slices = sorted(min(times) for times in zip(*runs, strict=True))
    assert len(slices) > CHILDREN * (BUCKETS + 2) / SAMPLES_PER_SLICE
    assert slices[-1] < MAX_SLICE_S, (
        f"{slices[-1] * 1e6:.0f} µs, median {slices[len(slices) // 2] * 1e6:.0f} µs"
    )


def test_the_blocks_to_be_sent_are_of_one_slice_each() -> None:
    async def blocks() -> list[int]:
        return [len(block) for block in await Exposition(children).text()]

    sizes = trio.run(blocks)
    assert sum(sizes) > 500_000
    assert max(sizes) < 20_000
    assert min(sizes[:-1]) >= 16_384


# --- many who ask


class Counted:
    """Families that tell how often, and how many at once, they were asked for."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.renderings = 0
        self.at_once = 0
        self._under_way = 0
        self._takes_s = takes_s

    def families(self) -> Iterator[Metric]:
        self.renderings += 1
        self._under_way += 1
        self.at_once = max(self.at_once, self._under_way)
        number = float(self.renderings)
        try:
            yield GaugeMetricFamily("kpcache_rendering", "Which this is.", number)
            if self._takes_s:
                clock = trio.lowlevel.current_clock()
                assert isinstance(clock, trio.testing.MockClock)
                clock.jump(self._takes_s)
            yield from children(3)
        finally:
            self._under_way -= 1


def rendering_of(text: bytes) -> int:
    return int(float(text.split(b"\nkpcache_rendering ")[1].split(b"\n")[0]))


@mock_clock
async def test_who_asks_together_shares_one_rendering_and_who_asks_later_gets_a_newer_one() -> None:
    counted = Counted()
    it = Exposition(counted.families)
    got: list[int] = []

    async def ask() -> None:
        got.append(rendering_of(b"".join(await it.text())))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
        while not counted.renderings:
            await trio.lowlevel.checkpoint()
        for _ in range(10):  # one is under way by now: it may show what was before they asked
            nursery.start_soon(ask)
    assert (counted.at_once, counted.renderings) == (1, 2)
    assert got == [1] * 10 + [2] * 10
    await ask()
    assert got[-1] == 3


@mock_clock
async def test_who_leaves_in_the_middle_leaves_the_others_with_theirs() -> None:
    counted = Counted()
    it = Exposition(counted.families)
    got: list[int] = []

    async def ask() -> None:
        got.append(rendering_of(b"".join(await it.text())))

    async with trio.open_nursery() as others, trio.open_nursery() as first:
        first.start_soon(ask)
        while not counted.renderings:
            await trio.lowlevel.checkpoint()
        others.start_soon(ask)
        await trio.lowlevel.checkpoint()
        first.cancel_scope.cancel()
    assert got == [2]


@mock_clock
async def test_a_fault_in_one_rendering_is_raised_there_and_the_next_one_is_made() -> None:
    faults = [RuntimeError("injected")]

    def families() -> Iterator[Metric]:
        yield from children(1)
        if faults:
            raise faults.pop()

    it = Exposition(families)
    with pytest.raises(RuntimeError):
        await it.text()
    assert b"".join(await it.text()) == generate_latest(Whole(as_one(list(children(1)))))


@mock_clock
async def test_who_asks_without_end_gets_a_fifth_of_the_time() -> None:
    counted = Counted(takes_s=0.05)
    it = Exposition(counted.families)
    with trio.move_on_after(10):
        while True:
            await it.text()
    assert counted.renderings == pytest.approx(10 / 0.25, abs=1)
    await trio.sleep(60)
    asked = trio.current_time()
    await it.text()
    assert trio.current_time() - asked == pytest.approx(0.05)  # after a pause there is none to wait for
