"""The HTTP server keeps its promises to scrapers whatever others send, and harms nobody else."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import GaugeMetricFamily, Metric

from kpcache.daemon.dispatcher import Gate
from kpcache.daemon.exposition import Exposition
from kpcache.daemon.http import MAX_CONNECTIONS, HttpServer
from kpcache.daemon.http_pages import Answer, Pages, Readiness
from kpcache.daemon.http_session import ANSWER_TIMEOUT_S, HEAD_TIMEOUT_S, IDLE_TIMEOUT_S
from tests.fakes import mock_clock

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
GONE = (trio.BrokenResourceError, EOFError)


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """The client's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, path: str = "/livez", method: str = "GET", **headers: str) -> Response:
        names = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
        await self.send(self._http.send(h11.Request(method=method, target=path, headers=list(names.items()))))
        await self.send(self._http.send(h11.EndOfMessage()))
        response = await self.answer()
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return response

    async def send(self, data: bytes | None) -> None:
        await self.stream.send_all(data or b"")

    async def answer(self) -> Response:
        """To a request that h11 knows of; raises ``EOFError`` when there is none any more."""
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self.stream.receive_some(65536)
                if not data and head is None:
                    raise EOFError
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                assert head is not None
                headers = {name.decode(): value.decode() for name, value in head.headers}
                return Response(head.status_code, headers, bytes(body))

    async def rest(self) -> bytes:
        """All that comes until the end of the stream."""
        data = b""
        async for some in self.stream:
            data += some
        return data

    async def is_cut(self) -> bool:
        """Wait for the end of the stream; False if something comes instead."""
        try:
            return not await self.stream.receive_some(1)
        except trio.BrokenResourceError:
            return True

    async def lives(self) -> bool:
        try:
            return (await self.ask()).status == 200
        except GONE:
            return False


@dataclass
class Running:
    server: HttpServer
    gate: Gate
    listener: socket.socket
    clients: list[Client] = field(default_factory=list)

    async def connect(self, receive_bytes: int = 0) -> Client:
        """A connection that the server has accepted."""
        sock = socket.socket(self.listener.family)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.connect(self.listener.getsockname())
        self.clients.append(Client(sock))
        await trio.testing.wait_all_tasks_blocked()
        return self.clients[-1]


def families(size: int = 1) -> Iterator[Metric]:
    for number in range(size):
        yield GaugeMetricFamily(f"kpcache_{number}", "Help.", number)


class LargePages(Pages):
    """The metrics are more than a socket takes by itself."""

    def __init__(self) -> None:
        super().__init__(Exposition(families), Readiness(Gate(), str), [])

    async def answer(self, method: bytes, target: bytes, host: str, address: str) -> Answer:
        if target == b"/metrics":
            return Answer(200, [b"x" * 16384] * 500)
        return await super().answer(method, target, host, address)


@asynccontextmanager
async def running(size: int = 1, pages: Pages | None = None, tcp: bool = True) -> AsyncIterator[Running]:
    """A server of ``size`` metrics. The connections opened through it are closed at its end."""
    gate = Gate()
    readiness = Readiness(gate, str)
    readiness.is_serving = True
    server = HttpServer(pages or Pages(Exposition(lambda: families(size)), readiness, []))
    with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX) as listener:
        listener.bind(("127.0.0.1", 0) if tcp else "")
        listener.listen(100)
        listener.setblocking(False)
        it = Running(server, gate, listener)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve, listener)
                yield it
                nursery.cancel_scope.cancel()
        finally:
            for client in it.clients:
                client.stream.socket.close()
    assert server.connections == 0


# --- what a scraper gets


@mock_clock
async def test_a_scraper_keeps_its_connection_and_gets_whole_answers() -> None:
    async with running(size=3) as it:
        client = await it.connect()
        for _ in range(3):
            response = await client.ask("/metrics")
            assert response.status == 200
            assert response.body.endswith(b"kpcache_2 2.0\n")
            assert response.headers["content-length"] == str(len(response.body))
            assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["date"].endswith(" GMT")
            assert "server" not in response.headers
            head = await client.ask("/metrics", "HEAD")
            assert {**head.headers, "date": ""} == {**response.headers, "date": ""}
            assert head.body == b""
        assert (await client.ask("/")).status == 404
        refused = await client.ask("/metrics", "POST")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
        assert await client.lives()
        assert it.server.connections == 1


@mock_clock
async def test_a_large_answer_comes_whole() -> None:
    async with running(size=20_000) as it:
        client = await it.connect()
        body = (await client.ask("/metrics")).body
        assert len(body) > 1_000_000
        assert body.endswith(b"kpcache_19999 19999.0\n")
        assert await client.lives()


@mock_clock
async def test_a_connection_that_shall_close_does_and_old_clients_are_answered() -> None:
    async with running() as it:
        client = await it.connect()
        assert (await client.ask("/livez", Connection="close")).headers["connection"] == "close"
        assert await client.is_cut()
        old = await it.connect()
        await old.send(b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert (await old.rest()).endswith(b"\r\n\r\nok\n")
        half_closed = await it.connect()
        await half_closed.send(LIVEZ)
        await half_closed.stream.send_eof()
        assert (await half_closed.rest()).endswith(b"\r\n\r\nok\n")


@mock_clock
async def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    async with running() as it:
        client = await it.connect()
        paths = ["livez", "nothing", "metrics", "readyz"] * 50
        requests = b"".join(b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode() for path in paths)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                client.send, requests + LIVEZ.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            )
            answers = (await client.rest()).split(b"HTTP/1.1 ")[1:]
        assert [int(answer[:3]) for answer in answers] == [200, 404, 200, 200] * 50 + [200]
        assert all(b"kpcache_0 0.0\n" in answer for answer in answers[2::4][:50])


@pytest.mark.parametrize("tcp", [True, False])
def test_the_host_is_looked_at_on_tcp_and_may_be_missing_on_a_unix_socket(tcp: bool) -> None:
    @mock_clock
    async def ask() -> None:
        async with running(tcp=tcp) as it:
            client = await it.connect()
            assert (await client.ask(Host="evil.example")).status == 421
            assert (await client.ask(Host="127.0.0.1:1234")).status == (200 if tcp else 421)
            assert (await client.ask(Host="")).status == (421 if tcp else 200)
            await client.send(b"GET /livez HTTP/1.0\r\n\r\n")
            assert (await client.rest()).startswith(b"HTTP/1.1 421" if tcp else b"HTTP/1.1 200")
            for hosts in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
                client = await it.connect()
                await client.send(b"GET /livez HTTP/1.1\r\n" + hosts + b"\r\n")
                assert (await client.rest()).startswith(b"HTTP/1.1 400")

    ask()


# --- requests that are refused


HEAD = b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000, 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 10_000, 413),
        (HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", 413),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n" + LIVEZ, 413),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000, 431),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"x:\r\n" * 100 + b"\r\n", 431),
        (b"GET /livez HTTP/1.1\nHost: localhost\n" + b"x:\n" * 100 + b"\n", 431),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"x:\r\n" * 100, 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n", 431),
        (b"\x94\x00\x01\xa4ping\x90\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
        (b"GET /livez HTTP/3.7\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /livez HTTP/1.1\r\nHost: local\x00host\r\n\r\n", 400),
        (b"GET /li vez HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
def test_a_request_that_is_refused_gets_the_reason_and_the_end(sent: bytes, status: int) -> None:
    @mock_clock
    async def ask() -> None:
        async with running() as it:
            client = await it.connect()
            await client.send(sent)
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert answer.count(b"\r\nDate: ") == 1  # what came behind it is not taken for a request
            assert b"\r\nconnection: close\r\n" in answer.lower()
            assert await (await it.connect()).lives()

    ask()


@given(st.lists(st.one_of(
    st.binary(max_size=60),
    st.sampled_from([LIVEZ, LIVEZ[:9], LIVEZ[9:], b"\r\n", b"\n\n", b"Content-Length: 3\r\n", b"Host: a\r\n",
                     b"Transfer-Encoding: chunked\r\n\r\n", b"HEAD / HTTP/1.0\r\n\r\n", b"x" * 9000]),
), max_size=8), st.booleans())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_whatever_bytes_come_the_others_are_served(chunks: list[bytes], ends: bool) -> None:
    @mock_clock
    async def ask() -> None:
        async with running() as it:
            client = await it.connect()
            try:
                for chunk in chunks:
                    await client.send(chunk)
                    await trio.testing.wait_all_tasks_blocked()
                if ends:
                    await client.stream.send_eof()
            except trio.BrokenResourceError:
                pass
            assert await (await it.connect()).lives()
            await trio.sleep(HEAD_TIMEOUT_S + ANSWER_TIMEOUT_S + IDLE_TIMEOUT_S)
            assert it.server.connections == 0

    ask()


# --- deadlines


@mock_clock
async def test_a_head_that_comes_byte_by_byte_has_one_deadline() -> None:
    async with running() as it:
        client = await it.connect()
        await trio.sleep(HEAD_TIMEOUT_S - 1)  # before the first byte, which has one of its own
        begun = trio.current_time()
        while it.server.connections:
            await client.send(b"x")
            await trio.sleep(0.5)
        assert trio.current_time() - begun == pytest.approx(HEAD_TIMEOUT_S, abs=0.5)


@mock_clock
async def test_a_connection_without_a_request_ends_soon_and_an_idle_one_later() -> None:
    async with running() as it:
        silent, begun = await it.connect(), trio.current_time()
        assert await silent.is_cut()
        assert trio.current_time() - begun == pytest.approx(HEAD_TIMEOUT_S)
        client = await it.connect()
        for _ in range(3):
            assert await client.lives()
            await trio.sleep(IDLE_TIMEOUT_S - 1)
        assert await client.lives()
        begun = trio.current_time()
        assert await client.is_cut()
        assert trio.current_time() - begun == pytest.approx(IDLE_TIMEOUT_S)


@mock_clock
async def test_the_head_of_a_request_sent_ahead_has_the_deadline_of_a_head() -> None:
    async with running() as it:
        client = await it.connect()
        await client.send(LIVEZ + LIVEZ[:10])
        begun = trio.current_time()
        assert (await client.rest()).endswith(b"ok\n")
        assert trio.current_time() - begun == pytest.approx(HEAD_TIMEOUT_S)


@mock_clock
async def test_who_does_not_read_is_cut_and_keeps_nobody_waiting() -> None:
    async with running(pages=LargePages()) as it:
        client = await it.connect(receive_bytes=1)
        await client.send(LIVEZ.replace(b"livez", b"metrics"))
        other = await it.connect()
        begun = trio.current_time()
        assert (await other.ask("/metrics")).status == 200
        assert trio.current_time() == begun
        assert it.server.connections == 2
        await trio.sleep(ANSWER_TIMEOUT_S + 1)
        assert it.server.connections == 1
        assert await other.lives()


# --- how many


class StuckPages(Pages):
    """Answers /livez; anything else takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__(Exposition(families), Readiness(Gate(), str), [])
        self.goes_on = trio.Event()

    async def answer(self, method: bytes, target: bytes, host: str, address: str) -> Answer:
        if target != b"/livez":
            await self.goes_on.wait()
        return await super().answer(method, b"/livez", host, address)


@mock_clock
async def test_at_the_cap_the_one_without_a_request_for_longest_goes() -> None:
    async with running() as it:
        clients = []
        for _ in range(MAX_CONNECTIONS):
            clients.append(await it.connect())
            assert await clients[-1].lives()
            await trio.sleep(1)
        await trio.sleep(1)
        assert await clients[0].lives()  # the oldest is not the longest idle now
        await trio.sleep(1)
        await clients[1].send(b"G")  # neither is a head begun a request
        now = trio.current_time()
        newcomer = await it.connect()
        assert await newcomer.lives()
        assert it.server.connections == MAX_CONNECTIONS
        assert await clients[1].is_cut()
        assert trio.current_time() == now  # and not by a deadline
        assert await clients[0].lives()
        assert await clients[2].lives()


@mock_clock
async def test_those_whose_answer_is_being_made_stay_and_those_who_do_not_take_theirs_go() -> None:
    pages = StuckPages()
    async with running(pages=pages) as it:
        busy = [await it.connect() for _ in range(MAX_CONNECTIONS)]
        async with trio.open_nursery() as nursery:
            for client in busy:
                nursery.start_soon(client.ask, "/metrics")
            await trio.testing.wait_all_tasks_blocked()
            assert await (await it.connect()).is_cut()
            pages.goes_on.set()
    async with running(pages=LargePages()) as it:
        for _ in range(MAX_CONNECTIONS):
            client = await it.connect(receive_bytes=1)
            await client.send(LIVEZ.replace(b"livez", b"metrics"))
            await trio.testing.wait_all_tasks_blocked()
        newcomer = await it.connect()
        assert await newcomer.lives()
        assert it.server.connections == MAX_CONNECTIONS


# --- defects


@mock_clock
async def test_a_fault_in_one_connection_leaves_the_others_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as it:
        good, bad = await it.connect(), await it.connect()
        assert await good.lives()

        async def answer(*_: Any) -> Answer:
            raise RuntimeError("SECRET")

        with monkeypatch.context() as patched:
            patched.setattr(Pages, "answer", answer)
            assert not await bad.lives()
        assert await good.lives()
        assert await (await it.connect()).lives()
    assert "defect in an HTTP connection: RuntimeError at answer" in caplog.text
    assert "SECRET" not in caplog.text


@mock_clock
async def test_a_client_that_breaks_off_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    async with running(pages=LargePages()) as it:
        client = await it.connect(receive_bytes=1)
        await client.send(LIVEZ.replace(b"livez", b"metrics"))
        await trio.testing.wait_all_tasks_blocked()
        client.stream.socket.close()  # with bytes unread: the kernel resets the connection
        await trio.testing.wait_all_tasks_blocked()
        assert it.server.connections == 0
    assert not caplog.text


@mock_clock
async def test_a_fault_of_the_listener_ends_it_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def admit(_: HttpServer, sock: socket.socket, __: trio.Nursery) -> None:
        sock.close()
        raise RuntimeError("injected")

    monkeypatch.setattr(HttpServer, "_admit", admit)
    async with running() as it:
        client = await it.connect()
        assert client.stream.socket.fileno() >= 0
        await trio.sleep(1)  # the task has ended, and nothing with it
    assert "defect in the HTTP listener, which answers no more: RuntimeError" in caplog.text


class FullTable:
    """A listener of a process that is out of file descriptors for a while."""

    def __init__(self, listener: socket.socket, failures: int) -> None:
        self._listener = listener
        self.failures = failures

    def fileno(self) -> int:
        return self._listener.fileno()

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(24, "Too many open files")
        return self._listener.accept()


@mock_clock
async def test_without_file_descriptors_it_pauses_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as it:
        idle = await it.connect()
        with socket.socket() as listener, socket.socket() as sock:
            listener.bind(("127.0.0.1", 0))
            listener.listen(5)
            listener.setblocking(False)
            full: Any = FullTable(listener, failures=3)
            sock.connect(listener.getsockname())
            async with trio.open_nursery() as nursery:
                begun = trio.current_time()
                nursery.start_soon(it.server.serve, full)
                it.clients.append(Client(sock))
                assert await it.clients[-1].lives()
                assert await idle.is_cut()  # its descriptor was worth more to others
                assert trio.current_time() - begun == pytest.approx(0.3)
                nursery.cancel_scope.cancel()
    assert len(caplog.messages) == 1
    assert "raise LimitNOFILE" in caplog.text
