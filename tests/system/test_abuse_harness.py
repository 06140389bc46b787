"""The abuse harness in a short form: kills under load, a slice of the failpoints, and each guard turned off,
which it must report. The long form is ``python -m bench.abuse``."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.abuse import kills, program, sweep, switched
from bench.abuse.guards import GUARDS, Guard
from bench.abuse.outcome import Outcome
from bench.abuse.planting import Plan
from bench.abuse.run import QUICK, Run
from bench.progress import Display

ROOT = Path(__file__).parents[2]
SIZES = replace(QUICK, worker_kills=20, lone_kills=2, daemon_kills=3, hits=1)
# The steps at which a pair changes hands, each interrupted in the way that is hardest on it.
SLICE = [
    ("half_sent", "kill"),
    ("told", "kill"),
    ("committed", "kill"),
    ("committed", "raise"),
    ("verdict", "kill"),
    ("forgotten", "kill"),
    ("batch_half", "kill"),
    ("batch_received", "raise"),
    ("taken", "kill"),
    ("built", "raise"),
    ("answer_half", "kill"),
    ("answer_posted", "raise"),
]


def short() -> Run:
    return Run(random.Random(20261125), Display(), SIZES)


def values(outcome: Outcome) -> dict[str, float]:
    return {figure.name: figure.value for figure in outcome.figures}


def test_workers_killed_under_load() -> None:
    outcome = kills.workers(short())
    assert (outcome.violations, outcome.void) == ([], [])
    found = values(outcome)
    assert found["SIGKILLs of workers"] == SIZES.worker_kills
    assert found["restarts of workers, makers of killed shards too"] >= SIZES.worker_kills
    assert found["pairs given out"] > 100
    assert found["of them opened again from their blobs"] > 0


def test_the_only_worker_killed_while_a_client_waits() -> None:
    outcome = kills.lone(short())
    assert (outcome.violations, outcome.void) == ([], [])
    assert values(outcome)["pairs given out"] == SIZES.lone_kills + 1


def test_the_daemon_killed_under_load() -> None:
    outcome = kills.daemon(short())
    assert (outcome.violations, outcome.void) == ([], [])
    found = values(outcome)
    assert found["SIGKILLs of the daemon"] == SIZES.daemon_kills
    assert found["pairs given out"] > 100
    assert len(outcome.detail["unexplained by life"]) == SIZES.daemon_kills + 1


@pytest.mark.parametrize("guard", GUARDS)
def test_a_guard_that_is_off_is_reported(guard: str) -> None:
    outcome = Outcome("guards")
    switched.try_guard(outcome, guard)
    assert (outcome.violations, outcome.void) == ([], [])
    assert outcome.detail[guard]["reported"]


def test_a_run_is_void_when_a_missing_guard_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard of which nothing is turned off: there is nothing to report, and that is not passed over."""
    monkeypatch.setitem(GUARDS, "none", Guard(off=()))
    monkeypatch.setattr(program, "command", lambda _plan: [sys.executable, "-m", "kpcache"])
    outcome = Outcome("guards")
    switched.try_guard(outcome, "none")
    assert len(outcome.void) == 1
    assert "with none off nothing was reported" in outcome.void[0]


@pytest.mark.parametrize(("point", "action"), SLICE, ids=[":".join(each) for each in SLICE])
def test_a_step_of_a_pairs_life_interrupted(point: str, action: str) -> None:
    outcome = Outcome("failpoints")
    sweep.cell(short(), outcome, point, action)
    assert (outcome.violations, outcome.void) == ([], [])
    assert outcome.detail[f"{point}:{action}"]["fired"] >= 1


def test_a_failpoint_that_never_fires_makes_a_run_void(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_CELL_TIMEOUT_S", 0.5)
    monkeypatch.setattr(sweep, "_EVERY", (10**6, 10**6))
    outcome = Outcome("failpoints")
    sweep.cell(short(), outcome, "taken", "delay")
    assert outcome.violations == []
    assert len(outcome.void) == 1
    assert "never fired" in outcome.void[0]


@pytest.mark.parametrize("role", ["daemon", "shard", "maker"])
def test_a_program_whose_failpoint_is_gone_does_not_run(role: str) -> None:
    plan = Plan(fail="nowhere:kill").encode()
    command = [sys.executable, "-P", program.__file__, *([] if role == "daemon" else [role]), plan, "serve"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd="/", timeout=60
    )
    assert done.returncode == program.EXIT_VOID
    assert "no failpoint 'nowhere'" in done.stderr


def test_wrong_usage_is_told() -> None:
    for arguments in (["no-such-run"], ["workers", "--worker-kills", "0"]):
        done = subprocess.run(
            [sys.executable, "-m", "bench.abuse", *arguments],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr


def test_what_is_planted_is_of_the_harness_alone() -> None:
    """Nothing in the product asks for a failpoint or a switch: there is none to be set by mistake."""
    told = "\n".join(path.read_text() for path in (ROOT / "kpcache").rglob("*.py"))
    assert "failpoint" not in told
    assert "ABUSE" not in told
    assert "from bench" not in told
    assert "import bench" not in told
