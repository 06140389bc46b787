"""One HTTP connection: h11 reads and writes the protocol, this moves its bytes and keeps the deadlines."""

import socket
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from typing import Final

import h11
import trio

from kpcache.daemon.http_pages import Answer, Pages, line
from kpcache.daemon.notices import log_defect

# The head of a request: a scraper's has some 300 bytes on 6 lines, a browser's with cookies some thousands.
# h11 takes 1 µs for each line, all in one go: a megabyte of empty headers would keep the loop from everybody.
_MAX_HEAD_BYTES: Final = 8192
_MAX_HEAD_LINES: Final = 64
_READ_BYTES: Final = 4096

# From a request's first byte to the end of its head; and from the connection to the first byte.
HEAD_TIMEOUT_S: Final = 5.0
# Between requests: more than the usual minute between two scrapes.
IDLE_TIMEOUT_S: Final = 90.0
# To make an answer, and again to have it taken; scrapers give up after ten seconds by default.
ANSWER_TIMEOUT_S: Final = 10.0
# After the last answer, for what the client still sends: with bytes unread, the kernel would answer it by a
# reset, at which clients throw away what they have not read (RFC 9112, section 9.6).
_LINGER_S: Final = 1.0
_LINGER_READS: Final = 64


class Phase(Enum):
    READING = "reading"
    ANSWERING = "answering"
    SENDING = "sending"


class _UnwantedError(Exception):
    """The request is refused with this answer, and the connection ends."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class HttpSession:
    """Owns ``sock``, a connected socket, and closes it at the end of ``run``. One request is under way at a
    time: what a client sends ahead waits in the kernel and in one small buffer."""

    def __init__(self, sock: socket.socket, pages: Pages) -> None:
        self.scope = trio.CancelScope()  # cancel it to cut the connection
        self.phase = Phase.READING
        self.since = trio.current_time()  # when the phase began
        self._address = sock.getsockname()[0] if sock.family != socket.AF_UNIX else ""
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._pages = pages
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)

    async def run(self) -> None:
        """Answer until the client leaves, is too slow, misbehaves or is cut; only a cancellation from outside
        is raised."""
        try:
            with self.scope:
                await self._serve()
        except trio.BrokenResourceError:
            pass  # the client is gone
        except Exception as error:
            log_defect("an HTTP connection", error)  # whose fault must not take the daemon down
        finally:
            self._stream.socket.close()

    async def _serve(self) -> None:
        self._enter(Phase.READING, HEAD_TIMEOUT_S)
        try:
            while (request := await self._next_request()) is not None:
                self._enter(Phase.ANSWERING, ANSWER_TIMEOUT_S)
                answer = await self._pages.answer(
                    request.method, request.target, _host_of(request), self._address
                )
                await self._send(answer, with_body=request.method != b"HEAD")
                if self._http.our_state is h11.MUST_CLOSE:
                    break
                self._http.start_next_cycle()
                has_begun = bool(self._http.trailing_data[0])
                self._enter(Phase.READING, HEAD_TIMEOUT_S if has_begun else IDLE_TIMEOUT_S)
            else:
                return
        except _UnwantedError as unwanted:
            await self._send(unwanted.answer, close=True)
        except h11.RemoteProtocolError as error:
            if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                return
            await self._send(line(error.error_status_hint, f"no good HTTP request: {error}"), close=True)
        await self._linger()

    def _enter(self, phase: Phase, timeout_s: float) -> None:
        self.phase = phase
        self.since = trio.current_time()
        self.scope.deadline = self.since + timeout_s

    async def _next_request(self) -> h11.Request | None:
        """None at the end of the stream. Raises ``_UnwantedError`` or ``h11.RemoteProtocolError``."""
        http = self._http
        while True:
            begun = http.trailing_data[0]
            if begun.partition(b"\r\n\r\n")[0].count(b"\n") > _MAX_HEAD_LINES:
                raise _UnwantedError(line(431, f"more than {_MAX_HEAD_LINES} header lines"))
            event = http.next_event()
            if isinstance(event, h11.Request):
                _require_known_form(event)
                http.next_event()  # the end of the request, which h11 tells apart from its head
                return event
            if event is not h11.NEED_DATA:
                return None
            data = await self._stream.receive_some(_READ_BYTES)
            if data and not begun:
                self.scope.deadline = trio.current_time() + HEAD_TIMEOUT_S
            http.receive_data(data)

    async def _send(self, answer: Answer, *, with_body: bool = True, close: bool = False) -> None:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", answer.content_type),
            ("Content-Length", str(answer.content_length)),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if answer.allow:
            headers.append(("Allow", answer.allow))
        if close:
            headers.append(("Connection", "close"))
        self._enter(Phase.SENDING, ANSWER_TIMEOUT_S)
        http = self._http
        reason = HTTPStatus(answer.status).phrase
        head = h11.Response(status_code=answer.status, reason=reason, headers=headers)
        await self._stream.send_all(http.send(head) or b"")
        for block in answer.blocks if with_body else ():
            await self._stream.send_all(http.send(h11.Data(data=block)) or b"")
        http.send(h11.EndOfMessage())

    async def _linger(self) -> None:
        self._enter(Phase.READING, _LINGER_S)
        await self._stream.send_eof()
        for _ in range(_LINGER_READS):
            if not await self._stream.receive_some(_READ_BYTES):
                return


def _host_of(request: h11.Request) -> str:
    """The Host header; empty where there is none, which h11 lets HTTP/1.0 alone do without."""
    return next((value.decode("ascii", "replace") for name, value in request.headers if name == b"host"), "")


def _require_known_form(request: h11.Request) -> None:
    if request.http_version not in (b"1.0", b"1.1"):
        raise _UnwantedError(line(505, "HTTP/1.1 is spoken here"))
    for name, value in request.headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            raise _UnwantedError(line(413, "a request has no body here"))
