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
from typing import Final, Literal, cast, get_args

Scheduling = Literal["idle", "batch", "normal"]

# <linux/prctl.h>
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15

_libc: Final = ctypes.CDLL(None, use_errno=True)
_AUTOGROUP_LOWEST: Final = b"19"


class StartError(Exception):
    """This worker cannot run here; the message says why and what would help. It exits with 3."""


EXIT_CANNOT_START: Final = 3


def command(module: str) -> list[str]:
    """How to start the worker program ``module``: this interpreter, with the current folder off its path."""
    return [sys.executable, "-P", "-m", module]


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """All that a worker gets of the environment: a UTF-8 locale, and the allocator's settings, if any.

    The allocator's may be set by an operator to overwrite freed memory; everything else could only
    change what code a worker loads or what it writes.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if name.startswith("MALLOC_") or name == "PYTHONMALLOC"
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


def die_with_parent(pipe: socket.socket) -> None:
    """Have the kernel kill this process when the one at the other end of ``pipe``, its parent, dies.

    The parent may have died before this call, and the signal would never come: so it is looked for
    again. ``SO_PEERCRED`` of a socket pair names the process that made the pair. Raises ``StartError``.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent, _, _ = struct.unpack("3i", pipe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if os.getppid() != parent:
        raise StartError("the shard that started this maker is gone")


def _prctl(option: int, value: int | bytes) -> None:
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if _libc.prctl(ctypes.c_int(option), argument, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise StartError(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")


def parse_scheduling(value: object) -> Scheduling:
    """``value`` if it names a scheduling class. Raises ``StartError``."""
    if value not in get_args(Scheduling):
        raise StartError("the scheduling class is none of idle, batch, normal")
    return cast(Scheduling, value)


class Background:
    """How this process steps back behind all others, once it has started up.

    The idle class (SCHED_IDLE, sched(7)) yields at once to whoever else wants the CPU, but only inside
    one scheduling group. With sched_autogroup every session is a group, and groups share a CPU evenly
    whatever the classes inside them: measured on 2 cores with 4 busy processes in another session,
    makers of the idle class took half of both CPUs, in the daemon's session as in one of their own. So a
    maker leads a session of its own and sets that group to nice 19: then the busy processes kept 97 %,
    in the daemon's session or another. It also dies faster: SIGKILL waits until its target runs, which
    took 1.3 s in the idle class beside busy processes of the same session and 0.1 s in such a group.
    Where autogrouping is off or a cgroup has a CPU weight, the file is missing or has no effect.
    """

    def __init__(self) -> None:
        """Create it before ``protect``: after that /proc/self belongs to root, and only root may open it."""
        self._autogroup: int | None = None
        with contextlib.suppress(OSError):  # autogrouping is not compiled in, or /proc is read-only
            self._autogroup = os.open("/proc/self/autogroup", os.O_WRONLY | os.O_CLOEXEC)

    def enter(self, scheduling: Scheduling) -> None:
        """Enter the class; only ``idle`` also lowers the autogroup.

        A kernel that refuses leaves the process where it was, which costs others CPU and nothing else.
        """
        policy = {"idle": os.SCHED_IDLE, "batch": os.SCHED_BATCH}.get(scheduling)
        if policy is not None:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, policy, os.sched_param(0))
        if scheduling != "idle":
            self._close()
        self.settle()

    def settle(self) -> None:
        """Lower the autogroup if that is still to do. Call before each key.

        Without CAP_SYS_ADMIN the kernel takes one such change every 0.1 s on the whole machine and
        answers others with EAGAIN (kernel/sched/autogroup.c), so makers started together must ask again.
        """
        if self._autogroup is None:
            return
        try:
            os.write(self._autogroup, _AUTOGROUP_LOWEST)
        except BlockingIOError:
            return
        except OSError:
            pass  # autogrouping is switched off: nothing to lower
        self._close()

    def _close(self) -> None:
        if self._autogroup is not None:
            os.close(self._autogroup)
            self._autogroup = None


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
