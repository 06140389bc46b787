"""The fuzzer as a command: in process, against a daemon, and with processes of its own that die."""

import json
import os
import subprocess
import sys
from pathlib import Path

from bench.fuzz import covered, results
from bench.fuzz.tally import Tally

ROOT = Path(__file__).parents[2]


def test_the_branches_of_the_wire_format_are_gone_through() -> None:
    for module, seen in covered.measure(20261125, 8000).items():
        assert seen.share >= results.LEAST_COVERED, (module, seen.missed)
        assert seen.branches_seen == seen.branches


def test_the_command_in_process(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.fuzz", "--messages", "4000", "--over-socket", "0", "--seed", "7",
         "--json", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    assert found["settings"]["seed"] == 7
    detail = found["parts"]["inside"]["detail"]
    assert detail["messages"] >= 4000
    assert detail["found"] == {}
    assert set(detail["covered"]) == {"wire", "connection", "contract", "limits"}


def test_over_the_socket(tmp_path: Path) -> None:
    """All that is sent is answered or cut, no pair is given twice, and a good client is served meanwhile."""
    path = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.fuzz", "--messages", "0", "--over-socket", "4000", "--seed", "20261125",
         "--json", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    part = json.loads(path.read_text())["parts"]["outside"]
    assert {row["verdict"] for row in part["rows"]} == {"met", ""}
    detail = part["detail"]
    assert detail["messages"] >= 4000
    assert detail["answered"]["result"] > 500
    assert detail["pairs"] > 50
    assert detail["good_client"]["served"] > 5
    assert detail["good_client"]["failures"] == {}
    assert detail["daemon"]["issued"] == detail["pairs"] + detail["good_client"]["served"]


def dies(_numbers: range) -> Tally:
    os._exit(1)


_CAMPAIGN = """
from bench.fuzz import campaign
from bench.progress import Display
from tests.system.test_fuzz import dies
with Display().step("test") as step:
    print(dict(campaign.run(dies, 1000, 1, step).tally.found))
"""


def test_a_process_that_dies_is_a_finding() -> None:
    """In a program of its own: who starts processes so has one that keeps track of them to its end."""
    done = subprocess.run(
        [sys.executable, "-c", _CAMPAIGN], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "{'BrokenProcessPool': 1}\n"
