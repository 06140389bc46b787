"""The real daemon on a machine that is copied, and before a snapshot of one. The generation changes in a
plain file, a stand-in for the VMClock device; no machine is copied here."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from kpcache.core import envelope
from kpcache.errors import ThrottlingException
from tests.system import floor_trials, own_disk
from tests.system.harness import PATIENCE_S, Daemon, descendants, pools, running
from tests.vmclock import StandIn

SPEC = "ECC_NIST_P256"
POOLS = pools(ECC_NIST_P256=64, RSA_2048=4)


def guarded_by(clock: Path | str) -> str:
    return f'{POOLS}[clone_guard]\nvmclock = "{clock}"\nkernel_log = ""\n'


def made(daemon: Daemon) -> set[bytes]:
    """The first 8 bytes of SHA-256 of every public key made so far."""
    ledger = sqlite3.connect(f"file:{daemon.state_dir / 'ledger.db'}?mode=ro", uri=True)
    try:
        return {fingerprint for (fingerprint,) in ledger.execute("SELECT fingerprint FROM tags")}
    finally:
        ledger.close()


def take(daemon: Daemon, count: int) -> set[bytes]:
    with daemon.client() as client:
        answers = [
            client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=spec)
            for spec in (SPEC, "RSA_2048")
            for _ in range(count)
        ]
    return {hashlib.sha256(answer["PublicKey"]).digest()[:8] for answer in answers}


def salt(daemon: Daemon) -> bytes:
    """Of the key that blobs are encrypted under at present (``core/envelope``)."""
    with daemon.client() as client:
        answer = client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)
    return envelope.parse(answer["PrivateKeyCiphertextBlob"]).salt


def run(daemon: Daemon, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kpcache", *command, "--socket", daemon.socket],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_no_pair_from_before_a_copy_is_given_out_after_it(tmp_path: Path) -> None:
    clock = StandIn(tmp_path / "clock", 2**64 - 2)
    with running(tmp_path, guarded_by(clock.path)) as daemon:
        daemon.wait_full()
        before = made(daemon)
        assert take(daemon, 2) < before
        old = salt(daemon)
        assert salt(daemon) == old
        daemon.wait_full()
        before = made(daemon)
        clock.generation = 2**64 - 1
        # At once: nobody has had the time to look at the clock but whoever is asked now.
        assert not take(daemon, 4) & before
        daemon.wait_log("this machine was copied")
        assert salt(daemon) != old
        daemon.wait_full()
        assert not take(daemon, 4) & before
        status = daemon.status()
        assert (status["clone_guard"], status["generation"]) == ("stand-in", 2**64 - 1)
        assert status["discarded"][SPEC]["copied"] >= 60
        for pool in status["pools"].values():
            there = pool["issued"] + pool["discarded"] + pool["held"] + pool["ready"] + pool["in_hand"]
            assert pool["generated"] + pool["restored"] == there
        assert "clone guard: stand-in" in run(daemon, "status").stdout


def test_without_a_guard_they_are(tmp_path: Path) -> None:
    """So that the test above says something; and the status says that there is none."""
    clock = StandIn(tmp_path / "clock")
    with running(tmp_path, guarded_by("")) as daemon:
        daemon.wait_full()
        before = made(daemon)
        clock.generation = 2
        assert take(daemon, 4) < before
        status = daemon.status()
        assert status["clone_guard"] == "none"
        assert "vmclock is switched off" in status["clone_guard_lacks"]


def test_quiesce_leaves_no_pair_and_no_worker_and_resume_brings_others(tmp_path: Path) -> None:
    with running(tmp_path, guarded_by("")) as daemon:
        daemon.wait_full()
        before = made(daemon)
        done = run(daemon, "quiesce")
        assert done.returncode == 0, done.stderr
        assert "68 pairs burnt" in done.stdout
        assert descendants(daemon.process.pid) == [daemon.process.pid]
        status = daemon.status()
        assert (status["quiesced"], status["issuing"]) == (True, False)
        assert {worker["state"] for worker in status["workers"]} == {"stopped"}
        assert all(pool["held"] + pool["ready"] + pool["in_hand"] == 0 for pool in status["pools"].values())
        assert "QUIESCED" in run(daemon, "status").stdout
        with daemon.client() as client, pytest.raises(ThrottlingException) as refused:
            client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)
        assert (refused.value.reason, refused.value.retry_after_s) == ("quiesced", 5.0)
        assert run(daemon, "get", SPEC).returncode == 4
        assert json.loads(run(daemon, "quiesce", "--json").stdout) == {"Burnt": 0}
        assert run(daemon, "resume").returncode == 0
        assert not take(daemon, 4) & before
        again = run(daemon, "resume")
        assert (again.returncode, "not quiesced" in again.stderr) == (1, True)
        daemon.wait_full()


def test_quiesce_drops_a_key_in_the_making(tmp_path: Path) -> None:
    config = pools(RSA_4096=32) + "[workers]\nshards = 1\nmakers = 2\n"
    with running(tmp_path, config) as daemon:
        makers = daemon.workers()["maker"]
        assert len(makers) == 2
        assert run(daemon, "quiesce").returncode == 0
        assert not any(os.path.exists(f"/proc/{pid}") for pid in makers)


@pytest.mark.parametrize("trial", floor_trials.TRIALS)
def test_what_was_sealed_before_a_snapshot_stays_burnt(tmp_path: Path, trial: str) -> None:
    done = own_disk.run("tests.system.floor_trials", tmp_path, 5 * PATIENCE_S, trial)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == [trial]


def test_makers_are_replaced_after_so_many_keys(tmp_path: Path) -> None:
    config = pools(ECC_NIST_P256=400) + "[workers]\nshards = 1\nmakers = 1\nmaker_max_keys = 20\n"
    with running(tmp_path, config) as daemon:
        daemon.wait_full()
        [maker] = [worker for worker in daemon.status()["workers"] if worker["role"] == "maker"]
        assert maker["restarts"] >= 2
        assert maker["reason"] == "spent"
        assert not any("ended (spent)" in line for line in daemon.log)  # which is no fault
