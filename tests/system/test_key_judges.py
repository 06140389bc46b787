"""The judges of keys, by their command, on pairs that a daemon serves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def judged(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bench.keys", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_served_pairs_are_judged_by_their_bytes_and_by_judges_that_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "judged.json"
    done = judged("--keys", "3", "--spec", "RSA_2048", "--spec", "ECC_NIST_EDWARDS25519", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(path.read_text())["parts"]
    assert {row["verdict"] for part in parts.values() for row in part["rows"]} == {"met"}
    flips = parts["flips"]["detail"]
    assert (flips["RSA_2048"]["keys"], flips["RSA_2048"]["others"]) == (3, 57)
    assert flips["RSA_2048"]["flips"] > 36_000
    assert flips["ECC_NIST_EDWARDS25519"]["missed"] == []
    outside = parts["outside"]["detail"]
    assert outside["keys"] == {"RSA_2048": 3}
    assert sorted(outside["judged"].values()) == [1, 3, 3, 3]


@pytest.mark.parametrize(
    "arguments", [["nobody"], ["--keys", "0"], ["--spec", "DSA"], ["outside", "--spec", "ECC_NIST_P256"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    done = judged(*arguments)
    assert done.returncode == 2
    assert "usage" in done.stderr
