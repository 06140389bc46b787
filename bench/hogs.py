"""Draws and hits on a machine that others keep busy: twice as many normal CPU hogs as CPUs, and RSA_4096
in the making on every one.

A draw is a batch that the bench takes from a shard in the daemon's place. The hits are a client's, through
a daemon of its own. Each hog is in a session of its own, which is the harshest way where the kernel shares
the CPUs out by session (autogroup, sched(7)).
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack

from bench.daemon import BenchError, Daemon
from bench.nest import Nest, cpu_s, nest
from bench.report import Result, Row
from bench.run import CPUS, Run, time_paced_calls
from bench.shard import Shard
from bench.stats import Study, compare, judge, quantiles

_COSTLY, _CHEAP = "RSA_4096", "ECC_NIST_EDWARDS25519"
_DRAW_PAIRS = 32  # as the daemon draws for a large pool: half of its ready set
_DRAWS_PER_S = 100
_HITS_PER_S = 100
_DRAW_LIMIT_S = 0.020
_SETTLE_S = 0.3
_QUIET, _HOGS = "without hogs", "hogs"

Samples = dict[str, list[list[float]]]


class _Hogs:
    """Twice as many hogs as CPUs, paused until ``on``."""

    def __init__(self, home: Nest) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        for _ in range(2 * CPUS):
            self._processes.append(home.start_module("bench.hog"))
        time.sleep(_SETTLE_S)
        self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        for process in self._processes:
            os.kill(process.pid, number)

    def measure(self, measure: Callable[[], list[float]]) -> list[float]:
        """Measure while all of them run."""
        before = [cpu_s(process.pid) for process in self._processes]
        self._signal(signal.SIGCONT)
        try:
            time.sleep(_SETTLE_S)
            samples = measure()
        finally:
            self._signal(signal.SIGSTOP)
        if any(cpu_s(process.pid) <= used for process, used in zip(self._processes, before, strict=True)):
            raise BenchError("a hog did not run")
        return samples


def measure(run: Run) -> Result:
    """The part."""
    with nest() as home:
        hogs = _Hogs(home)
        draws = _draws(run, home, hogs)
        hits = _hits(run, home, hogs)
    result = Result(
        notes=[
            f"{2 * CPUS} hogs on {CPUS} CPUs, {_COSTLY} in the making by every maker; a draw is of "
            f"{_DRAW_PAIRS} held pairs of {_CHEAP}; {_count(draws)} draws and {_count(hits)} hits in each arm"
        ]
    )
    _report(run, result, f"draw of {_DRAW_PAIRS} pairs", draws, _DRAW_LIMIT_S)
    _report(run, result, f"hit {_CHEAP}", hits, None)
    return result


def _count(samples: Samples) -> int:
    return sum(map(len, samples[_HOGS]))


def _draws(run: Run, home: Nest, hogs: _Hogs) -> Samples:
    """Draws from shards as a daemon has them: up to two, and a maker for each CPU."""
    rounds, count = run.size(10, 3), run.size(200, 100)
    with ExitStack() as stack:
        shards = [Shard(home, CPUS // 2 + CPUS % 2), Shard(home, CPUS // 2)] if CPUS > 1 else [Shard(home, 1)]
        for shard in shards:
            stack.callback(shard.close)
            with run.display.step("hogs: filling a shard") as step:
                shard.stock(_CHEAP, 2 * rounds * count * _DRAW_PAIRS // len(shards) + 2 * _DRAW_PAIRS)
                step.advance()
        for shard in shards:
            shard.make_for_ever(_COSTLY)

        def some() -> list[float]:
            samples = []
            for number in range(count):
                time.sleep(1 / _DRAWS_PER_S)
                samples.append(shards[number % len(shards)].draw(_CHEAP, _DRAW_PAIRS))
            return sorted(samples)

        return _rounds(run, hogs, "draws", rounds, some)


def _hits(run: Run, home: Nest, hogs: _Hogs) -> Samples:
    """Hits of a client, from a pool that was filled first; the costly one will not be full for an hour."""
    rounds, for_s = run.size(8, 3), run.size(2, 1)
    stock = 4 * rounds * for_s * _HITS_PER_S
    daemon = Daemon(home, "daemon", {_COSTLY: (5000 * CPUS, 0), _CHEAP: (stock, stock)})

    def some() -> list[float]:
        return time_paced_calls(lambda: daemon.generate(_CHEAP), _HITS_PER_S, for_s, run.rng)

    daemon.wait_full(run.display, "hogs: filling the daemon's pool", only=_CHEAP)
    samples = _rounds(run, hogs, "hits", rounds, some)
    daemon.require_no_dry()
    daemon.stop()
    return samples


def _rounds(run: Run, hogs: _Hogs, what: str, rounds: int, some: Callable[[], list[float]]) -> Samples:
    arms: dict[str, Callable[[], list[float]]] = {_QUIET: some, _HOGS: lambda: hogs.measure(some)}
    samples: Samples = {arm: [] for arm in arms}
    with run.display.step(f"hogs: {what}", 2 * rounds) as step:
        for _ in range(rounds):
            for arm in run.shuffled(list(arms)):
                samples[arm].append(arms[arm]())
                step.advance()
    return samples


def _report(run: Run, result: Result, what: str, samples: Samples, limit_s: float | None) -> None:
    study = Study(samples, quantiles, run.rng, run.repeats)
    for label in study.labels(_HOGS):
        figure, ratio = study.estimate(_HOGS, label), study.ratio(_HOGS, _QUIET, label)
        limited = limit_s is not None and label == "p99"
        result.rows.append(
            Row(
                "hogs",
                f"{what} {label}, hogs",
                figure.value,
                "s",
                _QUIET,
                study.estimate(_QUIET, label).value,
                ratio,
                limit=f"under {1e3 * (limit_s or 0):.0f} ms" if limited else "",
                verdict=judge(figure, limit_s or 0) if limited else compare(ratio, None),
            )
        )
        result.detail[f"{what} {label}"] = figure
