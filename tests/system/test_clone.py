"""Copies of a maker, as copies of a machine have them: with the guard no key and no prime is made twice, and
without it they are. The generation changes in a plain file, a stand-in for the VMClock device."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kpcache.core.specs import MAKEABLE
from tests.system.harness import PATIENCE_S


def twins(*arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the original and the copy made."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can make the PID namespaces that two equal processes need")
    command = [sys.executable, "-m", "tests.system.cloned_maker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    lines = sorted(
        (json.loads(line) for line in done.stdout.splitlines()), key=lambda line: bool(line["copy"])
    )
    assert [line["copy"] for line in lines] == [False, True]
    assert lines[0]["pid"] == lines[1]["pid"] == 1
    return lines[0], lines[1]


def shared(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return set(one["tags"]) & set(other["tags"])


@pytest.mark.parametrize("spec", MAKEABLE)
def test_copied_between_keys_they_make_other_keys_if_randomness_is_mixed_in(spec: str) -> None:
    one, other = twins("between", spec, "2", "guarded")
    assert len(one["tags"]) == len(other["tags"]) == (4 if spec.startswith("RSA") else 2)
    assert not shared(one, other)


@pytest.mark.parametrize("spec", MAKEABLE)
def test_and_the_same_keys_if_it_is_not(spec: str) -> None:
    one, other = twins("between", spec, "2", "bare")
    assert one["tags"] == other["tags"]


def test_copied_within_a_key_that_key_is_dropped_by_both(tmp_path: Path) -> None:
    one, other = twins("within", "RSA_4096", str(tmp_path / "clock"), "guarded")
    assert other["copied_within_a_key"]
    assert (one["tags"], other["tags"]) == ([], [])
    assert "copied" in one["spent"]
    assert "copied" in other["spent"]


def test_and_shared_by_both_if_the_clock_is_not_looked_at(tmp_path: Path) -> None:
    one, other = twins("within", "RSA_4096", str(tmp_path / "clock"), "bare")
    assert other["copied_within_a_key"]
    assert shared(one, other)
