"""The end of a stop that does not end: beneath a thread that waits for a disk that hangs, which nothing can
cancel.

What is left behind does no harm. Nothing that waits for that disk was acknowledged, so that no pair of it is
held and no change was answered; the workers end as their pipes close. The process goes by ``_exit``, and
gives up neither the state folder's lock nor SQLite's before: while the kernel may still write for a thread
of it, it has both, and no other daemon can come between.
"""

import os
import threading
from collections.abc import Callable
from typing import Final

from kpcache.daemon.notices import log

EXIT_CODE: Final = 1


class Leaving:
    """The last deadline of a stop. ``flush`` has the log written, within bounds."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._timer: threading.Timer | None = None

    def within(self, timeout_s: float) -> None:
        """Leave after so long, whatever still goes on then."""
        # A thread and not a task: the loop itself may hang, as it closes the ledger.
        self._timer = threading.Timer(timeout_s, self._leave, [timeout_s])
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """All has ended in time."""
        if self._timer is not None:
            self._timer.cancel()

    def _leave(self, timeout_s: float) -> None:
        log.critical(
            "the stop has not ended within %g s: the disk of daemon.state_dir hangs, as it seems. What waits "
            "for it is left; no pair of it was held, and no change of the keyring answered", timeout_s,
        )  # fmt: skip
        self._flush()
        os._exit(EXIT_CODE)
