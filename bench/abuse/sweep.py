"""Each failpoint with each action, while clients take pairs: killed, failing or late at any step of a pair's
life, nothing is given out twice."""

import time
from typing import Final

from bench.abuse.outcome import Outcome
from bench.abuse.planting import Plan
from bench.abuse.points import POINTS
from bench.abuse.run import Run
from bench.abuse.trial import COSTLY, DEFECT, EAGER, QUICK, TOLERATED, Trial, kill_slack, trial, whole_slack
from bench.daemon import BenchError

ACTIONS: Final = ("kill", "raise", "delay")
_LOAD: Final = ((QUICK, 150.0), (QUICK, 150.0), (COSTLY, 5.0))
_POOLS: Final = {QUICK: 64, COSTLY: 4}
# A process passes a failpoint so often before it fires: not in every life at the same moment, and not before
# a daemon has come to serve.
_EVERY: Final = (16, 48)
_MORE_OFTEN: Final = 8  # what is passed with each pair, and not with each batch of them
# For a failpoint to have fired as often as it should; one step takes an RSA pair.
_CELL_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.05


def sweep(run: Run) -> Outcome:
    outcome = Outcome("failpoints")
    cells = [(point, action) for point in POINTS for action in ACTIONS]
    with run.display.step("failpoints", len(cells)) as step:
        for point, action in cells:
            cell(run, outcome, point, action)
            step.advance()
    fired = sum(each["fired"] for each in outcome.detail.values())
    outcome.figure("failpoints, each killed, raising and late", len(POINTS))
    outcome.figure("times that one fired", fired)
    outcome.figure("lives of the daemon", sum(each["lives"] for each in outcome.detail.values()))
    outcome.figure("pairs given out", sum(each["issued"] for each in outcome.detail.values()))
    outcome.figure("given out twice", sum(v.rule == "twice" for v in outcome.violations))
    return outcome


def cell(run: Run, outcome: Outcome, point: str, action: str) -> None:
    """One failpoint with one action, in a trial of its own."""
    every = run.rng.randint(*_EVERY) * (_MORE_OFTEN if POINTS[point].each_pair else 1)
    fail = f"{point}:{action}:{every}"
    plan = Plan(fail=fail, healthy_life_s=0.0)
    tolerated = TOLERATED | DEFECT if action == "raise" else TOLERATED
    # What fails again and again comes to no rest: only where it is late are the last books exact. Those of a
    # daemon that fails by itself are from before its death.
    of_daemon = POINTS[point].role == "daemon"
    slack = 0 if action == "delay" else whole_slack(_POOLS) if of_daemon else kill_slack(_POOLS)
    try:
        with trial(plan, _POOLS, EAGER, tolerated) as abused:
            abused.load(*_LOAD)
            _wait_fired(abused, run.sizes.hits)
            proof = abused.finish(slack)
            fired = abused.marks()
            lives = len(abused.target.lives)
    except BenchError as error:
        outcome.require(False, "stuck", f"{fail}: {error}")
        return
    if not fired:
        outcome.void.append(f"{fail} never fired: is the step still taken where it is planted?")
    for violation in proof.violations:
        outcome.violations.append(violation._replace(evidence=f"{fail}: {violation.evidence}"))
    outcome.detail[f"{point}:{action}"] = {
        "planted": fail,
        "fired": fired,
        "lives": lives,
        "issued": proof.issued,
        "unexplained": proof.unexplained,
        "refused": dict(proof.refused),
    }


def _wait_fired(abused: Trial, hits: int) -> None:
    deadline = time.monotonic() + _CELL_TIMEOUT_S
    while abused.marks() < hits and time.monotonic() < deadline:
        abused.keep()
        abused.target.status()  # for the books of its last moments
        time.sleep(_POLL_S)
