"""A disk that is really full under the ledger of a real daemon."""

import sys
import time
from pathlib import Path

from tests.system import own_disk
from tests.system.harness import PATIENCE_S, pools, running
from tests.system.stalling_daemon import STALL_S


def test_a_full_disk_stops_new_pairs_only_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    """What is seen is checked where it happens, in ``full_ledger``."""
    done = own_disk.run("tests.system.full_ledger", tmp_path, 3 * PATIENCE_S)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_disk_that_hangs_for_5_s_loses_no_request_and_keeps_none_waiting(tmp_path: Path) -> None:
    """At 50 pairs a second, from a pool of 512."""
    spec = "ECC_NIST_P256"
    program = str(Path(__file__).with_name("stalling_daemon.py"))
    with running(tmp_path, pools(**{spec: 512}), [sys.executable, program]) as daemon:
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
                time.sleep(max(began + taken / 50 - time.monotonic(), 0.0))
        assert not stall.exists(), "it did hang"
        assert most_waiting > 50, "and pairs waited for it"
        assert longest < 0.5
        daemon.wait_full()
        status = daemon.status()
        assert (status["ledger"]["waiting"], status["alarm"]) == (0, None)
        assert status["pools"][spec]["dry"] == 0
