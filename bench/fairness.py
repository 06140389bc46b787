"""Four users who keep to their share, alone and beside one who asks for a hundred times his.

A share is a fifth of what the makers make while the greedy one is at it, which is measured first. Each of
the four asks at random times for a little less than that; the fifth asks for a hundred times as much, half of
it willing to wait. Users are told apart by uid, so this part must be run as root.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from bench.daemon import BenchError, Daemon
from bench.nest import Nest, nest
from bench.report import Result, Row
from bench.run import CPUS, Run
from bench.stats import Study, compare, judge, quantiles

SPEC = "RSA_2048"
_POLITE = 4
_FIRST_UID = 64101
# Of the share: those who ask for all of it have queues without end, whatever the others do.
_OF_SHARE = 0.8
_GREED = 100
# The greedy one's rate where the share is not known yet, for each CPU.
_FIRST_RATE_PER_CPU = 300.0
_TARGET = 96
_ALONE, _AGAIN, _BESIDE = "alone", "alone again", "beside a greedy one"

Told = dict[str, Any]


def measure(run: Run) -> Result:
    """The part."""
    if os.geteuid() != 0:
        raise BenchError("fairness: only root can play several users; run it as root")
    rounds, for_s = run.size(8, 1), run.size(20, 6)
    arms: dict[str, list[list[Told]]] = {arm: [] for arm in (_ALONE, _AGAIN, _BESIDE)}
    greedy: list[Told] = []
    with nest() as home:
        home.folder.chmod(0o755)
        settings = {"daemon": {"socket_mode": "0666"}}
        daemon = Daemon(home, "daemon", {SPEC: (_TARGET, _TARGET // 4)}, settings)
        daemon.wait_full(run.display, "fairness: filling the pool")
        share = _share(run, home, daemon, for_s)
        with run.display.step("fairness: rounds", rounds * len(arms)) as step:
            for _ in range(rounds):
                for arm in run.shuffled(list(arms)):
                    daemon.wait_full()
                    rates = [share * _OF_SHARE] * _POLITE + [share * _GREED] * (arm == _BESIDE)
                    told = ask(run, home, daemon.socket, rates, for_s)
                    polite, others = told[:_POLITE], told[_POLITE:]
                    arms[arm].append(polite)
                    greedy += others
                    step.advance()
        daemon.client.close()
    return _report(run, arms, greedy, share)


def _share(run: Run, home: Nest, daemon: Daemon, for_s: float) -> float:
    """Pairs a second for each of five, by what is made while one takes whatever there is."""
    rates = [0.001] * _POLITE + [_FIRST_RATE_PER_CPU * CPUS]
    ask(run, home, daemon.socket, rates, 4.0)  # what was in the pool
    before, started = daemon.pool(SPEC)["generated"], time.monotonic()
    ask(run, home, daemon.socket, rates, for_s)
    return (daemon.pool(SPEC)["generated"] - before) / (time.monotonic() - started) / (_POLITE + 1)


def ask(run: Run, home: Nest, socket: str, rates: Sequence[float], for_s: float) -> list[Told]:
    """What users with these rates were told. The fifth has two connections: one does not wait."""
    askers = [_asker(run, home, socket, uid, rate, for_s, 5.0) for uid, rate in enumerate(rates[:_POLITE])]
    for rate in rates[_POLITE:]:
        askers += [_asker(run, home, socket, _POLITE, rate / 2, for_s, wait_s) for wait_s in (0.0, 5.0)]
    return told_all(home, askers)


def told_all(home: Nest, askers: "Sequence[subprocess.Popen[bytes]]") -> list[Told]:
    """Let all askers begin at once; what each was told."""
    for asker in askers:
        assert asker.stdout is not None
        if asker.stdout.readline() != b"ready\n":
            raise BenchError(f"an asker did not start: {home.complaint('asker.log')}")
    for asker in askers:
        assert asker.stdin is not None
        asker.stdin.write(b"go\n")
        asker.stdin.flush()
    told = []
    for asker in askers:
        assert asker.stdout is not None
        line = asker.stdout.readline()
        if not line:
            raise BenchError(f"an asker ended early: {home.complaint('asker.log')}")
        told.append(json.loads(line))
        asker.wait()
    return told


def _asker(
    run: Run, home: Nest, socket: str, number: int, rate: float, for_s: float, wait_s: float
) -> "subprocess.Popen[bytes]":
    seed = str(run.rng.randrange(2**32))
    words = (socket, str(_FIRST_UID + number), SPEC, str(wait_s), str(rate), str(for_s), seed)
    return home.start_module("bench.asker", *words, stdin=subprocess.PIPE)


def _report(run: Run, arms: dict[str, list[list[Told]]], greedy: list[Told], share: float) -> Result:
    study = Study(arms, _latencies, run.rng, run.repeats)
    rows = []
    for label in study.labels(_ALONE):
        ratio, control = study.ratio(_BESIDE, _ALONE, label), study.ratio(_AGAIN, _ALONE, label)
        is_bar = label == "p99"
        rows.append(
            Row(
                "fairness",
                f"{SPEC} {label} beside a greedy user",
                study.estimate(_BESIDE, label).value,
                "s",
                "alone",
                study.estimate(_ALONE, label).value,
                ratio,
                control,
                "at most 2" if is_bar else "",
                judge(ratio, 2.0, control) if is_bar else compare(ratio, control),
            )
        )
    served = Study(arms, _least_served, run.rng, run.repeats)
    least = served.estimate(_BESIDE, "served")
    limit = 0.9
    rows.append(
        Row(
            "fairness", "least served of the four, of what it asked", 100 * least.value, "%", "alone",
            100 * served.estimate(_ALONE, "served").value, limit="at least 90 %",
            verdict=judge(least, limit, at_least=True),
        )
    )  # fmt: skip
    got, asked = sum(each["got"] for each in greedy), sum(each["asked"] for each in greedy)
    return Result(
        rows,
        [f"a share is {share:.1f}/s; the greedy user asked {asked} times and got {got} pairs"],
        {"greedy": [{**each, "latencies": len(each["latencies"])} for each in greedy]},
    )


def _latencies(rounds: Sequence[Sequence[Told]]) -> dict[str, float]:
    return quantiles([each["latencies"] for polite in rounds for each in polite])


def _least_served(rounds: Sequence[Sequence[Told]]) -> dict[str, float]:
    """Of each user over all rounds, then the least."""
    users = range(len(rounds[0]))
    return {
        "served": min(
            sum(polite[user]["got"] for polite in rounds) / sum(polite[user]["asked"] for polite in rounds)
            for user in users
        )
    }
