"""A disk that is really full under the ledger of a real daemon."""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kpcache.core.specs import SPECS
from kpcache.daemon.leaving import EXIT_CODE
from kpcache.daemon.main import LEAVE_S
from kpcache.errors import ThrottlingException
from tests.system import own_disk
from tests.system.harness import PATIENCE_S, Daemon, pools, running
from tests.system.stalling_daemon import STALL_S

STALLING = [sys.executable, str(Path(__file__).with_name("stalling_daemon.py"))]
SPEC = "ECC_NIST_P256"


def test_a_full_disk_stops_new_pairs_only_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    """What is seen is checked where it happens, in ``full_ledger``."""
    done = own_disk.run("tests.system.full_ledger", tmp_path, 3 * PATIENCE_S)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_disk_that_hangs_for_5_s_loses_no_request_and_keeps_none_waiting(tmp_path: Path) -> None:
    """At 40 pairs a second, from a pool of the size that it has by default."""
    spec, rate = SPEC, 40
    assert rate * STALL_S < SPECS[spec].target
    with running(tmp_path, pools(**{spec: SPECS[spec].target}), STALLING) as daemon:
        daemon.wait_full()
        stall = daemon.state_dir / "stall"
        stall.touch()
        began, longest, most_waiting, taken = time.monotonic(), 0.0, 0, 0
        with daemon.client() as client:
            while time.monotonic() - began < STALL_S + 2.0:
                asked = time.monotonic()
                client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=spec)
                longest = max(longest, time.monotonic() - asked)
                taken += 1
                if not taken % 10:
                    most_waiting = max(most_waiting, client.status()["ledger"]["waiting"])
                time.sleep(max(began + taken / rate - time.monotonic(), 0.0))
        assert not stall.exists(), "it did hang"
        assert most_waiting > 50, "and pairs waited for it"
        assert longest < 0.5
        daemon.wait_full()
        status = daemon.status()
        assert (status["ledger"]["waiting"], status["alarm"]) == (0, None)
        assert status["pools"][spec]["dry"] == 0


def take_until_it_hangs(daemon: Daemon, is_met: Callable[[], bool]) -> None:
    """Pairs, until the ledger has met the disk that hangs, and some wait for it."""
    with daemon.client() as client:
        deadline = time.monotonic() + PATIENCE_S
        while not client.status()["ledger"]["waiting"] or not is_met():
            assert time.monotonic() < deadline
            with contextlib.suppress(ThrottlingException):  # makers may be slow beside others
                client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC, wait_s=0.02)


def test_a_daemon_whose_disk_hangs_for_ever_can_be_stopped_all_the_same(tmp_path: Path) -> None:
    """In a bounded time, with a word of why; the next one finds all that was acknowledged, and no alarm."""
    daemon = Daemon(tmp_path, pools(**{SPEC: 64}), STALLING)
    try:
        daemon.wait_full()
        hang = daemon.state_dir / "hang"
        hang.touch()
        take_until_it_hangs(daemon, lambda: True)
        recorded = daemon.status()["ledger"]["tags"]
        began = time.monotonic()
        assert daemon.stop() == EXIT_CODE
        assert LEAVE_S - 1 < time.monotonic() - began < LEAVE_S + 10
        daemon.wait_log("the disk of daemon.state_dir hangs, as it seems")
        hang.unlink()
    finally:
        daemon.kill()
    with running(tmp_path, pools(**{SPEC: 64}), STALLING) as daemon:
        status = daemon.status()
        assert (status["alarm"], status["ledger"]["rolled_back"], status["issuing"]) == (None, "", True)
        assert status["ledger"]["tags"] >= recorded
        daemon.wait_full()


def test_a_commit_that_is_slow_is_waited_for_at_a_stop(tmp_path: Path) -> None:
    """A stop is no reason to leave what the disk will soon have done."""
    with running(tmp_path, pools(**{SPEC: 64}), STALLING) as daemon:
        daemon.wait_full()
        stall = daemon.state_dir / "stall"
        stall.touch()
        take_until_it_hangs(daemon, lambda: not stall.exists())
