"""Renders the metrics as text, in slices between which everything else in the loop gets its turn.

All at once, sixty histogram children keep the loop for some 27 ms, and every client with it. What a slice
costs is bounded by the samples in it; how often slices come, by a share of the time.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import trio
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

# Some 9 µs each, with five labels: a slice of 8 stays under 100 µs.
SAMPLES_PER_SLICE: Final = 8
# A slice of sending: one system call, which copies so much and lets others have their turn.
_BLOCK_BYTES: Final = 16384
# Renderings keep a pause of so many times their own length between them: whoever asks without end, and
# however many do, gets a fifth of the loop's turns at most.
_PAUSE: Final = 4

# Bytes to be sent one after the other.
Blocks = Sequence[bytes]


class Exposition:
    """The metrics as text.

    ``families`` gives them in small ``Metric`` objects: those of one family follow each other and have the
    same name, type and help.
    """

    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families
        self._rendering = trio.Lock()
        self._begun = 0  # renderings
        self._latest: Blocks = ()
        self._latest_number = 0
        self._not_before = 0.0

    async def text(self) -> Blocks:
        """The state of the metrics now or a little later, never of before the call.

        One is rendered at a time, or two would keep the loop twice as long at each of its turns; all who
        asked before it began share it.
        """
        begun_before = self._begun
        async with self._rendering:
            if self._latest_number <= begun_before:
                await trio.sleep_until(self._not_before)
                self._begun += 1
                started = trio.current_time()
                self._latest = await self._render()
                self._latest_number = self._begun
                ended = trio.current_time()
                self._not_before = ended + _PAUSE * (ended - started)
            return self._latest

    async def _render(self) -> Blocks:
        blocks: list[bytes] = []
        block: list[bytes] = []
        size = 0
        last_name = ""
        for metric in self._families():
            await trio.lowlevel.checkpoint()  # making it was a slice of its own
            for part in _parts(metric):
                text = generate_latest(part)
                if metric.name == last_name:
                    text = _without_header(text)
                last_name = metric.name
                block.append(text)
                size += len(text)
                if size >= _BLOCK_BYTES:
                    blocks.append(b"".join(block))
                    block, size = [], 0
                await trio.lowlevel.checkpoint()
        blocks.append(b"".join(block))
        return blocks


class _Part(Collector):
    """As much of one metric as fits a slice, in the form in which the library takes what it renders."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> tuple[Metric]:
        return (self._metric,)


def _parts(metric: Metric) -> Iterator[_Part]:
    """At least one, for the header: a family without samples is shown, too."""
    # Times of creation are for OpenMetrics. In this format the library makes a family of their own of them,
    # behind each part, where they would tear the metric's family apart.
    samples = [sample for sample in metric.samples if sample.name != f"{metric.name}_created"]
    for start in range(0, max(len(samples), 1), SAMPLES_PER_SLICE):
        part = Metric(metric.name, metric.documentation, metric.type, metric.unit)
        part.samples = samples[start : start + SAMPLES_PER_SLICE]
        yield _Part(part)


def _without_header(text: bytes) -> bytes:
    """Without the lines of HELP and TYPE, which a family has once."""
    return text.split(b"\n", 2)[2]
