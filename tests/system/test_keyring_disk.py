"""A disk that is really full, at each place where a write of the keyring can meet it."""

import json

import pytest

from tests.system import own_disk
from tests.system.harness import PATIENCE_S


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """For each kind of change and of room: whether it was made, by how much room was left."""
    folder = tmp_path_factory.mktemp("disk")
    done = own_disk.run("tests.system.full_disk", folder, PATIENCE_S)
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
