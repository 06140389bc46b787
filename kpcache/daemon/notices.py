"""Log lines: one logger, whose text has been made safe to print.

Anything that comes from outside (a worker's last words, a client's strings) passes ``printable``
first: a line feed or an escape sequence in it could otherwise forge lines or drive a terminal.
"""

import logging
import traceback

from kpcache.daemon.reporter import Reporter

log = logging.getLogger("kpcache")


def printable(text: str, limit: int = 300) -> str:
    """``text`` with everything but printable characters escaped, cut to ``limit`` characters."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)


def log_defect(where: str, error: BaseException) -> None:
    """Report our own bug: its type and where it was raised, never its message or any value.

    A message may quote what it tripped over, which could be key material.
    """
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
