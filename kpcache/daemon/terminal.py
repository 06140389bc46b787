"""The terminal that the daemon was started on, if it was: a SIGHUP without it means to stop, any other to
reload."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio

_PATH: Final = "/dev/tty"  # of each process its own: tty(4)
# The kernel signals the foreground of a session whose leader ends, and takes the terminal away after that
# (disassociate_ctty in drivers/tty/tty_jobctrl.c), when the leader has a CPU again. So whoever was told and
# still finds it looks again, after such pauses.
LOOK_AGAIN_S: Final = (0.05, 0.2, 1.0, 5.0)


class Terminal:
    """Made at the start, while the terminal is there. Under ``nohup`` there is none to lose."""

    def __init__(self) -> None:
        self.is_there = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _opens() is None
        self.hung_up_early = False  # a SIGHUP came while nobody waited for one
        self._hung_up = trio.Event()  # replaced at each use

    @property
    def is_gone(self) -> bool:
        return self.is_there and _opens() in (errno.ENXIO, errno.EIO)

    def look_again(self) -> None:
        """A SIGHUP came, and the terminal is there; ``watch`` must be running."""
        self._hung_up.set()

    async def watch(self, gone: Callable[[], None]) -> None:
        """Call ``gone`` once if that SIGHUP was the first sign that the terminal goes. Until cancelled."""
        while not self.is_gone:
            await self._hung_up.wait()
            self._hung_up = trio.Event()
            for pause_s in LOOK_AGAIN_S:
                await trio.sleep(0 if self.is_gone else pause_s)
        gone()

    @contextmanager
    def early_hangups_noted(self) -> Iterator[None]:
        """Around all of the daemon's life: a SIGHUP before it waits for signals, or when it no longer does,
        would otherwise end the process where it stands. After it none can spoil the exit code."""
        signal.signal(signal.SIGHUP, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _note(self, _number: int, _frame: Any) -> None:
        self.hung_up_early = True


def _opens() -> int | None:
    """None if the controlling terminal can be opened, or the error's number."""
    try:
        os.close(os.open(_PATH, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno
    return None
