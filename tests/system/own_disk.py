"""Runs a program with a tmpfs of its own, which it can fill: in a mount namespace of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Who is not root gets a mount namespace with a user namespace in which they are.
_UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


def run(module: str, folder: Path, timeout_s: float, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """``python -m module folder arguments``, which mounts there. Where it may not, the test is skipped."""
    trial = [*_UNSHARE, "mount", "-t", "tmpfs", "kpcache-test", str(folder)]
    try:
        tried = subprocess.run(trial, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("a full disk was NOT tested: there is no unshare(1), of util-linux")
    if tried.returncode:
        pytest.skip(f"a full disk was NOT tested: mounting is not allowed here: {tried.stderr.strip()}")
    return subprocess.run(
        [*_UNSHARE, sys.executable, "-m", module, str(folder), *arguments],
        capture_output=True, text=True, check=False, timeout=timeout_s, cwd=ROOT,
    )  # fmt: skip
