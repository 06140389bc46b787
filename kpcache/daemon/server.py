"""Accepts connections within their caps, and keeps the sessions that are open."""

import errno
import socket
import struct
from collections import Counter

import trio

from kpcache.core.limits import Limits
from kpcache.daemon.dispatcher import Dispatcher
from kpcache.daemon.notices import log
from kpcache.daemon.session import Session
from kpcache.daemon.stock import Stock

# Connections accepted in one go before others get their turn.
_ACCEPTS_PER_TURN = 32
# Out of file descriptors or memory: pause instead of spinning on a listener that stays readable.
_ACCEPT_PAUSE_S = 0.1
_PEERCRED = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)


class Server:
    """All sessions. ``serve`` may run for several listeners."""

    def __init__(self, dispatcher: Dispatcher, stock: Stock, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._stock = stock
        self._limits = limits
        self._sessions: dict[Session, None] = {}  # oldest first
        self._per_uid: Counter[int] = Counter()
        self._idle = trio.Event()
        self.cut = 0  # connections closed to make room

    @property
    def connections(self) -> int:
        return len(self._sessions)

    async def serve(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        """Accept on a non-blocking listening socket until cancelled; sessions run in ``nursery``."""
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(_ACCEPTS_PER_TURN):
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        log.warning("cannot accept a connection: %s; raise LimitNOFILE", error.strerror)
                        self._make_room(self._heaviest_user())
                        await trio.sleep(_ACCEPT_PAUSE_S)
                    break  # else the client left before it was accepted
                self._admit(sock, nursery)
            await trio.lowlevel.checkpoint()

    async def wait_no_answers_owed(self) -> None:
        """Until no session has a request in flight or an answer under way."""
        while any(session.is_busy for session in self._sessions):
            self._idle = trio.Event()
            with trio.move_on_after(0.02):
                await self._idle.wait()

    def cut_all(self) -> None:
        """Close every connection; pairs in unfinished answers are burnt."""
        for session in self._sessions:
            session.scope.cancel()

    def _admit(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        try:
            sock.setblocking(False)
            _, uid, _ = _PEERCRED.unpack(
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
            )
        except OSError:
            sock.close()
            return
        if not self._has_room(uid):
            sock.close()
            return
        session = Session(sock, uid, self._dispatcher, self._stock, self._limits)
        self._sessions[session] = None
        self._per_uid[uid] += 1
        nursery.start_soon(self._run, session)

    def _has_room(self, uid: int) -> bool:
        """Whether one more connection of this user may be kept; at a cap, an older one is cut for it.

        At the cap of all it is one of the user who has the most, or the newcomer's own: nobody can push
        out another user's connections by opening many, or by keeping all of them busy.
        """
        if self._per_uid[uid] >= self._limits.max_connections_per_uid:
            return self._make_room(uid)
        if len(self._sessions) >= self._limits.max_connections:
            return self._make_room(self._heaviest_user()) or self._make_room(uid)
        return True

    def _heaviest_user(self) -> int:
        return max(self._per_uid, key=self._per_uid.__getitem__, default=0)

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        finally:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        if session in self._sessions:
            del self._sessions[session]
            self._per_uid[session.uid] -= 1
            if not self._per_uid[session.uid]:
                del self._per_uid[session.uid]
        self._idle.set()

    def _make_room(self, uid: int) -> bool:
        """Cut the oldest incomplete connection of this user, else the longest idle one."""
        sessions = [session for session in self._sessions if session.uid == uid]
        victim = next((session for session in sessions if session.is_incomplete), None)
        if victim is None:
            quiet = [session for session in sessions if not session.is_busy]
            victim = min(quiet, key=lambda session: session.last_active, default=None)
        if victim is None:
            return False
        victim.scope.cancel()
        self._forget(victim)  # its place is free now; its socket closes at its task's next turn
        self.cut += 1
        return True
