"""Processes and folders that are gone when the bench is, and what CPU time a process has used.

A process of the bench is ended by its pid, with SIGTERM first; the kernel does the same (SIGTERM) if the
bench itself is killed. Each is in a session of its own, so that Ctrl-C reaches the bench alone and things
end in their order.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
_END_TIMEOUT_S = 15.0
_libc = ctypes.CDLL(None)


class Nest:
    """A temporary folder and the processes started for one part of the bench. Made by ``nest``."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self._stack = stack

    def start(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        log: str,
        environ: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start a program; it is ended with the nest. Its stdout is a pipe, its stderr the file ``log``.

        ``environ``: variables on top of the bench's own."""
        with open(self.folder / log, "ab") as stderr:
            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._stack.callback(_end, process)
        return process

    def start_module(
        self, module: str, *arguments: str, stdin: int | IO[Any] | None = subprocess.DEVNULL
    ) -> "subprocess.Popen[bytes]":
        """Start a Python module of the bench, with this interpreter."""
        return self.start(
            [sys.executable, "-m", module, *arguments], stdin=stdin, log=f"{module.rpartition('.')[2]}.log"
        )

    def complaint(self, log: str) -> str:
        """The end of what a program wrote to its ``log``."""
        return (self.folder / log).read_text(errors="replace")[-2000:].strip()


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextlib.contextmanager
def nest() -> Iterator[Nest]:
    """A nest for the block. At its end all is ended in reverse order and the folder removed."""
    with _uninterrupted_after() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kpcache-bench-"))
        yield Nest(Path(folder), stack)


@contextlib.contextmanager
def _uninterrupted_after() -> Iterator[contextlib.ExitStack]:
    """A stack that unwinds to its end: a second Ctrl-C in its middle would leave processes behind."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stack = contextlib.ExitStack()
    try:
        yield stack
    finally:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)
        stack.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a child and reap it."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    process.terminate()
    process.send_signal(signal.SIGCONT)  # it may be paused, and would not notice
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process's live threads, in nanosecond steps (proc(5), schedstat).

    /proc/PID/stat counts in steps of 10 ms, which is more than some of the processes here use in a
    minute. Raises ``OSError`` when there is no such process.
    """
    tasks = Path(f"/proc/{pid}/task")
    used_ns = [int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()]
    return sum(used_ns) / 1e9
