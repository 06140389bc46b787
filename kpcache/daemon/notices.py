"""Log lines: one logger, whose text has been made safe to print.

Anything that comes from outside (a worker's last words, a client's strings) passes ``printable``
first: a line feed or an escape sequence in it could otherwise forge lines or drive a terminal.
"""

import logging
import queue
import threading
import traceback
from collections.abc import Callable
from typing import Any

from kpcache.core.text import printable
from kpcache.daemon.reporter import Reporter

log = logging.getLogger("kpcache")

# Lines that wait for a log that does not take them; a line has at most 1000 characters.
MAX_UNWRITTEN = 1000


def log_defect(where: str, error: BaseException) -> None:
    """Report our own bug: its type and where it was raised, never its message or any value.

    A message may quote what it tripped over, which could be key material. Of a group, each is reported.
    """
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            log_defect(where, each)
        return
    frames = traceback.extract_tb(error.__traceback__)
    path = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-6:]))
    log.error("defect in %s: %s at %s", where, type(error).__name__, path)


class ReporterHandler(logging.Handler):
    """Sends log records to the reporter, so that a live display and the log do not overwrite each other."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.notice(printable(record.getMessage(), 1000))


class UnhurriedReporter:
    """A reporter for the loop: passes each call to another reporter, in a thread of its own.

    A terminal that was stopped with Ctrl-S, or a log reader that hangs, blocks whoever writes to it; no
    client may wait for that. What does not fit the queue meanwhile, and what the other reporter fails at,
    is counted and told later.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        # Each call with the number of lines that are lost if it fails.
        self._calls: queue.SimpleQueue[tuple[int, Callable[[], None]] | None] = queue.SimpleQueue()
        self._lost = 0
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """Let what was said be written, for so long."""
        self._tell_lost()
        self._calls.put(None)
        self._thread.join(timeout_s)

    def serving(self, status: dict[str, Any], *, socket: str, state_dir: str) -> None:
        self._pass(lambda: self._reporter.serving(status, socket=socket, state_dir=state_dir))

    def progress(self, status: dict[str, Any]) -> None:
        self._pass(lambda: self._reporter.progress(status))

    def full(self, status: dict[str, Any]) -> None:
        self._pass(lambda: self._reporter.full(status))

    def notice(self, text: str) -> None:
        self._pass(lambda: self._reporter.notice(text))

    def stopping(self) -> None:
        self._pass(self._reporter.stopping)

    def _pass(self, call: Callable[[], None]) -> None:
        if self._calls.qsize() >= MAX_UNWRITTEN:
            self._count_lost(1)
            return
        self._tell_lost()
        self._calls.put((1, call))

    def _count_lost(self, lines: int) -> None:
        with self._counting:
            self._lost += lines

    def _tell_lost(self) -> None:
        with self._counting:
            lost, self._lost = self._lost, 0
        if lost:
            told = f"{lost} lines were lost: the log did not take them"
            self._calls.put((lost, lambda: self._reporter.notice(told)))

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            lines, call = item
            try:
                call()
            except Exception:  # whatever the defect, it must not end this thread: the log would be mute
                self._count_lost(lines)
