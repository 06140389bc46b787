"""Pairs wait out a restart of the daemon and come back, once, whatever is done to them meanwhile."""

import json
from pathlib import Path

import pytest

from kpcache.worker.reserve_folder import is_in_memory
from tests.system import own_disk, sealing_trials
from tests.system.harness import PATIENCE_S, pools, running
from tests.system.reserve_trials import TRIALS


@pytest.mark.parametrize("trial", TRIALS)
def test_the_reserve(tmp_path: Path, trial: str) -> None:
    """What is seen is checked where it happens, in ``reserve_trials``."""
    done = own_disk.run("tests.system.reserve_trials", tmp_path, 5 * PATIENCE_S, trial)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == [trial]


@pytest.mark.parametrize("trial", sealing_trials.TRIALS)
def test_a_shard_and_its_segments(tmp_path: Path, trial: str) -> None:
    """As above, in ``sealing_trials``."""
    done = own_disk.run("tests.system.sealing_trials", tmp_path, 2 * PATIENCE_S, trial)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == [trial]


def test_on_a_disk_there_is_no_reserve_and_the_status_says_why(tmp_path: Path) -> None:
    reserve = tmp_path / "reserve"
    reserve.mkdir(mode=0o700)
    with (tmp_path / "file").open("wb") as file:
        if is_in_memory(file.fileno()):
            pytest.skip("a folder on a disk was NOT tested: the tests' own lies in memory")
    for _ in range(2):
        with running(tmp_path, pools(ECC_NIST_P256=16)) as daemon:
            daemon.wait_full()
            status = daemon.status()["reserve"]
            assert (status["on"], status["restored"]) == (False, 0)
            assert status["why"].startswith(f"{reserve} is not on a tmpfs; set daemon.runtime_dir to")
        assert list(reserve.glob("*.segment*")) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "reserve").write_text("in the way")
    with running(tmp_path, pools(ECC_NIST_P256=16)) as daemon:
        daemon.wait_full()
        status = daemon.status()["reserve"]
        assert (status["on"], "File exists" in status["why"]) == (False, True), status
