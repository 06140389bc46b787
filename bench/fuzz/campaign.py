"""Many cases on all CPUs, and whether the memory of those who run them grows."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from types import FrameType

from bench.fuzz.tally import Finding, Tally
from bench.progress import Step

_CHUNK_CASES = 200
# A chunk takes a tenth of a second in process and some seconds over a socket; one that takes so long hangs.
_CHUNK_TIMEOUT_S = 120
# Of a run: while caches fill and pools reach their size, memory may grow.
_WARM_UP = 0.2
_CURVE_POINTS = 50

Work = Callable[[range], Tally]
"""Runs the cases of these numbers; it is sent to other processes."""


class HangError(Exception):
    """A chunk of cases took too long."""


class Memory:
    """Resident memory of one process as it works, in bytes."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []

    def note(self, done: float, rss: int) -> None:
        """``done``: how much work, of any unit, it had done by then."""
        self._samples.append((done, rss))

    @property
    def _steady(self) -> list[tuple[float, int]]:
        if not self._samples:
            return []
        first = self._samples[0][0]
        begin = first + _WARM_UP * (self._samples[-1][0] - first)
        return [sample for sample in self._samples if sample[0] >= begin]

    @property
    def curve(self) -> list[tuple[float, int]]:
        """Some of the samples, from the first to the last."""
        return self._samples[:: max(len(self._samples) // _CURVE_POINTS, 1)]

    @property
    def peak(self) -> int:
        return max((rss for _, rss in self._samples), default=0)

    @property
    def slope(self) -> float:
        """Bytes for each unit of work after the warm-up, by least squares."""
        steady = self._steady
        if len(steady) < 2:
            return 0.0
        mean_x = sum(x for x, _ in steady) / len(steady)
        mean_y = sum(y for _, y in steady) / len(steady)
        spread = sum((x - mean_x) ** 2 for x, _ in steady)
        return sum((x - mean_x) * (y - mean_y) for x, y in steady) / spread if spread else 0.0

    @property
    def growth(self) -> float:
        """Bytes by which that line rises from the warm-up to the end."""
        steady = self._steady
        return self.slope * (steady[-1][0] - steady[0][0]) if steady else 0.0


@dataclass
class Campaign:
    """What came of it. ``memory``: by process."""

    tally: Tally = field(default_factory=Tally)
    memory: dict[int, Memory] = field(default_factory=dict)
    wall_s: float = 0.0

    @property
    def growth(self) -> float:
        """Of the process that grew most."""
        return max((memory.growth for memory in self.memory.values()), default=0.0)


def run(work: Work, messages: int, jobs: int, step: Step) -> Campaign:
    """Run cases from number 0 on until so many messages were sent, in ``jobs`` processes."""
    campaign, started = Campaign(), time.perf_counter()
    done_by: dict[int, int] = {}
    following = 0
    # Spawned: what a fork would copy of a terminal's progress display is nobody's business.
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        under_way: dict[Future[tuple[Tally, int, int]], range] = {}
        while True:
            while len(under_way) < jobs + 1 and campaign.tally.messages < messages:
                numbers = range(following, following + _CHUNK_CASES)
                under_way[pool.submit(_do, work, numbers)] = numbers
                following = numbers.stop
            if not under_way:
                break
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                numbers = under_way.pop(future)
                try:
                    tally, pid, memory = future.result()
                except (BrokenProcessPool, HangError) as error:
                    cases = f"cases {numbers.start} to {numbers.stop - 1}"
                    campaign.tally.find(Finding(type(error).__name__, cases, numbers.start))
                    campaign.wall_s = time.perf_counter() - started
                    return campaign
                campaign.tally.add(tally)
                done_by[pid] = done_by.get(pid, 0) + tally.messages
                campaign.memory.setdefault(pid, Memory()).note(done_by[pid], memory)
                step.at(campaign.tally.messages)
    campaign.wall_s = time.perf_counter() - started
    return campaign


def _do(work: Work, numbers: range) -> tuple[Tally, int, int]:
    signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, _CHUNK_TIMEOUT_S)
    try:
        tally = work(numbers)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return tally, os.getpid(), rss(os.getpid())


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise HangError


def rss(pid: int) -> int:
    """Resident memory of a process in bytes. Raises ``OSError`` when there is none."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
