"""Errors of the disk below SQLite, under a real daemon: writes that the kernel refuses, and syncs that fail.

Whatever fails when: what was given out is in the ledger, nothing is found twice that was not made twice, and
all is well again by itself.
"""

import contextlib
import hashlib
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kpcache.errors import ThrottlingException
from tests.system.harness import PATIENCE_S, Daemon, pools, running

SPEC = "ECC_NIST_P256"
TARGET = 64

# While the file that FAILING names is there, what was to be synced is written, as far as the kernel got, and
# the caller told that it was not: the next call would succeed and have synced nothing of it.
_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int failing(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int done = real(fd);
    const char *path = getenv("FAILING");
    if (path && access(path, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return done;
}

int fsync(int fd) { return failing("fsync", fd); }
int fdatasync(int fd) { return failing("fdatasync", fd); }
"""


class Customer:
    """Takes pairs, and remembers them."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.fingerprints: list[bytes] = []

    def take(self, is_enough: Callable[[], bool]) -> None:
        """Pairs, one by one, until it is enough."""
        deadline = time.monotonic() + PATIENCE_S
        with self._daemon.client() as client:
            while not is_enough():
                assert time.monotonic() < deadline, client.status()["ledger"]
                with contextlib.suppress(ThrottlingException):  # dry, as it must become
                    pair = client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC, wait_s=0.02)
                    self.fingerprints.append(hashlib.sha256(pair["PublicKey"]).digest()[:8])

    def finds_all_recorded(self) -> None:
        """Read by SQLite, as an auditor would, after the daemon's end: each once."""
        with contextlib.closing(sqlite3.connect(self._daemon.state_dir / "ledger.db")) as rows:
            recorded = [each for [each] in rows.execute("SELECT fingerprint FROM tags")]
            assert rows.execute("SELECT rows FROM ledger").fetchone() == (len(recorded),)
            assert rows.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert len(set(self.fingerprints)) == len(self.fingerprints) > 0
        assert len(set(recorded)) == len(recorded)
        assert set(self.fingerprints) <= set(recorded)


def is_unavailable(daemon: Daemon) -> bool:
    return not daemon.status()["ledger"]["available"]


def is_well(daemon: Daemon) -> None:
    """By itself: within the time that may pass between two attempts, and that of making what is missing."""
    daemon.wait_full()
    status = daemon.status()
    assert (status["alarm"], status["issuing"], status["ledger"]["fault"]) == (None, True, "")
    assert status["ledger"]["rolled_back"] == ""


def test_writes_that_the_kernel_refuses_stop_new_pairs_only_and_are_got_over(tmp_path: Path) -> None:
    """EFBIG for every write to a file, by a limit that is set from without: to SQLite that is as EIO."""
    with running(tmp_path, pools(**{SPEC: TARGET})) as daemon:
        daemon.wait_full()
        customer, pid = Customer(daemon), daemon.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        for rounds in (1, 2):  # and over again
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limits[1]))
            customer.take(lambda: is_unavailable(daemon))
            assert "disk I/O error" in daemon.status()["ledger"]["fault"]
            assert daemon.status()["issuing"]
            customer.take(lambda: _is_dry(daemon))
            assert len(customer.fingerprints) >= rounds * TARGET, "what is recorded is given out"
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
            is_well(daemon)
    customer.finds_all_recorded()


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("failing syncs were NOT tested: there is no C compiler")
    source = tmp_path / "shim.c"
    source.write_text(_SHIM)
    library = tmp_path / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("end", ["recovers", "killed"])
def test_syncs_that_fail_acknowledge_nothing_and_raise_no_alarm(tmp_path: Path, shim: Path, end: str) -> None:
    """The rows are in the log all the same, where the next attempt, or the next start, meets them."""
    failing = tmp_path / "failing"
    command = ["env", f"LD_PRELOAD={shim}", f"FAILING={failing}", sys.executable, "-m", "kpcache"]
    with running(tmp_path, pools(**{SPEC: TARGET}), command) as daemon:
        daemon.wait_full()
        customer = Customer(daemon)
        failing.touch()
        customer.take(lambda: is_unavailable(daemon))
        assert "disk I/O error" in daemon.status()["ledger"]["fault"]
        customer.take(lambda: _is_dry(daemon))
        if end == "killed":
            daemon.kill()
        else:
            failing.unlink()
            is_well(daemon)
    if end == "killed":
        failing.unlink()
        with running(tmp_path, pools(**{SPEC: TARGET})) as daemon:
            daemon.wait_full()
            status = daemon.status()
            assert (status["alarm"], status["ledger"]["rolled_back"], status["issuing"]) == (None, "", True)
    customer.finds_all_recorded()


def _is_dry(daemon: Daemon) -> bool:
    pool = daemon.status()["pools"][SPEC]
    return not pool["ready"] + pool["held"]
