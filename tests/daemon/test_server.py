"""The server keeps its caps fairly, and one connection's fault never ends it."""

import itertools
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from kpcache.core.limits import Limits
from kpcache.daemon import peer as peer_module
from kpcache.daemon.server import Server
from kpcache.daemon.session import Session
from tests.fakes import SPEC, Bench, Peer, book_is_balanced, mock_clock, pack_request


@dataclass
class FakePeercred:
    """Gives connections the uids that a test wants, in the order of accepting; then our own."""

    uids: list[int] = field(default_factory=list)
    size: int = 12

    def unpack(self, _: bytes) -> tuple[int, int, int]:
        return 1, self.uids.pop(0) if self.uids else os.getuid(), 0


@dataclass
class Running:
    bench: Bench
    server: Server
    path: Path
    peercred: FakePeercred
    connections: trio.Nursery

    async def connect(self, uid: int | None = None) -> Peer:
        """A connection that the server has accepted."""
        if uid is not None:
            self.peercred.uids.append(uid)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(self.path))
        peer = Peer(sock)
        await trio.testing.wait_all_tasks_blocked()
        return peer


@asynccontextmanager
async def running(folder: Path, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> AsyncIterator[Running]:
    peercred = FakePeercred()
    monkeypatch.setattr(peer_module, "_PEERCRED", peercred)
    bench = Bench(limits=Limits(**limits))
    server = Server(bench.dispatcher, bench.stock, bench.limits)
    path = folder / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.setblocking(False)
        listener.bind(str(path))
        listener.listen(100)
        async with trio.open_nursery() as accepting, trio.open_nursery() as connections:
            accepting.start_soon(server.serve, listener, connections)
            yield Running(bench, server, path, peercred, connections)
            accepting.cancel_scope.cancel()
            connections.cancel_scope.cancel()
    assert server.connections == 0
    assert book_is_balanced(bench.stock)


async def lives(peer: Peer) -> bool:
    """Whether a request is answered."""
    try:
        return bool((await peer.call(9, "kpcache.Ping"))[1] == 9)
    except (EOFError, trio.BrokenResourceError):
        return False


async def close(*peers: Peer) -> None:
    for peer in peers:
        await peer.stream.aclose()


@mock_clock
async def test_clients_are_served_side_by_side_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as it:
        it.bench.shards.fill(8)
        peers = [await it.connect() for _ in range(3)]
        assert it.server.connections == 3
        for peer in peers:
            assert (await peer.call(1, "GenerateDataKeyPair", {"KeyId": "alias/on", "KeyPairSpec": SPEC}))[3]
        await close(*peers)
        await trio.testing.wait_all_tasks_blocked()
        assert (it.server.connections, it.server.clients()["cut"]) == (0, 0)


@mock_clock
async def test_a_fault_in_one_session_leaves_the_others_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, monkeypatch) as it:
        good, bad = await it.connect(), await it.connect()
        original = Session._begin
        doomed = list(it.server._sessions)[1]

        def begin(session: Session, request: Any) -> Any:
            if session is doomed:
                raise RuntimeError("injected")
            return original(session, request)

        monkeypatch.setattr(Session, "_begin", begin)
        assert not await lives(bad)
        assert await lives(good)
        newcomer = await it.connect()
        assert await lives(newcomer)
        assert it.server.connections == 2
        await close(good, bad, newcomer)
    assert "RuntimeError" in caplog.text
    assert "injected" not in caplog.text


@mock_clock
async def test_garbage_from_one_client_leaves_the_others_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as it:
        good = await it.connect()
        for garbage in (
            b"\xc1",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x94\x00\x01",
            b"\xdd\xff\xff\xff\xff",
            os.urandom(99),
        ):
            bad = await it.connect()
            await bad.send(garbage)
            await close(bad)
        assert await lives(good)
        await close(good)


# --- caps


@mock_clock
async def test_at_the_cap_the_oldest_incomplete_goes_then_the_longest_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, max_connections=4) as it:
        peers = [await it.connect() for _ in range(4)]
        for n in (2, 1):  # connection 1 is the older, but 2 has kept its message incomplete for longer
            await peers[n].send(pack_request(1)[:3])
            await trio.sleep(0.1)
        for n in (3, 0):
            assert await lives(peers[n])
            await trio.sleep(0.1)
        newcomers = []
        for expected in (2, 1, 3, 0):
            newcomers.append(await it.connect())
            assert await peers[expected].is_cut()
            assert it.server.connections == 4
            assert await lives(newcomers[-1])
        assert it.server.clients()["cut"] == 4
        await close(*peers, *newcomers)


@mock_clock
async def test_a_connection_that_is_owed_an_answer_is_not_cut_for_a_newcomer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, max_connections=2) as it:
        peers = [await it.connect() for _ in range(2)]
        for peer in peers:
            await peer.send(pack_request(1))
        newcomer = await it.connect()
        assert await newcomer.is_cut()
        it.bench.shards.fill(2)
        for peer in peers:
            assert (await peer.answer())[2] is None
        assert it.server.clients()["cut"] == 0
        await close(newcomer, *peers)


@mock_clock
async def test_whole_requests_that_wait_to_be_read_make_no_connection_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An honest client that sends more than may be in flight is not the first to be cut."""
    async with running(tmp_path, monkeypatch, max_connections=2, max_in_flight_per_connection=1) as it:
        eager = await it.connect()
        await eager.send(pack_request(1) + pack_request(2))
        idle = await it.connect()
        newcomer = await it.connect()
        assert await idle.is_cut()
        it.bench.shards.fill(2)
        assert [(await eager.answer())[1] for _ in range(2)] == [1, 2]
        await close(eager, idle, newcomer)


@mock_clock
async def test_few_connections_are_cut_before_others_get_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, max_connections_per_uid=50) as it:
        peers = [await it.connect() for _ in range(50)]
        socks = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(40)]
        for sock in socks:
            sock.connect(str(it.path))
        cuts: list[int] = []
        while not cuts or cuts[-1] < 40:
            cuts.append(it.server.clients()["cut"])
            await trio.lowlevel.checkpoint()
        # Between two of our turns it can have two, as trio shuffles the order in which tasks run.
        assert max(after - before for before, after in itertools.pairwise(cuts)) <= 2 * 4
        assert it.server.connections == 50
        for sock in socks:
            sock.close()
        await close(*peers)


@mock_clock
async def test_a_user_at_the_cap_pushes_out_its_own_connections_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, max_connections_per_uid=2) as it:
        others = [await it.connect(uid=1) for _ in range(2)]
        await others[0].send(pack_request(1)[:3])  # incomplete, and the oldest of all
        mine = [await it.connect(uid=2) for _ in range(5)]
        assert [await peer.is_cut() for peer in mine[:3]] == [True] * 3
        assert [await lives(peer) for peer in mine[3:]] == [True] * 2
        await others[0].send(pack_request(1)[3:])
        assert await lives(others[1])
        it.bench.shards.fill(1)
        assert (await others[0].answer())[1] == 1
        await close(*others, *mine)


@mock_clock
async def test_at_the_cap_of_all_a_user_who_has_many_makes_room_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, max_connections=4) as it:
        other = await it.connect(uid=1)
        mine = [await it.connect(uid=2) for _ in range(6)]
        assert await lives(other)
        newcomer = await it.connect(uid=3)
        assert await lives(newcomer)
        assert await lives(other)
        assert sum([await lives(peer) for peer in mine]) == 2
        await close(other, newcomer, *mine)


@mock_clock
async def test_a_user_whose_connections_are_all_busy_cannot_push_out_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, max_connections=4) as it:
        other = await it.connect(uid=1)
        mine = [await it.connect(uid=2) for _ in range(3)]
        for peer in mine:
            await peer.send(pack_request(1))
        more = await it.connect(uid=2)
        assert await more.is_cut()
        assert await lives(other)
        await close(other, more, *mine)


# --- stopping


@mock_clock
async def test_a_stop_waits_for_the_answers_that_are_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as it:
        waiting, idle = await it.connect(), await it.connect()
        await waiting.send(pack_request(1))
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(3) as scope:
            await it.server.wait_no_answers_owed()
        assert scope.cancelled_caught
        it.bench.shards.fill(1)
        with trio.fail_after(1):
            await it.server.wait_no_answers_owed()
        assert (await waiting.answer())[2] is None
        await close(waiting, idle)


# --- out of file descriptors


class FullTable:
    """A listener on which ``accept`` fails as it does when there is no file descriptor left."""

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
async def test_without_file_descriptors_it_pauses_makes_room_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, monkeypatch) as it:
        idle = await it.connect()
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
            socket.socket(socket.AF_UNIX) as sock,
        ):
            listener.setblocking(False)
            listener.bind(str(tmp_path / "t"))
            listener.listen(5)
            full: Any = FullTable(listener, failures=3)
            sock.connect(str(tmp_path / "t"))
            async with trio.open_nursery() as nursery:
                start = trio.current_time()
                nursery.start_soon(it.server.serve, full, it.connections)
                peer = Peer(sock)
                assert await lives(peer)
                assert trio.current_time() - start == pytest.approx(0.3)
                nursery.cancel_scope.cancel()
            await close(peer)
        assert await idle.is_cut()  # it was idle: its descriptor was worth more to others
        assert "LimitNOFILE" in caplog.text
        await close(idle)


@mock_clock
async def test_a_long_shortage_of_file_descriptors_does_not_flood_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, monkeypatch) as it:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
            socket.socket(socket.AF_UNIX) as sock,
        ):
            listener.setblocking(False)
            listener.bind(str(tmp_path / "t"))
            listener.listen(5)
            full: Any = FullTable(listener, failures=10_000)
            sock.connect(str(tmp_path / "t"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(it.server.serve, full, it.connections)
                await trio.sleep(0.05)
                assert len(caplog.messages) == 1  # the first is told at once
                await trio.sleep(150)  # 1500 failures
                nursery.cancel_scope.cancel()
    assert len(caplog.messages) == 3
    first, *later = caplog.messages
    assert "times more" not in first
    for line in later:
        assert "(599 times more" in line or "(600 times more" in line
