"""Who is at the other end: uid, pid and cgroup from the kernel, and no more than it tells."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kpcache.core.fair_queue import Identity
from kpcache.daemon import peer as peer_module
from kpcache.daemon.peer import Peer, peer_of
from tests.strangers import connected_by

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can choose its groups")


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
        peer = peer_of(pair[0])
        assert (peer.who, peer.has_ended) == (Identity(os.getuid(), 0), False)
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_thousand_looks_leave_no_descriptor(pair: tuple[socket.socket, socket.socket]) -> None:
    with pair[0], pair[1]:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(1000):
            peer_of(pair[0])
        assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def accepted(folder: Path, groups: tuple[int, ...], *, ends: bool = False) -> Iterator[socket.socket]:
    """The server's end of a connection by a process in these groups; ``ends``: that process has ended."""
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with connected_by(path, 0, 5, groups, ends=ends):
            sock, _ = listener.accept()
            with sock:
                yield sock


@needs_root
@pytest.mark.parametrize("groups", [(), (7,), tuple(range(1000, 1064)), tuple(range(1000, 1300))], ids=len)
def test_groups_are_those_of_the_moment_of_connecting_however_many(
    tmp_path: Path, groups: tuple[int, ...]
) -> None:
    with accepted(tmp_path, groups) as sock:
        peer = peer_of(sock)
    assert (peer.gid, peer.gids, peer.has_ended) == (5, frozenset({5, *groups}), False)
    assert peer.asker == (0, peer.gids)


@needs_root
def test_a_process_that_has_ended_is_seen_though_another_holds_its_socket(tmp_path: Path) -> None:
    kernel = tuple(int(part) for part in os.uname().release.split(".")[:2])
    with accepted(tmp_path, (7,), ends=True) as sock:
        peer = peer_of(sock)
        assert peer.has_ended is (kernel >= (6, 5))
        assert (peer.who.uid, peer.gids) == (0, frozenset({5, 7}))


@pytest.mark.parametrize(
    ("number", "has_ended"),
    [(errno.ENOPROTOOPT, False), (errno.EINVAL, True), (errno.ESRCH, True), (errno.EMFILE, True)],
)
def test_a_process_that_cannot_be_looked_at_counts_as_ended_but_on_kernels_that_never_tell(
    number: int, has_ended: bool, pair: tuple[socket.socket, socket.socket]
) -> None:
    class Untold(socket.socket):
        def getsockopt(self, level: int, option: int, *size: int) -> Any:
            if option == 77:
                raise OSError(number, os.strerror(number))
            return super().getsockopt(level, option, *size)

    with Untold(fileno=pair[0].detach()) as sock, pair[1]:
        assert peer_of(sock).has_ended is has_ended


def test_a_kernel_that_tells_no_groups_is_an_error(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "_SO_PEERGROUPS", 999)
    with pair[0], pair[1], pytest.raises(OSError, match="Protocol not available"):
        peer_of(pair[0])


def test_strangers_of_other_namespaces_name_no_one() -> None:
    assert [str(Peer(pid, Identity(uid), 5, frozenset(), False)) for uid, pid in ((65534, 3), (4, 0))] == [
        "uid unknown, pid 3", "uid 4, pid unknown",
    ]  # fmt: skip
