"""Runs the real daemon for a test: starts it as a user would, watches its log, and leaves nothing behind."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kpcache import Client
from kpcache.core.specs import MAKEABLE

# How long a test waits for what must come, on a loaded machine; no test passes by waiting.
PATIENCE_S = 60.0


class Daemon:
    """One ``kpcache serve`` process and all that it started."""

    def __init__(self, folder: Path, config: str = "", command: list[str] | None = None) -> None:
        self.folder = folder
        self.socket = str(folder / "kpcache.sock")
        self.admin_socket = str(folder / "admin.sock")
        self.state_dir = folder / "state"
        path = folder / "kpcache.toml"
        # Tests that ask over HTTP say where; others, of which several may run at once, want no port.
        metrics = "" if "[metrics]" in config else '[metrics]\nlisten = ""\n'
        path.write_text(
            f'{metrics}[daemon]\nsocket = "{self.socket}"\nstate_dir = "{self.state_dir}"\n'
            f'runtime_dir = "{folder / "reserve"}"\n{config}'
        )
        self.log: list[str] = []
        self._log_grew = threading.Condition()
        self.process = subprocess.Popen(
            [*(command or [sys.executable, "-m", "kpcache"]), "serve", "--config", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            start_new_session=True,  # a group of its own, as a service has
        )
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._log_grew:
                self.log.append(line.rstrip("\n"))
                self._log_grew.notify_all()
        with self._log_grew:
            self.log.append("")  # the end of the log wakes whoever waits for a line that cannot come now
            self._log_grew.notify_all()

    def wait_log(self, text: str) -> str:
        """The first line that holds ``text``, now or when it comes; fails when the daemon ends first."""

        def found() -> str | None:
            return next((line for line in self.log if text in line), None)

        with self._log_grew:
            self._log_grew.wait_for(lambda: found() or self.log[-1:] == [""], PATIENCE_S)
            line = found()
        assert line is not None, f"{text!r} did not come: {self.log}"
        return line

    def client(self, **options: Any) -> Client:
        return Client(self.socket, **options)

    def status(self) -> dict[str, Any]:
        with self.client() as client:
            return dict(client.status())

    def wait_full(self) -> None:
        """Until every pool is full."""
        command = [sys.executable, "-m", "kpcache", "wait", "--level", "full", "--socket", self.socket]
        subprocess.run([*command, "--timeout", str(PATIENCE_S)], check=True, capture_output=True)

    def workers(self) -> dict[str, list[int]]:
        """The pids of all live workers by role."""
        pids: dict[str, list[int]] = {"shard": [], "maker": []}
        for worker in self.status()["workers"]:
            if worker["pid"]:
                pids[worker["role"]].append(worker["pid"])
        return pids

    def all_pids(self) -> list[int]:
        """The daemon and every process that descends from it."""
        return descendants(self.process.pid)

    def stop(self) -> int:
        """SIGTERM; the exit code. Fails if a process or a socket is left."""
        pids = self.all_pids()
        with contextlib.ExitStack() as stack:
            pidfds = [stack.enter_context(pidfd(pid)) for pid in pids]
            self.process.send_signal(signal.SIGTERM)
            code = self.process.wait(PATIENCE_S)
            wait_gone([fd for fd in pidfds if fd is not None], 2.0)
        self._reader.join(PATIENCE_S)
        assert not os.path.exists(self.socket)
        assert not os.path.exists(self.admin_socket)
        return code

    def kill(self) -> None:
        """End whatever is left of it, for a test that has failed or has killed it itself."""
        for pid in self.all_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextlib.contextmanager
def running(folder: Path, config: str = "", command: list[str] | None = None) -> Iterator[Daemon]:
    """A daemon that serves; stopped by SIGTERM at the end, which must work: exit 0, nothing left."""
    daemon = Daemon(folder, config, command)
    try:
        daemon.wait_log("serves on")
        yield daemon
        if daemon.process.poll() is None:
            assert daemon.stop() == 0, daemon.log
    finally:
        daemon.kill()


def pools(**targets: int) -> str:
    """A configuration with these pools and no others."""
    return "".join(
        f"[pools.{spec}]\ntarget = {targets.get(spec, 0)}\nlow_water = {targets.get(spec, 0) // 4}\n"
        for spec in MAKEABLE
    )


def descendants(pid: int) -> list[int]:
    """``pid`` and its children's children, parents first; without those that ended meanwhile."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents[int(entry)] = int(fields[1])
    found = [pid] if pid in parents else []
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


@contextlib.contextmanager
def pidfd(pid: int) -> Iterator[int | None]:
    """A handle that becomes readable when the process has ended; None if it has already."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def wait_gone(pidfds: list[int], timeout_s: float) -> None:
    """Wait for the end of all these processes; fails when one is alive after ``timeout_s`` in all."""
    deadline = time.monotonic() + timeout_s
    waiting = set(pidfds)
    while waiting:
        left = deadline - time.monotonic()
        ended, _, _ = select.select(list(waiting), [], [], max(left, 0))
        assert ended or left > 0, f"{len(waiting)} processes are alive after {timeout_s} s"
        waiting.difference_update(ended)


@contextlib.contextmanager
def cpu_hogs(count: int) -> Iterator[None]:
    """Busy processes of normal priority, in a session of their own."""
    hogs = [
        subprocess.Popen([sys.executable, "-S", "-E", "-c", "while True: pass"], start_new_session=True)
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
