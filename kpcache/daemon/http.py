"""Accepts HTTP connections, few of them, and keeps those that are open."""

import socket
from typing import Final

import trio

from kpcache.daemon.http_pages import Pages
from kpcache.daemon.http_session import HttpSession, Phase
from kpcache.daemon.notices import log_defect
from kpcache.daemon.shortage import ACCEPT_PAUSE_S, Shortage

# A scraper or two, and probes: each needs one. Their file descriptors are among those that no client gets
# (``descriptors``).
MAX_CONNECTIONS: Final = 32


class HttpServer:
    """All HTTP connections, of one listener or of several."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._sessions: dict[HttpSession, None] = {}  # in the order in which they came
        self._shortage = Shortage()

    @property
    def connections(self) -> int:
        return len(self._sessions)

    async def serve(self, listener: socket.socket) -> None:
        """Accept on a non-blocking listening socket, TCP or Unix, until cancelled, which ends the connections
        as well. A defect ends this alone: applications need pairs, not metrics."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    await trio.lowlevel.wait_readable(listener)
                    try:
                        sock, _ = listener.accept()
                    except BlockingIOError:
                        continue
                    except OSError as error:
                        if self._shortage.is_met(error):
                            self._has_made_room()
                            await trio.sleep(ACCEPT_PAUSE_S)
                        continue  # else the client left before it was accepted
                    self._admit(sock, nursery)
        except* Exception as group:
            log_defect("the HTTP listener, which answers no more", group)

    def _admit(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        """Keep the connection if there is room or can be made."""
        if len(self._sessions) >= MAX_CONNECTIONS and not self._has_made_room():
            sock.close()
            return
        try:
            session = HttpSession(sock, self._pages)
        except OSError:  # the client is gone already
            sock.close()
            return
        self._sessions[session] = None
        nursery.start_soon(self._run, session)

    async def _run(self, session: HttpSession) -> None:
        try:
            await session.run()
        finally:
            self._sessions.pop(session, None)

    def _has_made_room(self) -> bool:
        """Cut the connection that is without a request for longest, finished ones included, or whose client
        takes its answer for longest; none whose answer is being made, since that is our doing."""
        for phase in (Phase.READING, Phase.SENDING):
            victims = (session for session in self._sessions if session.phase is phase)
            victim = min(victims, key=lambda session: session.since, default=None)
            if victim is not None:
                victim.scope.cancel()
                del self._sessions[victim]  # its place is free now; its socket closes at its next turn
                return True
        return False
