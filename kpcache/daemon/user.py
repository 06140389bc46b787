"""One user's connections, in the order in which they make room for newcomers."""

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kpcache.daemon.session import Session

# Connections looked at to find one that can go: some 50 µs, however many there are. The next newcomer's
# search goes on where this one ended.
_LOOKS = 256


class User:
    """At a cap the one goes that has kept a message incomplete for the longest, else the longest idle one.

    A hit costs one move to the end of an ordered dict; a plain dict could not be read from its front as
    cheaply, since it steps over the holes that the moves leave there.
    """

    __slots__ = ("_incomplete", "_sessions", "half_closed", "uid")

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.half_closed = 0  # connections that are kept although their client sends no more
        self._sessions: OrderedDict[Session, None] = OrderedDict()  # the one silent for longest is first
        # By when their messages began. May hold some that are complete meanwhile: no hit pays for that.
        self._incomplete: OrderedDict[Session, None] = OrderedDict()

    @property
    def connections(self) -> int:
        return len(self._sessions)

    def add(self, session: "Session") -> None:
        self._sessions[session] = None

    def remove(self, session: "Session") -> None:
        """Forget the session, if it is known: from now on its notes change nothing."""
        self._sessions.pop(session, None)
        self._incomplete.pop(session, None)

    def note_activity(self, session: "Session") -> None:
        """It has sent something."""
        if session in self._sessions:
            self._sessions.move_to_end(session)

    def note_incomplete(self, session: "Session") -> None:
        """It has begun a message whose rest must still come."""
        if session in self._sessions:
            self._incomplete[session] = None
            self._incomplete.move_to_end(session)

    def first_to_go(self) -> "Session | None":
        """The connection to cut for a newcomer; None if answers are owed to all that were looked at."""
        for _ in range(min(_LOOKS, len(self._incomplete))):
            session = next(iter(self._incomplete))
            if session.is_incomplete:
                return session
            del self._incomplete[session]
        for _ in range(min(_LOOKS, len(self._sessions))):
            session = next(iter(self._sessions))
            if not session.is_busy:
                return session
            self._sessions.move_to_end(session)  # it is being served at this moment: as active as can be
        return None
