"""Who is at the other end of a Unix socket, as it was when they connected."""

import fcntl
import os
import socket
import struct
from typing import Final, NamedTuple

from kpcache.core.fair_queue import Identity

_PEERCRED: Final = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)
# include/uapi/asm-generic/socket.h and include/uapi/linux/pidfd.h: a descriptor of the peer's process
# (Linux 6.5), and what can be asked of it (6.13). By number, since Python has no names for them.
_SO_PEERPIDFD: Final = 77
_PIDFD_GET_INFO: Final = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info), whose first version has 64 bytes
_INFO: Final = struct.Struct("=2Q")  # the mask of what is wanted and was given; the cgroup's id
_INFO_BYTES: Final = 64
_WANT_CGROUP: Final = 1 << 2


class Peer(NamedTuple):
    """``who`` is what requests are counted for; ``pid`` is for the log only: pids are used again."""

    pid: int
    who: Identity


def peer_of(sock: socket.socket) -> Peer:
    """The peer's uid, pid and cgroup; the cgroup is 0 where the kernel does not tell it.

    By a descriptor of the process, not by its pid, which may mean another one by now. A peer that has ended
    has no cgroup any more. Raises ``OSError``.
    """
    pid, uid, _ = _PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    return Peer(pid, Identity(uid, _cgroup(sock)))


def _cgroup(sock: socket.socket) -> int:
    try:
        process = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        return 0  # an older kernel, or nobody there any more
    try:
        info = bytearray(_INFO_BYTES)
        _INFO.pack_into(info, 0, _WANT_CGROUP, 0)
        fcntl.ioctl(process, _PIDFD_GET_INFO, info)
        given, cgroup = _INFO.unpack_from(info)
        return cgroup if given & _WANT_CGROUP else 0
    except OSError:
        return 0
    finally:
        os.close(process)
