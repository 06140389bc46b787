"""An alarm that the ledger's disk does not take, under the real daemon: no restart forgets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kpcache.errors import KMSInvalidStateException
from tests.system.harness import PATIENCE_S, Daemon, pools, running
from tests.system.repeating_daemon import SPEC

ONE_MAKER = pools(**{SPEC: 16}) + "[workers]\nshards = 1\nmakers = 1\n"
REPEATING = [sys.executable, str(Path(__file__).with_name("repeating_daemon.py"))]
FAILING = [*REPEATING, "failing"]


def clear_alarm(daemon: Daemon, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "kpcache", "clear-alarm", *options, "--socket", daemon.socket],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def take(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)


def is_closed(daemon: Daemon, *, durable: bool) -> None:
    with pytest.raises(KMSInvalidStateException) as caught:
        take(daemon)
    assert caught.value.reason == "not_issuing"
    status = daemon.status()
    assert (status["issuing"], status["alarm"]["durable"]) == (False, durable)


def raised_and_killed(folder: Path) -> Path:
    """After a first life has made the pair that the second makes again; returns what that has kept."""
    with running(folder, ONE_MAKER, REPEATING) as daemon:
        daemon.wait_full()
        (daemon.state_dir / "full").touch()
    with running(folder, ONE_MAKER, FAILING) as daemon:
        daemon.wait_log("the alarm is kept in")
        is_closed(daemon, durable=False)
        daemon.kill()
    return folder / "reserve" / "alarm.json"


def test_an_alarm_that_cannot_be_written_stands_over_kills_and_is_written_when_it_can_be(
    tmp_path: Path,
) -> None:
    kept = raised_and_killed(tmp_path)
    assert kept.stat().st_mode & 0o777 == 0o600
    with running(tmp_path, ONE_MAKER, FAILING) as daemon:
        daemon.wait_log("ALARM: a fresh ECC_NIST_P256 pair")
        is_closed(daemon, durable=False)
        assert daemon.status()["pools"][SPEC]["generated"] == 0
        assert clear_alarm(daemon, "--yes").returncode == 1, "it could not be cleared durably"
        is_closed(daemon, durable=False)
        (daemon.state_dir / "full").unlink()
        daemon.wait_log("the alarm is in the ledger now")
        assert not kept.exists()
        daemon.kill()
    with running(tmp_path, ONE_MAKER) as daemon:
        is_closed(daemon, durable=True)
        [found] = json.loads(clear_alarm(daemon, "--show", "--json").stdout)["Duplicates"]
        assert (found["KeyPairSpec"], found["Life"], found["Earlier"]["Life"]) == (SPEC, 2, 1)
        assert clear_alarm(daemon, "--yes").returncode == 0
        daemon.wait_full()
        take(daemon)


def test_a_start_whose_ledger_can_be_written_has_the_alarm_in_it_before_it_serves(tmp_path: Path) -> None:
    kept = raised_and_killed(tmp_path)
    (tmp_path / "state" / "full").unlink()
    with running(tmp_path, ONE_MAKER) as daemon:
        is_closed(daemon, durable=True)
        assert not kept.exists()


def test_evidence_that_was_spoilt_is_an_alarm_until_it_is_cleared(tmp_path: Path) -> None:
    kept = raised_and_killed(tmp_path)
    kept.write_bytes(kept.read_bytes()[:-10])
    (tmp_path / "state" / "full").unlink()
    for _ in range(2):
        with running(tmp_path, ONE_MAKER) as daemon:
            told = daemon.wait_log("its evidence cannot be read")
            assert f"({kept}: holds no evidence" in told
            assert "kpcache clear-alarm" in told
            is_closed(daemon, durable=False)
    with running(tmp_path, ONE_MAKER) as daemon:
        cleared = clear_alarm(daemon, "--yes")
        assert (cleared.returncode, "evidence cannot be read" in cleared.stderr) == (0, True), cleared.stderr
        daemon.wait_full()
        take(daemon)
        assert not kept.exists()
    with running(tmp_path, ONE_MAKER) as daemon:
        take(daemon)
