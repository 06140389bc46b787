"""Accepts connections within their caps, and keeps the sessions that are open."""

import functools
import socket

import trio

from kpcache.core.limits import Limits
from kpcache.daemon.access import Visitor
from kpcache.daemon.administrator import Administrator, Caller
from kpcache.daemon.dispatcher import Dispatcher
from kpcache.daemon.notices import log
from kpcache.daemon.peer import peer_of
from kpcache.daemon.session import Session
from kpcache.daemon.shortage import ACCEPT_PAUSE_S, Shortage
from kpcache.daemon.stock import Stock
from kpcache.daemon.user import User

# Connections accepted in one go before others get their turn.
_ACCEPTS_PER_TURN = 32
# As many of these does one cost at a cap, where room must be found and another connection cut.
_COST_AT_A_CAP = 8
# Connections of administrators at once. They are counted apart, so that clients who fill their own caps keep
# no administrator out; their file descriptors are among those that no client gets (main's _OWN_FDS).
_MAX_ADMINISTRATORS = 32


class Server:
    """All sessions. ``serve`` may run for several listeners."""

    def __init__(self, dispatcher: Dispatcher, stock: Stock, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._stock = stock
        self._limits = limits
        self._sessions: dict[Session, None] = {}
        self._users: dict[int, User] = {}  # those who have a connection
        self._administrators = User(-1)  # all of them as one, beside those: no real uid is negative
        self._idle = trio.Event()
        self._cut = 0  # connections closed to make room
        self._shortage = Shortage()

    @property
    def connections(self) -> int:
        return len(self._sessions)

    def clients(self) -> dict[str, int]:
        """What clients did that an operator may want to know of, as counts since the start."""
        return {"cut": self._cut, "notifications": self._dispatcher.notifications}

    async def serve(
        self, listener: socket.socket, nursery: trio.Nursery, administrator: Administrator | None = None
    ) -> None:
        """Accept on a non-blocking listening socket until cancelled; sessions run in ``nursery``.

        ``administrator``: answers them, if this is the socket for administration.
        """
        while True:
            await trio.lowlevel.wait_readable(listener)
            spent = 0
            while spent < _ACCEPTS_PER_TURN:
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if self._shortage.is_met(error):
                        self._make_room(self._heaviest_user())
                        await trio.sleep(ACCEPT_PAUSE_S)
                    break  # else the client left before it was accepted
                spent += self._admit(sock, nursery, administrator)
            await trio.lowlevel.checkpoint()

    def cut_unread(self) -> None:
        """Cut the connections of clients who have not read an answer with a pair in it: it is burnt."""
        for session in self._sessions:
            if session.owes_pairs:
                session.scope.cancel()

    async def wait_no_answers_owed(self) -> None:
        """Until no session has a request in flight or an answer under way."""
        while any(session.is_busy for session in self._sessions):
            self._idle = trio.Event()
            with trio.move_on_after(0.02):
                await self._idle.wait()

    def _admit(self, sock: socket.socket, nursery: trio.Nursery, administrator: Administrator | None) -> int:
        """Keep the connection if there is room or can be made. Returns how much of a turn that took."""
        try:
            sock.setblocking(False)
            peer = peer_of(sock)
        except OSError:
            sock.close()
            return 1
        who, uid = peer.who, peer.who.uid
        user = self._administrators if administrator else self._users.get(uid) or User(uid)
        is_at_a_cap = self._is_at_a_cap(user)
        if is_at_a_cap and not self._has_made_room_for(user):
            sock.close()
            return _COST_AT_A_CAP
        if administrator is None:
            visitor = Visitor(peer)
            session = Session(sock, user, who, self._dispatcher, self._stock, self._limits, visitor=visitor)
            self._users[uid] = user
        else:
            visitor = Visitor(peer, is_administrator=True)
            begin = functools.partial(administrator.begin, Caller(uid, peer.pid))
            session = Session(
                sock, user, who, self._dispatcher, self._stock, administrator.limits, begin, visitor
            )
        log.debug("a connection of %s: one of %d", peer, len(self._sessions) + 1)
        self._sessions[session] = None
        user.add(session)
        nursery.start_soon(self._run, session)
        return _COST_AT_A_CAP if is_at_a_cap else 1

    def _is_at_a_cap(self, user: User) -> bool:
        if user is self._administrators:
            return user.connections >= _MAX_ADMINISTRATORS
        limits, clients = self._limits, len(self._sessions) - self._administrators.connections
        return user.connections >= limits.max_connections_per_uid or clients >= limits.max_connections

    def _has_made_room_for(self, user: User) -> bool:
        """At a cap: whether an older connection could be cut for a new one of this user.

        At the cap of all it is one of the user who has the most, or the newcomer's own: nobody can push
        out another user's connections by opening many, or by keeping all of them busy.
        """
        if user is self._administrators or user.connections >= self._limits.max_connections_per_uid:
            return self._make_room(user)
        return self._make_room(self._heaviest_user()) or self._make_room(user)

    def _heaviest_user(self) -> User | None:
        return max(self._users.values(), key=lambda user: user.connections, default=None)

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        finally:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        if session in self._sessions:
            del self._sessions[session]
            session.user.remove(session)
            if not session.user.connections:
                self._users.pop(session.user.uid, None)  # administrators are not among them
        self._idle.set()

    def _make_room(self, user: User | None) -> bool:
        """Cut one connection of this user, if there is one to which no answer is owed."""
        victim = user.first_to_go() if user is not None else None
        if victim is None:
            return False
        victim.scope.cancel()
        self._forget(victim)  # its place is free now; its socket closes at its task's next turn
        self._cut += 1
        return True
