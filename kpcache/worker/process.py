"""What a worker does to itself at its start, and how one is started. Linux only.

Each function that asks the kernel for something says what happens when the kernel refuses.
"""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Final

# <linux/prctl.h>
_PR_SET_PDEATHSIG: Final = 1
_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15

_libc: Final = ctypes.CDLL(None, use_errno=True)


class StartError(Exception):
    """This worker cannot run here; the message says why and what would help. It exits with 3."""


EXIT_CANNOT_START: Final = 3


def command(module: str) -> list[str]:
    """How to start the worker program ``module``: this interpreter, with the current folder off its path."""
    return [sys.executable, "-P", "-m", module]


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """All that a worker gets of the environment: a UTF-8 locale, and the allocator's settings, if any.

    The allocator's have freed memory overwritten (``wiping``); everything else could only change what code
    a worker loads or what it writes.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if name.startswith("MALLOC_") or name in ("PYTHONMALLOC", "GLIBC_TUNABLES")
    }
    return {"LANG": "C.UTF-8", **kept}


def protect(name: str) -> None:
    """No core files, no reading of this process by others of its uid, a name for ``ps`` (at most 15 bytes).

    Raises ``StartError`` when the kernel refuses: a worker that can be read must not hold keys.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # RLIMIT_CORE does not bind a core_pattern that is a pipe; not being dumpable does, and it also gives
    # /proc/PID to root and refuses ptrace.
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NAME, name.encode())


def is_dumpable() -> bool:
    """Whether a core file of this process can be written, and others of its uid can read it."""
    unused = ctypes.c_ulong(0)
    return bool(_libc.prctl(ctypes.c_int(_PR_GET_DUMPABLE), unused, unused, unused, unused))


def die_with_parent(pipe: socket.socket) -> None:
    """Have the kernel kill this process when the one at the other end of ``pipe``, its parent, dies.

    The parent may have died before this call, and the signal would never come: so it is looked for
    again. ``SO_PEERCRED`` of a socket pair names the process that made the pair. Raises ``StartError``.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent, _, _ = struct.unpack("3i", pipe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if os.getppid() != parent:
        raise StartError("the process that started this one is gone")


def _prctl(option: int, value: int | bytes) -> None:
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if _libc.prctl(ctypes.c_int(option), argument, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise StartError(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")


def spawn(module: str, stdin: int, stderr: int) -> int:
    """Start a worker program in a session of its own and return its pid; the caller reaps it.

    It gets ``stdin`` and ``stderr`` as those, /dev/null as its output, the scrubbed environment and the
    caller's current folder. SIGTERM has its default effect in it again. Raises ``OSError``.
    """
    return os.posix_spawn(
        sys.executable,
        command(module),
        environment(os.environ),
        file_actions=[
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGTERM],
    )


def kill(pid: int) -> None:
    """SIGKILL for a child not yet reaped, out of the idle class first: it dies only when it runs.

    Leaving the idle class needs root or ``RLIMIT_NICE`` >= 20 (sched(7)); without, the kill takes its turn.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
    os.kill(pid, signal.SIGKILL)
