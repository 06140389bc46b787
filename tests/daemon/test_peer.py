"""Who is at the other end: uid, pid and cgroup from the kernel, and no more than it tells."""

import fcntl
import os
import socket
from pathlib import Path

import pytest

from kpcache.core.fair_queue import Identity
from kpcache.daemon import peer as peer_module
from kpcache.daemon.peer import peer_of


@pytest.fixture
def pair() -> "tuple[socket.socket, socket.socket]":
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def test_this_process_is_known_by_uid_pid_and_its_own_cgroup(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    with pair[0], pair[1]:
        peer = peer_of(pair[0])
    assert (peer.pid, peer.who.uid) == (os.getpid(), os.getuid())
    kernel = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if kernel < (6, 13):
        assert peer.who.cgroup == 0
    else:
        assert peer.who.cgroup == own_cgroup()


def own_cgroup() -> int:
    """The inode of this process's folder in the cgroup2 tree, which is the kernel's id of it."""
    path = next(
        line[3:].strip()
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    return (root / path.lstrip("/")).stat().st_ino if root else 1


@pytest.mark.parametrize("step", ["getsockopt", "ioctl"])
def test_an_older_kernel_tells_no_cgroup_and_no_descriptor_is_left(
    step: str, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(25, "Inappropriate ioctl for device")

    if step == "ioctl":
        monkeypatch.setattr(fcntl, "ioctl", refuse)
    else:
        monkeypatch.setattr(peer_module, "_SO_PEERPIDFD", 999)
    with pair[0], pair[1]:
        before = len(os.listdir("/proc/self/fd"))
        assert peer_of(pair[0]).who == Identity(os.getuid(), 0)
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_thousand_looks_leave_no_descriptor(pair: tuple[socket.socket, socket.socket]) -> None:
    with pair[0], pair[1]:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(1000):
            peer_of(pair[0])
        assert len(os.listdir("/proc/self/fd")) == before
