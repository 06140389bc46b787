"""For all tests: at the end nothing of ours may be left, or the run fails."""

import gc
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# What ends by itself (a maker whose shard was killed) gets this long to do so.
_GRACE_S = 3.0


def _processes() -> dict[int, tuple[int, int, str]]:
    """pid: (parent, start time in clock ticks since boot, command line)."""
    found: dict[int, tuple[int, int, str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The name in parentheses may hold anything, so what follows is counted from the last one.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it ended meanwhile
            found[int(folder.name)] = int(fields[1]), int(fields[19]), command
    return found


def _lost_processes(since: int) -> set[str]:
    """Our descendants, dead ones not waited for included, and workers that outlived their parent."""
    processes = _processes()
    lost: set[str] = set()
    for pid, (parent, started, command) in processes.items():
        ancestor = parent
        while ancestor in processes and ancestor not in (os.getpid(), 1):
            ancestor = processes[ancestor][0]
        orphan = "kpcache.worker." in command and "python" not in processes.get(parent, (0, 0, ""))[2]
        if ancestor == os.getpid() or (orphan and started >= since):
            lost.add(f"process {pid}: {command or 'ended and not waited for'}")
    return lost


def _open_sockets() -> set[str]:
    sockets = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # the one that lists the folder
        if target.startswith("socket:"):
            sockets.add(target)
    return sockets


def _temporary_files() -> set[str]:
    """What lies directly in the folders for temporary files and bears our name."""
    folders = {Path(tempfile.gettempdir()), Path("/tmp"), Path("/dev/shm"), Path("/run")}
    return {
        str(path)
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.name.startswith("kpcache")
    }


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fails the run if a process, a socket or a temporary file of ours is left at its end."""
    sockets, files = _open_sockets(), _temporary_files()
    since = _processes()[os.getpid()][1]
    yield
    gc.collect()  # a socket that only garbage refers to closes here, with a ResourceWarning of its own
    deadline = time.monotonic() + _GRACE_S
    while (processes := _lost_processes(since)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = processes | (_open_sockets() - sockets) | (_temporary_files() - files)
    assert not left, f"left behind by the tests: {sorted(left)}"
