"""A listener that cannot accept, since the process or the machine is out of file descriptors or memory."""

import errno
import math
from typing import Final

import trio

from kpcache.daemon.notices import log

# Pause so long instead of spinning on a listener that stays readable.
ACCEPT_PAUSE_S: Final = 0.1
# While that lasts, which can be long, the log gets a line this often.
_LOG_INTERVAL_S: Final = 60.0


class Shortage:
    """Knows one and logs it."""

    def __init__(self) -> None:
        self._logged = -math.inf
        self._unlogged = 0

    def is_met(self, error: OSError) -> bool:
        """Whether that is why accepting failed. Else the client left before it was accepted."""
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            return False
        now = trio.current_time()
        if now - self._logged < _LOG_INTERVAL_S:
            self._unlogged += 1
            return True
        before = f" ({self._unlogged} times more since last logged)" if self._unlogged else ""
        log.warning("cannot accept a connection: %s; raise LimitNOFILE%s", error.strerror, before)
        self._logged, self._unlogged = now, 0
        return True
