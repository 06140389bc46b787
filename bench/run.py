"""What a part of the bench is given: how much to do, randomness, a display."""

import gc
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.progress import Display

CPUS = len(os.sched_getaffinity(0))


@dataclass
class Run:
    """``quick``: a short form, good to see that all works. ``repeats``: draws of a bootstrap."""

    rng: random.Random
    display: Display
    quick: bool

    @property
    def repeats(self) -> int:
        return 200 if self.quick else 1000

    def size(self, full: int, quick: int) -> int:
        """A number of rounds, calls or keys."""
        return quick if self.quick else full

    def shuffled(self, arms: list[str]) -> list[str]:
        """The order of the arms in one round."""
        return self.rng.sample(arms, k=len(arms))


def warm_up_calls(calls: int) -> int:
    """How many untimed calls ``time_calls`` makes first."""
    return min(20, calls // 5)


def time_calls(call: Callable[[], object], calls: int) -> list[float]:
    """Durations of ``calls`` calls, one after the other, in seconds, sorted; some untimed ones first."""
    for _ in range(warm_up_calls(calls)):
        call()
    return _timed(call, calls, lambda: None)


def time_paced_calls(
    call: Callable[[], object], per_s: float, for_s: float, rng: random.Random
) -> list[float]:
    """As ``time_calls``, but at random times, ``per_s`` a second on average, for ``for_s`` seconds."""
    due = time.monotonic()

    def pause() -> None:
        nonlocal due
        due += rng.expovariate(per_s)
        time.sleep(max(due - time.monotonic(), 0.0))

    return _timed(call, round(per_s * for_s), pause)


def _timed(call: Callable[[], object], calls: int, before: Callable[[], None]) -> list[float]:
    clock = time.perf_counter_ns
    samples = []
    with _no_collector():
        for _ in range(calls):
            before()
            started = clock()
            call()
            samples.append(clock() - started)
    return sorted(sample / 1e9 for sample in samples)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep Python's cyclic collector, and so the bench's own objects, out of what is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
