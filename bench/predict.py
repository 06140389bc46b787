"""What the simulator predicts for a load, beside what the real daemon does under the very same requests.

First it is measured how long a maker takes for a pair here, by the clock: that is what the simulator goes by.
Then bursts larger than the pool over a steady rate are played to a real daemon, and to the simulated one with
many draws of key times.
"""

import os
import random
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.daemon import Daemon
from bench.fairness import told_all
from bench.nest import Nest, nest
from bench.report import Result, Row
from bench.run import CPUS, Run
from bench.stats import Interval, Study
from kpcache.simulator.engine import run as simulate
from kpcache.simulator.loads import Load, burst, machine, poisson
from kpcache.simulator.policy import KpcacheRules, Settings
from kpcache.simulator.scores import quantile, score
from kpcache.simulator.world import Arrival, PoolSize

_SPEC, _UID = "RSA_2048", os.geteuid()
_SIZE = PoolSize(80, 20)
_STEADY = 0.5  # of what the makers can do
_BURST, _EVERY_S = 200, 15
_WITHIN_S = 2.0
_DRAWS = 20
_FILLS = 2  # 160 keys: their mean is within 5 % of what all keys take
_LOOK_S = 0.02
_FACTOR = 1.5
_REAL, _SIMULATED = "real", "simulated"


@dataclass(frozen=True)
class _Outcome:
    dry_share: float
    wait_p99_s: float


def measure(run: Run) -> Result:
    """The part."""
    rounds, for_s = run.size(6, 2), run.size(60, 30)
    arms: dict[str, list[_Outcome]] = {_REAL: [], _SIMULATED: []}
    with nest() as home:
        daemon = Daemon(home, "daemon", {_SPEC: _SIZE})
        daemon.wait_full(run.display, "predict: filling the pool")
        taken_s: list[float] = []
        with run.display.step("predict: rounds", rounds) as step:
            for _ in range(rounds):
                pair_s = _pair_s(daemon)
                taken_s.append(pair_s)
                arrivals = _arrivals(run.rng, CPUS / pair_s, for_s)
                daemon.wait_full()
                arms[_REAL].append(_played(home, daemon, arrivals))
                arms[_SIMULATED].append(_simulated(run.rng, arrivals, pair_s, for_s))
                step.advance()
        daemon.client.close()
    study = Study(arms, _figures, run.rng, run.repeats)
    rows = [
        _row(study, "dry", "share of dry requests", "%", 100),
        _row(study, "p99", "p99 of the wait", "s", 1),
    ]
    told = ", ".join(f"{1000 * each:.0f}" for each in taken_s)
    return Result(rows, [f"a maker took {told} ms for a pair of {_SPEC} before these rounds"])


def _pair_s(daemon: Daemon) -> float:
    """Maker seconds for a pair, by the clock, from refilling the pool some times."""
    daemon.wait_full()
    before, took_s = daemon.pool(_SPEC)["generated"], 0.0
    for _ in range(_FILLS):
        started = time.monotonic()
        daemon.drain(_SPEC, _SIZE.target)
        while daemon.filled() < 1:
            time.sleep(_LOOK_S)
        took_s += time.monotonic() - started
    return took_s * CPUS / (daemon.pool(_SPEC)["generated"] - before)


def _arrivals(rng: random.Random, makers_rate: float, for_s: float) -> list[Arrival]:
    steady = poisson(rng, _SPEC, _STEADY * makers_rate, for_s, [_UID])
    bursts = [
        arrival
        for at_s in range(2, int(for_s), _EVERY_S)
        for arrival in burst(rng, _SPEC, _BURST, at_s, _WITHIN_S, [_UID])
    ]
    return sorted([*steady, *bursts])


def _played(home: Nest, daemon: Daemon, arrivals: Sequence[Arrival]) -> _Outcome:
    file = home.folder / "arrivals"
    file.write_text("\n".join(str(each.at_s) for each in arrivals))
    before = daemon.pool(_SPEC)["dry"]
    words = (daemon.socket, str(_UID), _SPEC, str(arrivals[0].wait_s), str(file))
    asker = home.start_module("bench.asker", *words, stdin=subprocess.PIPE)
    (told,) = told_all(home, [asker])
    dry = daemon.pool(_SPEC)["dry"] - before
    return _Outcome(dry / told["asked"], quantile(told["latencies"], 0.99))


def _simulated(rng: random.Random, arrivals: Sequence[Arrival], pair_s: float, for_s: float) -> _Outcome:
    """The mean of several draws."""
    cost_s = {_SPEC: pair_s}
    load = Load("played", "", for_s, machine(CPUS, 2, cost_s), {_SPEC: _SIZE}, lambda _: iter(arrivals))
    scores = [
        score(
            simulate(load, lambda world: KpcacheRules(world, load.pools, Settings()), iter(arrivals), rng),
            cost_s,
        )
        for _ in range(_DRAWS)
    ]
    return _Outcome(fmean(each.dry_share for each in scores), fmean(each.wait_p99_s for each in scores))


def _figures(rounds: Sequence[_Outcome]) -> dict[str, float]:
    return {"dry": fmean(each.dry_share for each in rounds), "p99": fmean(each.wait_p99_s for each in rounds)}


def _row(study: Study[_Outcome], label: str, words: str, unit: str, factor: float) -> Row:
    ratio = study.ratio(_REAL, _SIMULATED, label)
    return Row(
        "predict",
        words,
        factor * study.estimate(_REAL, label).value,
        unit,
        "simulated",
        factor * study.estimate(_SIMULATED, label).value,
        ratio,
        None,
        f"within a factor of {_FACTOR}",
        _verdict(ratio),
    )


def _verdict(ratio: Interval) -> str:
    if ratio.low >= 1 / _FACTOR and ratio.high <= _FACTOR:
        return "met"
    return "missed" if ratio.low > _FACTOR or ratio.high < 1 / _FACTOR else "undecided"
