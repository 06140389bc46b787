"""A disk that is really full, at each place where a write of the keyring can meet it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import PATIENCE_S

ROOT = Path(__file__).parents[2]
# A mount namespace of our own; who is not root gets it with a user namespace in which they are.
UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """For each kind of change and of room: whether it was made, by how much room was left."""
    folder = tmp_path_factory.mktemp("disk")
    trial = [*UNSHARE, "mount", "-t", "tmpfs", "kpcache-test", str(folder)]
    try:
        tried = subprocess.run(trial, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("a full disk was NOT tested: there is no unshare(1), of util-linux")
    if tried.returncode:
        pytest.skip(f"a full disk was NOT tested: mounting is not allowed here: {tried.stderr.strip()}")
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-m", "tests.system.full_disk", str(folder)],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, list[int]] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize(
    ("change", "least"),
    [
        # Blocks: the new file has six, for either kind of change.
        ("rotate leave_blocks", 6),
        ("purge leave_blocks", 6),
        # The keyring, then the mark.
        ("first leave_blocks", 2),
        # Inodes: the new file, then the mark or (on tmpfs each name counts) the old file's second name.
        ("rotate leave_inodes", 2),
        ("purge leave_inodes", 1),
        ("first leave_inodes", 2),
    ],
)
def test_a_full_disk_leaves_the_old_or_the_new_state_whole(
    made: dict[str, list[int]], change: str, least: int
) -> None:
    """That it does is checked where it happens, in ``full_disk``; here, that the disk really was full."""
    refused = made[change].count(0)
    assert least <= refused < len(made[change]), made
    assert made[change] == sorted(made[change]), "with more room it never becomes impossible"
