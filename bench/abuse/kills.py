"""SIGKILL of random workers, and of the daemon, under load; and how long it takes until there are new pairs.

Two figures for a worker's death. Under the load of the storm, with others that go on: until the process that
replaces it, or the first of the makers of a shard that does, has handed over a pair, as the status tells. And
of the only maker, or the only shard, there is: until a client that asks for a pair of a spec without a pool
has it, which nobody else can make for it. For the daemon's: until such a client has one from the next life,
which is started at once.
"""

import os
import signal
import time
from typing import Any, Final

from bench.abuse.client import Asker
from bench.abuse.outcome import Outcome
from bench.abuse.planting import Plan
from bench.abuse.records import ISSUED, OPENED
from bench.abuse.run import Run, quantile
from bench.abuse.target import PATIENCE_S, Target
from bench.abuse.trial import COSTLY, ON_DEMAND, POOLS, QUICK, kill_slack, trial
from bench.daemon import BenchError

WORKER_LIMIT_S: Final = 0.5
DAEMON_LIMIT_S: Final = 2.0
# A worker that dies young starts later and later: right for one with a fault, but here the harness is the
# fault, and each death is to be as the first of a long life.
_PLAN: Final = Plan(healthy_life_s=0.0)
_LOAD: Final = ((QUICK, 100.0), (QUICK, 100.0), (QUICK, 100.0), (COSTLY, 5.0))
_LONE: Final = {"workers": {"shards": 1, "makers": 1}}
_LONE_POOLS: Final = {QUICK: 16}
# From one kill to the next, at most: some come into the middle of a start.
_MAX_PAUSE_S: Final = 0.2
_MAX_LIFE_S: Final = 1.0
_ASK_S: Final = 5.0


def workers(run: Run) -> Outcome:
    """Random workers, under load."""
    outcome = Outcome("workers")
    count = run.sizes.worker_kills
    took: dict[str, list[float]] = {"maker": [], "shard": []}
    with trial(_PLAN) as abused, run.display.step("SIGKILLs of workers", count) as step:
        abused.load(*_LOAD)
        for _ in range(count):
            time.sleep(run.rng.uniform(0, _MAX_PAUSE_S))
            role, took_s = _kill_one(run, abused.target)
            took[role].append(took_s)
            step.advance()
        restarts = sum(worker["restarts"] for worker in abused.target.required_status()["workers"])
        proof = abused.finish()
    outcome.figure("SIGKILLs of workers", count)
    outcome.figure("restarts of workers, makers of killed shards too", restarts)
    outcome.figure("statuses whose books were checked", abused.target.statuses)
    outcome.figure("unexplained pairs", max(map(abs, proof.unexplained)))
    outcome.require(restarts >= count, "restarts", f"{count} kills led to {restarts} restarts")
    for role, times in took.items():
        _quantiles(outcome, f"{role} killed: first pair of the replacement", times, WORKER_LIMIT_S)
    outcome.add(proof)
    return outcome


def _kill_one(run: Run, target: Target) -> tuple[str, float]:
    """Kill a random worker that is up: its role, and the seconds until its replacement has handed over a
    pair."""
    status = _with_workers(target)
    victim = run.rng.choice(target.workers(status))
    before = {
        (worker["shard"], worker["maker"]): worker["restarts"]
        for worker in status["workers"]
        if worker["role"] == "maker"
        and worker["shard"] == victim["shard"]
        and victim["maker"] in (None, worker["maker"])  # a killed shard takes its makers along
    }
    killed_s = time.monotonic()
    os.kill(victim["pid"], signal.SIGKILL)
    for status in target.statuses_until(killed_s + PATIENCE_S):
        for worker in status["workers"]:
            restarts = before.get((worker["shard"], worker["maker"]))
            if restarts is not None and worker["restarts"] > restarts and worker["pairs"]:
                return victim["role"], time.monotonic() - killed_s
    raise BenchError(f"nothing replaces a killed {victim['role']}: {target.log()[-2000:]}")


def _with_workers(target: Target) -> dict[str, Any]:
    """A status in which a worker is up."""
    for status in target.statuses_until(time.monotonic() + PATIENCE_S):
        if target.workers(status):
            return status
    raise BenchError(f"no worker comes up: {target.log()[-2000:]}")


def lone(run: Run) -> Outcome:
    """The only maker, or the only shard."""
    outcome = Outcome("lone")
    took: dict[str, list[float]] = {"maker": [], "shard": []}
    count = run.sizes.lone_kills
    with (
        trial(_PLAN, _LONE_POOLS, _LONE) as abused,
        run.display.step("SIGKILLs of the only worker", count) as step,
    ):
        with abused.asker("waiting") as asker:
            asker.ask(QUICK)
            for _ in range(count):
                abused.target.wait_quiet()  # the replacement is up, and at work no more
                victim = run.rng.choice(abused.target.workers(abused.target.required_status()))
                killed_s = time.monotonic()
                os.kill(victim["pid"], signal.SIGKILL)
                took[victim["role"]].append(_first_pair(asker, killed_s, outcome))
                step.advance()
        proof = abused.finish()
    outcome.figure("SIGKILLs of the only worker", count)
    for role, times in took.items():
        _quantiles(outcome, f"{role} killed: a client's first pair", times, WORKER_LIMIT_S)
    outcome.add(proof)
    return outcome


def _first_pair(asker: Asker, since_s: float, outcome: Outcome) -> float:
    """Seconds until a client has a pair that nobody had made before."""
    while (answered := asker.ask(ON_DEMAND, _ASK_S)) not in (ISSUED, OPENED):
        if time.monotonic() - since_s > PATIENCE_S:
            outcome.require(False, "no pair", f"a client waits in vain: {answered}")
            break
    return time.monotonic() - since_s


def daemon(run: Run) -> Outcome:
    outcome = Outcome("daemon")
    took: list[float] = []
    count = run.sizes.daemon_kills
    with trial(_PLAN) as abused, run.display.step("SIGKILLs of the daemon", count) as step:
        slack = kill_slack(POOLS)
        abused.load(*_LOAD)
        with abused.asker("waiting") as asker:
            asker.ask(QUICK)  # a client that has met the daemon waits for the next one
            for _ in range(count):
                time.sleep(run.rng.uniform(0, _MAX_LIFE_S))
                killed_s = abused.target.kill(slack)
                took.append(_first_pair(asker, killed_s, outcome))
                step.advance()
        proof = abused.finish()
    outcome.figure("SIGKILLs of the daemon", count)
    outcome.figure("statuses whose books were checked", abused.target.statuses)
    outcome.figure("unexplained pairs of a kill, most", max(proof.unexplained), "", slack + 1)
    outcome.detail["unexplained by life"] = proof.unexplained
    outcome.require(len(abused.target.lives) == count + 1, "lives", f"{len(abused.target.lives)} lives")
    _quantiles(outcome, "daemon killed: a client's first new pair", took, DAEMON_LIMIT_S)
    outcome.add(proof)
    return outcome


def _quantiles(outcome: Outcome, name: str, took: list[float], limit_s: float) -> None:
    if took:
        outcome.detail[f"{name}, s"] = {
            str(share): round(quantile(took, share), 4) for share in (0.1, 0.5, 0.9, 0.99, 1.0)
        }
        outcome.figure(f"{name}, p50 of {len(took)}", quantile(took, 0.5), "s", limit_s)
        outcome.figure(f"{name}, p99", quantile(took, 0.99), "s", limit_s)
