"""What the rules of access refused, in the log: of each user one line a minute, however many it were."""

from collections.abc import Callable
from typing import Final

import trio

from kpcache.daemon.notices import log
from kpcache.daemon.peer import Peer

_INTERVAL_S: Final = 60.0
# So many users have lines of their own at once; the others share some, so that nobody who can be many users
# fills the log, or this memory.
_MAX_USERS: Final = 256
_OTHERS: Final = -1


class AccessLog:
    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        """``clock`` in monotonic seconds."""
        self._clock = clock
        self._logged: dict[int, float] = {}  # by uid, the last line's time; the oldest one first
        self._unlogged: dict[int, int] = {}  # and what was refused since

    def refused(self, peer: Peer, what: str) -> None:
        """``what`` must be safe to show."""
        now = self._clock()
        uid = self._line_of(peer.who.uid, now)
        if uid in self._logged and now - self._logged[uid] < _INTERVAL_S:
            self._unlogged[uid] = self._unlogged.get(uid, 0) + 1
            return
        self._logged.pop(uid, None)
        self._logged[uid] = now
        more = self._unlogged.pop(uid, 0)
        log.info(
            "no [[access]] rule for %s: %s%s",
            peer,
            what,
            f" ({more} refusals more since last logged)" if more else "",
        )

    def _line_of(self, uid: int, now: float) -> int:
        if uid in self._logged or len(self._logged) < _MAX_USERS:
            return uid
        oldest = next(iter(self._logged))
        if now - self._logged[oldest] < _INTERVAL_S:
            return _OTHERS
        del self._logged[oldest]
        self._unlogged.pop(oldest, None)
        return uid
