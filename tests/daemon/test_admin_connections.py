"""Connections of the two sockets: who may administrate, and that clients do not feel it."""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from kpcache.core.admin_operations import ADMIN_OPERATIONS
from kpcache.core.limits import Limits
from kpcache.daemon import peer as peer_module
from kpcache.daemon import server as server_module
from kpcache.daemon.administrator import MAX_MESSAGE_BYTES, MAX_WAITING
from kpcache.daemon.server import Server
from tests.administration import ALIAS, Administration, administration
from tests.daemon.test_server import FakePeercred
from tests.fakes import SPEC, Peer, book_is_balanced, pack_request, real_clock

PAIR = {"KeyId": ALIAS, "KeyPairSpec": SPEC}


@dataclass
class Sockets:
    """A server on both sockets, with a keyring and its administrator behind it."""

    it: Administration
    server: Server
    folder: Path

    def connect(self, name: str) -> Peer:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(self.folder / name))
        return Peer(sock)

    def client(self) -> Peer:
        return self.connect("client")

    def admin(self) -> Peer:
        return self.connect("admin")


@asynccontextmanager
async def sockets(folder: Path, limits: Limits | None = None) -> AsyncIterator[Sockets]:
    state = folder / "state"
    state.mkdir(mode=0o700)
    async with administration(state) as it:
        server = Server(it.dispatcher, it.shards.stock, limits or it.limits)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as admin,
        ):
            for listener, name in ((client, "client"), (admin, "admin")):
                listener.setblocking(False)
                listener.bind(str(folder / name))
                listener.listen(100)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve, client, nursery)
                nursery.start_soon(server.serve, admin, nursery, it.administrator)
                yield Sockets(it, server, folder)
                it.vault.disk.set()
                nursery.cancel_scope.cancel()
        assert book_is_balanced(it.shards.stock)


async def code(peer: Peer, method: str, data: object) -> str:
    error = (await peer.call(1, method, data))[2]
    return str(error["Code"]) if error else ""


@real_clock
async def test_the_socket_decides_who_may_administrate_and_no_user_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    peercred = FakePeercred()
    monkeypatch.setattr(peer_module, "_PEERCRED", peercred)
    async with sockets(tmp_path) as both:
        before = both.it.keyring.content
        caplog.clear()
        for uid in (0, 1000, 65534):
            peercred.uids.append(uid)
            client = both.client()
            for method in ADMIN_OPERATIONS:
                answer = await client.call(1, method, {"KeyId": ALIAS})
                assert answer[2]["Code"] == "AccessDeniedException"
                assert "admin.sock" in answer[2]["Message"]
            await client.stream.aclose()
        assert both.it.keyring.content is before
        assert caplog.messages == []
        peercred.uids.append(1000)
        admin = both.admin()
        assert await code(admin, "kpcache.DisableKey", {"KeyId": ALIAS}) == ""
        assert caplog.messages == [f"kpcache.DisableKey by uid 1000, pid 1: {both.it.arn}"]
        assert await code(admin, "kpcache.Ping", {}) == ""
        await admin.stream.aclose()


@real_clock
async def test_an_administrator_is_answered_all_that_clients_are(tmp_path: Path) -> None:
    async with sockets(tmp_path) as both:
        both.it.shards.fill(8)
        admin = both.admin()
        assert (await admin.call(1, "GenerateDataKeyPair", PAIR))[3]["PrivateKeyPlaintext"]
        assert (await admin.call(1, "kpcache.Ping"))[3]["MaxMessageBytes"] == MAX_MESSAGE_BYTES
        client = both.client()
        assert (await client.call(1, "kpcache.Ping"))[3]["MaxMessageBytes"] == 65536
        await admin.stream.aclose()
        await client.stream.aclose()


@real_clock
async def test_changes_sent_in_one_go_are_made_in_their_order(tmp_path: Path) -> None:
    """Their tasks may start in any order: the place in the queue is taken before."""
    async with sockets(tmp_path) as both:
        admin = both.admin()
        sent = [
            pack_request(n, "kpcache.UpdateKeyDescription", {"KeyId": ALIAS, "Description": str(n)})
            for n in range(20)
        ]
        await admin.send(b"".join(sent))
        assert sorted([(await admin.answer())[1] for _ in sent]) == list(range(20))
        assert both.it.keyring.content.keys[0].description == "19"
        await admin.stream.aclose()


@real_clock
async def test_clients_are_answered_at_once_while_a_disk_takes_its_time(tmp_path: Path) -> None:
    async with sockets(tmp_path) as both:
        both.it.shards.fill(64)
        client, admin = both.client(), both.admin()
        both.it.vault.disk.clear()
        await admin.send(pack_request(1, "kpcache.DisableKey", {"KeyId": ALIAS}))
        await trio.testing.wait_all_tasks_blocked()
        assert both.server.connections == 2
        for n in range(50):  # none of them waits: the disk is held up for as long as this takes
            assert (await client.call(n, "GenerateDataKeyPair", PAIR))[2] is None
            both.it.shards.fill(1)
            assert (await client.call(n, "kpcache.Status"))[2] is None
        assert (await admin.call(2, "kpcache.ListKeys", {}))[1] == 2
        both.it.vault.disk.set()
        assert (await admin.answer())[1:] == [1, None, {}]
        assert await code(client, "GenerateDataKeyPair", PAIR) == "DisabledException"
        await client.stream.aclose()
        await admin.stream.aclose()


@real_clock
async def test_requests_that_wait_for_a_pair_are_refused_when_their_key_is_disabled(tmp_path: Path) -> None:
    async with sockets(tmp_path) as both:
        client, admin = both.client(), both.admin()
        for n in range(3):
            await client.send(pack_request(n, "GenerateDataKeyPair", PAIR))
        await trio.testing.wait_all_tasks_blocked()
        assert await code(admin, "kpcache.DisableKey", {"KeyId": ALIAS}) == ""
        both.it.shards.fill(3)
        answers = [await client.answer() for _ in range(3)]
        assert {answer[2]["Code"] for answer in answers} == {"DisabledException"}
        await client.stream.aclose()
        await admin.stream.aclose()


@real_clock
async def test_what_has_begun_is_carried_out_though_its_connection_is_gone(tmp_path: Path) -> None:
    async with sockets(tmp_path) as both:
        both.it.vault.disk.clear()
        admin = both.admin()
        await admin.send(
            pack_request(1, "kpcache.DisableKey", {"KeyId": ALIAS})
            + pack_request(2, "kpcache.RotateKeyOnDemand", {"KeyId": ALIAS})
        )
        await trio.testing.wait_all_tasks_blocked()
        await admin.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert both.server.connections == 0  # a slow disk keeps no connection of a client that is gone
        both.it.vault.disk.set()
        again = both.admin()
        answer = await again.call(3, "kpcache.ListKeyRotations", {"KeyId": ALIAS})
        assert await code(again, "kpcache.EnableKey", {"KeyId": ALIAS}) == ""
        assert answer[3]["Rotations"] == []
        assert both.it.keyring.content.revision == 3  # made, disabled, enabled
        await again.stream.aclose()


@real_clock
async def test_a_half_closed_connection_is_answered_its_changes(tmp_path: Path) -> None:
    async with sockets(tmp_path) as both:
        admin = both.admin()
        await admin.send(pack_request(1, "kpcache.RotateKeyOnDemand", {"KeyId": ALIAS}))
        await admin.stream.send_eof()
        assert (await admin.answer())[3] == {"KeyId": both.it.arn}
        assert await admin.is_cut()
        await admin.stream.aclose()


@real_clock
async def test_thousands_of_changes_from_many_connections_are_bounded(tmp_path: Path) -> None:
    async with sockets(tmp_path) as both:
        both.it.vault.disk.clear()
        admins = [both.admin() for _ in range(10)]
        answers: list[list[Any]] = []

        async def read(admin: Peer) -> None:
            while True:
                answers.append(await admin.answer())

        async with trio.open_nursery() as readers:
            for admin in admins:
                readers.start_soon(read, admin)
            await admins[0].send(pack_request(999, "kpcache.RotateKeyOnDemand", {"KeyId": ALIAS}))
            await trio.testing.wait_all_tasks_blocked()  # it is under way
            for n in range(200):
                for admin in admins:
                    await admin.send(pack_request(n, "kpcache.RotateKeyOnDemand", {"KeyId": ALIAS}))
            await trio.testing.wait_all_tasks_blocked()
            assert {answer[2]["Reason"] for answer in answers} == {"overloaded"}
            assert len(answers) == 2000 - MAX_WAITING
            answers.clear()
            both.it.vault.disk.set()
            while len(answers) < 1 + MAX_WAITING:
                await trio.lowlevel.checkpoint()
            assert {answer[2] for answer in answers} == {None}
            readers.cancel_scope.cancel()
        for admin in admins:
            await admin.stream.aclose()


@real_clock
async def test_large_messages_pass_on_admin_sock_only(tmp_path: Path) -> None:
    async with sockets(tmp_path) as both:
        client, admin = both.client(), both.admin()
        large = pack_request(1, "kpcache.ImportKeyring", {"KeyringDocument": bytes(4_000_000)})
        assert await is_cut_while_sending(client, large)
        await admin.send(large)
        assert (await admin.answer())[2]["Message"].startswith("KeyringDocument is not a keyring")
        await admin.send(pack_request(1, "kpcache.ImportKeyring", {"KeyringDocument": bytes(5_500_000)}))
        assert "less than or equal to 5242880" in (await admin.answer())[2]["Message"]
        too_large = pack_request(1, "kpcache.ImportKeyring", {"KeyringDocument": bytes(MAX_MESSAGE_BYTES)})
        assert await is_cut_while_sending(admin, too_large)
        await client.stream.aclose()
        await admin.stream.aclose()


async def is_cut_while_sending(peer: Peer, message: bytes) -> bool:
    """Whether the server ends the connection before it has read the message, which is large."""
    try:
        await peer.send(message)
    except trio.BrokenResourceError:
        return True
    return False


@real_clock
async def test_clients_who_keep_every_place_busy_keep_no_administrator_out(tmp_path: Path) -> None:
    async with sockets(tmp_path, Limits(max_connections=2)) as both:
        busy = [both.client(), both.client()]
        for peer in busy:
            await peer.stream.send_all(pack_request(1, "GenerateDataKeyPair", PAIR))
        while len(both.it.shards.stock.pools[SPEC].desk.queue) < 2:
            await trio.lowlevel.checkpoint()
        refused = both.client()
        assert await refused.stream.receive_some() == b""
        admin = both.admin()
        assert await code(admin, "kpcache.DisableKey", {"KeyId": ALIAS}) == ""
        for peer in (*busy, refused, admin):
            await peer.stream.aclose()


@real_clock
async def test_administrators_make_room_among_themselves(tmp_path: Path) -> None:
    async with sockets(tmp_path, Limits(max_connections=1)) as both:
        client = both.client()
        assert await code(client, "kpcache.Ping", {}) == ""
        administrators = []
        for _ in range(server_module._MAX_ADMINISTRATORS + 1):
            administrators.append(both.admin())
            assert await code(administrators[-1], "kpcache.Ping", {}) == ""
        assert await administrators[0].stream.receive_some() == b""
        assert await code(client, "kpcache.Ping", {}) == ""
        for peer in (client, *administrators):
            await peer.stream.aclose()
