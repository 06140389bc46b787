"""A real daemon whose ledger's disk is really full: ``python -m tests.system.full_ledger FOLDER``.

It puts a tmpfs of its own on the state folder, so it must run in a mount namespace of its own, where that
ends with it. What happens is checked here; prints "done".
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kpcache.errors import KMSInvalidStateException, KpcacheError
from tests.system.harness import PATIENCE_S, Daemon, pools, running

SPEC = "ECC_NIST_P256"
TARGET = 64
SIZE = 4 * 1024 * 1024


def take(daemon: Daemon, wait_s: float | None = None) -> KpcacheError | None:
    """The refusal, if it is one."""
    try:
        with daemon.client() as client:
            client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC, wait_s=wait_s)
    except KpcacheError as error:
        return error
    return None


class Filler:
    """Takes all room there is, and what becomes free later: a log that is cut leaves some."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stop = threading.Event()
        self._take_all()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def _take_all(self) -> None:
        path = self._folder / f"filler{time.monotonic_ns()}"
        disk = os.statvfs(self._folder)
        if disk.f_bavail:
            with path.open("wb") as file, contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize)

    def _keep(self) -> None:
        while not self._stop.wait(0.01):
            self._take_all()

    def remove(self) -> None:
        self._stop.set()
        self._thread.join()
        for path in self._folder.glob("filler*"):
            path.unlink()


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[Filler]:
    filler = Filler(folder)
    try:
        yield filler
    finally:
        filler.remove()


def at_hand(daemon: Daemon) -> int:
    pool = daemon.status()["pools"][SPEC]
    return int(pool["ready"]) + int(pool["held"])


def ask_until_unavailable(daemon: Daemon) -> None:
    """Until the ledger has met the full disk; never more than half of the pool, which others wait to fill."""
    deadline = time.monotonic() + PATIENCE_S
    while daemon.status()["ledger"]["available"]:
        assert time.monotonic() < deadline
        if at_hand(daemon) > TARGET // 2:
            take(daemon, 0.0)
        else:
            time.sleep(0.02)


def refused_at_once(daemon: Daemon) -> None:
    """Whoever would wait for no longer than until the ledger is tried again, which is soon two seconds."""
    deadline, wait_s = time.monotonic() + PATIENCE_S, 1.5
    while True:
        began = time.monotonic()
        assert began < deadline
        refused = take(daemon, wait_s)
        took = time.monotonic() - began
        assert refused is not None
        assert refused.reason == "pool_dry"
        if took < wait_s / 2:
            assert (refused.retry_after_s or 0.0) > wait_s
            return


def recovers(daemon: Daemon, filler: Filler) -> None:
    filler.remove()
    daemon.wait_full()
    assert take(daemon) is None
    status = daemon.status()
    assert (status["alarm"], status["issuing"], status["ledger"]["fault"]) == (None, True, "")


def serve_pooled(folder: Path) -> None:
    with running(folder, pools(**{SPEC: TARGET})) as daemon:
        daemon.wait_full()
        with filled(daemon.state_dir) as filler:
            ask_until_unavailable(daemon)
            daemon.wait_log("the ledger cannot be used")
            status = daemon.status()
            assert status["issuing"]
            recorded = at_hand(daemon)
            assert recorded >= TARGET // 4
            taken = 0
            while (refused := take(daemon, 0.5)) is None:
                taken += 1
                assert taken < 10_000
            assert taken >= recorded, "what is recorded is given out"
            assert refused.code == "ThrottlingException", refused
            refused_at_once(daemon)
            generated = daemon.status()["pools"][SPEC]["generated"]
            time.sleep(0.5)
            assert daemon.status()["pools"][SPEC]["generated"] == generated, (
                "none is made that cannot be held"
            )
            recovers(daemon, filler)
    # A start on a full disk serves, and fills its pools when there is room.
    with filled(folder / "state") as filler, running(folder, pools(**{SPEC: TARGET})) as daemon:
        daemon.wait_log("the ledger cannot be used")
        assert not daemon.status()["ledger"]["available"]
        recovers(daemon, filler)


def stop(folder: Path) -> None:
    with running(folder, pools(**{SPEC: TARGET}) + '[ledger]\nwhen_unavailable = "stop"\n') as daemon:
        daemon.wait_full()
        with filled(daemon.state_dir) as filler:
            refused: KpcacheError | None = None
            while not isinstance(refused, KMSInvalidStateException):
                refused = take(daemon, 0.0)
            assert refused.reason == "not_issuing"
            assert "ledger.when_unavailable" in refused.message
            recovers(daemon, filler)


def main() -> None:
    folder = Path(sys.argv[1])
    for number, test in enumerate((serve_pooled, stop)):
        home = folder / str(number)
        state = home / "state"
        state.mkdir(parents=True, mode=0o700)
        options = f"size={SIZE},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "kpcache-test", state], check=True)
        test(home)
    print("done")


if __name__ == "__main__":
    main()
