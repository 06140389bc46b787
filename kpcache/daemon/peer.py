"""Who is at the other end of a Unix socket, as it was when they connected."""

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
from typing import Final, NamedTuple

from kpcache.core.access import OVERFLOW_ID, Asker, asker_of
from kpcache.core.fair_queue import Identity

_libc: Final = ctypes.CDLL(None, use_errno=True)

_PEERCRED: Final = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)
# include/uapi/asm-generic/socket.h and include/uapi/linux/pidfd.h: the peer's supplementary groups (Linux
# 4.13), a descriptor of its process (6.5), and what can be asked of that (6.13). By number, since Python has
# no names for them.
_SO_PEERGROUPS: Final = 59
_SO_PEERPIDFD: Final = 77
_PIDFD_GET_INFO: Final = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info), whose first version has 64 bytes
_INFO: Final = struct.Struct("=2Q")  # the mask of what is wanted and was given; the cgroup's id
_INFO_BYTES: Final = 64
_WANT_CGROUP: Final = 1 << 2


# A user has fewer, as a rule; where not, the kernel says how many there are.
_USUAL_GROUPS: Final = 64
# A kernel that gives no descriptor of a peer at all: then nothing is known of its process.
_UNTOLD: Final = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)


class Peer(NamedTuple):
    """``who`` is what requests are counted for; ``pid`` is for the log only: pids are used again.

    ``gids``: the primary group and the supplementary ones. ``has_ended``: the process that connected is no
    more, or cannot be looked at, so whoever holds its socket now is not known. On kernels before 6.5, which
    do not tell, it is always false, and the credentials alone count.
    """

    pid: int
    who: Identity
    gid: int
    gids: frozenset[int]
    has_ended: bool

    @property
    def asker(self) -> Asker:
        """Who that is to the rules of access."""
        return asker_of(self.who.uid, self.pid, self.gids)

    def __str__(self) -> str:
        return named(self.who.uid, self.pid)


# Whoever it is: to the rules of access, one of those of whom nothing is known.
UNKNOWN: Final = Peer(0, Identity(OVERFLOW_ID), OVERFLOW_ID, frozenset(), has_ended=False)


def named(uid: int, pid: int) -> str:
    """For the log. Nobody's uid and pid 0 stand for what another namespace has: they name no one."""
    return f"uid {'unknown' if uid == OVERFLOW_ID else uid}, pid {pid or 'unknown'}"


def peer_of(sock: socket.socket) -> Peer:
    """The peer's credentials, groups and cgroup; the cgroup is 0 where the kernel does not tell it.

    By a descriptor of the process, not by its pid, which may mean another one by now. A peer that has ended
    has no cgroup any more. Raises ``OSError``.
    """
    pid, uid, gid = _PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    cgroup, has_ended = _process(sock)
    return Peer(pid, Identity(uid, cgroup), gid, _groups(sock) | {gid}, has_ended)


def _groups(sock: socket.socket) -> frozenset[int]:
    """The supplementary groups. By the C library, since Python reads 1024 bytes, 256 groups, at most."""
    count = _USUAL_GROUPS
    while True:
        groups = (ctypes.c_uint32 * count)()
        size = ctypes.c_uint32(ctypes.sizeof(groups))
        result = _libc.getsockopt(
            ctypes.c_int(sock.fileno()), ctypes.c_int(socket.SOL_SOCKET), ctypes.c_int(_SO_PEERGROUPS),
            groups, ctypes.byref(size),
        )  # fmt: skip
        needed = size.value // ctypes.sizeof(ctypes.c_uint32)
        if result == 0:
            return frozenset(groups[:needed])
        number = ctypes.get_errno()
        if number != errno.ERANGE or needed <= count:
            raise OSError(number, os.strerror(number))
        count = needed


def _process(sock: socket.socket) -> tuple[int, bool]:
    """Its cgroup, and whether it has ended."""
    try:
        process = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        return 0, error.errno not in _UNTOLD  # before 6.16 there is none of a process that has ended
    try:
        return _cgroup(process), _has_ended(process)
    finally:
        os.close(process)


def _has_ended(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))


def _cgroup(process: int) -> int:
    info = bytearray(_INFO_BYTES)
    _INFO.pack_into(info, 0, _WANT_CGROUP, 0)
    try:
        fcntl.ioctl(process, _PIDFD_GET_INFO, info)
    except OSError:
        return 0
    given, cgroup = _INFO.unpack_from(info)
    return cgroup if given & _WANT_CGROUP else 0
