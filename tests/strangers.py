"""Connections that others make: programs with a user and groups of their own, which hand over their socket.

What the kernel tells a server of such a connection's peer is that program, whoever speaks on the socket.
"""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_PATIENCE_S = 60.0
_CONNECT = """
import os, socket, sys
back, path, uid, gid, groups, ends = sys.argv[1:]
os.setgroups([int(group) for group in groups.split(",") if group])
os.setgid(int(gid))
os.setresuid(-1, int(uid), -1)
sock = socket.socket(socket.AF_UNIX)
sock.connect(path)
os.setresuid(-1, 0, -1)
os.setgroups([])  # what it is later counts for nothing
socket.send_fds(socket.socket(fileno=int(back)), [b"x"], [sock.fileno()])
if ends == "False":
    sys.stdin.read()
"""


@contextlib.contextmanager
def connected_by(
    path: Path | str, uid: int, gid: int = 23450, groups: tuple[int, ...] = (), *, ends: bool = False
) -> Iterator[socket.socket]:
    """The client's end of a connection to ``path`` by a process of this user in these groups. Root only.

    ``ends``: that process has ended, and been waited for, when this is entered. Raises ``PermissionError``
    where the user may not connect.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        command = [sys.executable, "-c", _CONNECT, str(theirs.fileno()), str(path), str(uid), str(gid)]
        with subprocess.Popen(
            [*command, ",".join(map(str, groups)), str(ends)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            cwd="/",
        ) as program:
            theirs.close()
            ours.settimeout(_PATIENCE_S)
            _, (*fds,), _, _ = socket.recv_fds(ours, 1, 1)
            if not fds:
                _, told = program.communicate()
                raise PermissionError(told.decode()) if b"PermissionError" in told else OSError(told.decode())
            with socket.socket(fileno=fds[0]) as sock:
                sock.settimeout(_PATIENCE_S)
                if ends:
                    assert program.wait(_PATIENCE_S) == 0
                yield sock
            program.communicate()
