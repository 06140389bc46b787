"""Administration of the real daemon: by its own socket only, under load, and against hostile bytes."""

import contextlib
import dataclasses
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kpcache.client.connection import Connection
from kpcache.core import envelope
from kpcache.core.admin_operations import ADMIN_OPERATIONS
from kpcache.errors import DisabledException, from_wire
from kpcache.keyring import document
from tests.system.harness import PATIENCE_S, Daemon, pools, running
from tests.system.test_abuse import BROKEN

SPEC = "ECC_NIST_EDWARDS25519"
ALIAS = "alias/kpcache"
PLANTED_ID = 4242
# Of an admin socket these are only the beginning of something that may still become a message.
_ALLOWED_THERE = {"huge blob", "over the limit"}


class Admin:
    """A connection to a daemon's ``admin.sock``."""

    def __init__(self, daemon: Daemon) -> None:
        self._connection = Connection.open(daemon.admin_socket, PATIENCE_S, os.environ)

    def __enter__(self) -> "Admin":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, method: str, **members: Any) -> dict[str, Any]:
        """Without ``kpcache.`` before the name. Raises ``KpcacheError``."""
        return self.ask_as_client(f"kpcache.{method}", **members)

    def ask_as_client(self, method: str, **members: Any) -> dict[str, Any]:
        """By its whole name. Raises ``KpcacheError``."""
        error, result = self._connection.call(method, [members], PATIENCE_S)
        if error is not None:
            raise from_wire(error)
        answer: dict[str, Any] = result
        return answer


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    sock.connect(path)
    return sock


def request(msgid: int, method: str, **members: Any) -> bytes:
    packed: bytes = msgpack.packb([0, msgid, method, [members]])
    return packed


def answers(sock: socket.socket, count: int) -> list[Any]:
    """The next ``count`` responses, in the order in which they came; fewer if the stream ends before."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    found: list[Any] = []
    with contextlib.suppress(ConnectionResetError):
        while len(found) < count and (data := sock.recv(1 << 20)):
            unpacker.feed(data)
            found += unpacker
    return found


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("admin"), pools(**{SPEC: 2000})) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def clients_are_served(daemon: Daemon) -> Iterator[None]:
    """After each test the key is in use again, and the log tells of no defect."""
    yield
    with Admin(daemon) as admin, daemon.client() as client:
        admin.call("EnableKey", KeyId=ALIAS)
        assert client.generate_data_key_pair(KeyId=ALIAS, KeyPairSpec=SPEC)["PrivateKeyPlaintext"]
    assert not [line for line in daemon.log if "defect" in line]


# --- who may


def test_the_socket_is_for_its_owner_alone(daemon: Daemon) -> None:
    status = os.stat(daemon.admin_socket)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())


@pytest.mark.parametrize("method", ADMIN_OPERATIONS)
def test_on_the_socket_of_clients_nobody_is_an_administrator(daemon: Daemon, method: str) -> None:
    """Whoever runs this, root included."""
    with connect(daemon.socket) as sock:
        for msgid, members in enumerate(({}, {"KeyId": ALIAS}, {"AliasName": ALIAS, "TargetKeyId": ALIAS})):
            sock.sendall(request(msgid, method, **members))
            [[_, _, error, result]] = answers(sock, 1)
            assert (error["Code"], result) == ("AccessDeniedException", None)
            assert "admin.sock" in error["Message"]


def test_a_change_is_told_in_the_log_with_who_made_it(daemon: Daemon) -> None:
    with Admin(daemon) as admin:
        made = admin.call("CreateKey", Description="PRIVATE", Tags=[{"TagKey": "PRIVATE", "TagValue": "x"}])
    arn = made["KeyMetadata"]["Arn"]
    line = daemon.wait_log(arn)
    assert f"kpcache.CreateKey by uid {os.getuid()}, pid {os.getpid()}: {arn}" in line
    assert not [line for line in daemon.log if "PRIVATE" in line]
    assert len([line for line in daemon.log if "the keyring is a plain file" in line]) == 1


def test_status_shows_the_keyring_in_force(tmp_path: Path) -> None:
    with running(tmp_path, pools()) as daemon, Admin(daemon) as admin:
        before = daemon.status()["keyring"]
        assert before == {
            "default_alias": ALIAS, "default_key_arn": before["default_key_arn"], "sealed": "file", "keys": 1,
            "default_key_state": "Enabled", "fault": "",
            "revision": 1, "exported_revision": 0, "unexported_changes": 1,
        }  # fmt: skip
        arn = admin.call("CreateKey")["KeyMetadata"]["Arn"]
        admin.call("UpdateAlias", AliasName=ALIAS, TargetKeyId=arn)
        admin.call("MarkExported", Revision=admin.call("ExportKeyring")["Revision"])
        admin.call("DisableKey", KeyId=before["default_key_arn"])
        after = daemon.status()["keyring"]
        assert (after["default_key_arn"], after["keys"]) == (arn, 2)
        assert (after["revision"], after["unexported_changes"]) == (4, 1)


def test_what_was_changed_is_there_after_a_restart(tmp_path: Path) -> None:
    with running(tmp_path, pools(**{SPEC: 8})) as daemon, Admin(daemon) as admin, daemon.client() as client:
        pair = client.generate_data_key_pair(KeyId=ALIAS, KeyPairSpec=SPEC)
        admin.call("RotateKeyOnDemand", KeyId=ALIAS)
        arn = admin.call("CreateKey", AliasName="alias/app")["KeyMetadata"]["Arn"]
    with running(tmp_path, pools(**{SPEC: 8})) as daemon, Admin(daemon) as admin, daemon.client() as client:
        blob = pair["PrivateKeyCiphertextBlob"]
        assert client.decrypt(CiphertextBlob=blob)["Plaintext"] == pair["PrivateKeyPlaintext"]
        assert client.describe_key(KeyId="alias/app")["KeyMetadata"]["Arn"] == arn
        assert len(admin.call("ListKeyRotations", KeyId=ALIAS)["Rotations"]) == 1
        again = client.generate_data_key_pair(KeyId=ALIAS, KeyPairSpec=SPEC)
        assert again["KeyMaterialId"] != pair["KeyMaterialId"]


# --- under load


def test_a_rotation_under_load_costs_no_request_and_every_answer_names_its_material(daemon: Daemon) -> None:
    stop = threading.Event()

    def generate() -> list[Any]:
        made = []
        with daemon.client() as client:
            while not stop.is_set():
                made.append(client.generate_data_key_pair(KeyId=ALIAS, KeyPairSpec=SPEC, wait_s=5.0))
        return made

    with ThreadPoolExecutor(3) as threads, Admin(daemon) as admin:
        loads = [threads.submit(generate) for _ in range(3)]
        try:
            for _ in range(10):
                admin.call("RotateKeyOnDemand", KeyId=ALIAS)
        finally:
            stop.set()
        pairs = [pair for load in loads for pair in load.result()]
        rotations = admin.call("ListKeyRotations", KeyId=ALIAS, IncludeKeyMaterial="ALL_KEY_MATERIAL")
    for pair in pairs:
        named = envelope.parse(pair["PrivateKeyCiphertextBlob"]).material_id.hex()
        assert pair["KeyMaterialId"] == named
    used = {pair["KeyMaterialId"] for pair in pairs}
    assert len(used) > 1  # they did meet
    assert used <= {entry["KeyMaterialId"] for entry in rotations["Rotations"]}
    with daemon.client() as client:
        for pair in pairs[:: max(1, len(pairs) // 50)]:
            opened = client.decrypt(CiphertextBlob=pair["PrivateKeyCiphertextBlob"])
            assert opened["Plaintext"] == pair["PrivateKeyPlaintext"]
            assert opened["KeyMaterialId"] == pair["KeyMaterialId"]


def test_requests_that_wait_for_a_pair_are_told_when_their_key_is_disabled(tmp_path: Path) -> None:
    """RSA_4096 without a pool: none of them is there before the key is disabled."""
    config = pools() + "[requests]\nwait_timeout_s = 60.0\n"
    with running(tmp_path, config) as daemon, Admin(daemon) as admin, connect(daemon.socket) as sock:
        count = 4
        for msgid in range(count):
            sock.sendall(request(msgid, "GenerateDataKeyPair", KeyId=ALIAS, KeyPairSpec="RSA_4096"))
        deadline = time.monotonic() + PATIENCE_S
        while daemon.status()["pools"]["RSA_4096"]["waiting"] == 0 and time.monotonic() < deadline:
            pass
        admin.call("DisableKey", KeyId=ALIAS)
        came = answers(sock, count)
        assert sorted(answer[1] for answer in came) == list(range(count))
        refused = [answer[2]["Code"] for answer in came if answer[2] is not None]
        assert set(refused) == {"DisabledException"}
        with daemon.client() as client, pytest.raises(DisabledException):
            client.generate_data_key_pair(KeyId=ALIAS, KeyPairSpec="RSA_4096")


def test_a_flood_of_changes_is_bounded_and_clients_are_served_meanwhile(daemon: Daemon) -> None:
    """Each connection may have 256 requests in flight; only so many of all may wait for the disk."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(daemon.admin_socket)) for _ in range(20)]
        flood = b"".join(
            request(n, "kpcache.UpdateKeyDescription", KeyId=ALIAS, Description=f"{n}") for n in range(200)
        )
        with ThreadPoolExecutor(len(socks)) as threads:
            sent = [threads.submit(sock.sendall, flood) for sock in socks]
            came = [threads.submit(answers, sock, 200) for sock in socks]
            with daemon.client() as client:
                for _ in range(100):
                    assert client.generate_data_key_pair(KeyId=ALIAS, KeyPairSpec=SPEC)["PublicKey"]
            for each in sent:
                each.result()
            found = [answer for each in came for answer in each.result()]
    assert len(found) == 20 * 200
    refused = [answer[2] for answer in found if answer[2] is not None]
    assert {error["Reason"] for error in refused} == {"overloaded"}
    assert len(refused) < len(found)


# --- hostile bytes


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind not in _ALLOWED_THERE])
def test_a_change_behind_a_broken_message_is_never_made(daemon: Daemon, kind: str) -> None:
    before = daemon.status()["keyring"]["revision"]
    with connect(daemon.admin_socket) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(BROKEN[kind] + request(PLANTED_ID, "kpcache.RotateKeyOnDemand", KeyId=ALIAS))
        ids = [answer[1] for answer in answers(sock, 100)]
    assert PLANTED_ID not in ids
    assert daemon.status()["keyring"]["revision"] == before


def test_a_message_may_be_as_large_as_a_keyring_and_hardly_larger(daemon: Daemon) -> None:
    with connect(daemon.admin_socket) as sock:
        sock.sendall(request(1, "kpcache.ImportKeyring", KeyringDocument=os.urandom(5 * 1024 * 1024)))
        [[_, _, error, _]] = answers(sock, 1)
        assert "not a keyring" in error["Message"]
        sock.sendall(request(2, "kpcache.ImportKeyring", KeyringDocument=bytes(5 * 1024 * 1024 + 1)))
        [[_, _, error, _]] = answers(sock, 1)
        assert "less than or equal to 5242880" in error["Message"]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(request(3, "kpcache.ImportKeyring", KeyringDocument=bytes(9 * 1024 * 1024)))
        assert answers(sock, 1) in ([], [[1, 3, error | {"Message": OVER_THE_LIMIT}, None]])


OVER_THE_LIMIT = "the message is over the limit of 8388608 bytes"


def test_a_large_message_that_stops_half_way_is_cut(tmp_path: Path) -> None:
    config = pools() + "[requests]\nmessage_timeout_s = 1.0\n"
    with running(tmp_path, config) as daemon, connect(daemon.admin_socket) as sock:
        sock.sendall(request(1, "kpcache.ImportKeyring", KeyringDocument=bytes(4_000_000))[:2_000_000])
        assert answers(sock, 1) == []
        assert daemon.status()["keyring"]["revision"] == 1


def test_a_keyring_that_was_exported_is_the_one_in_the_file(daemon: Daemon) -> None:
    with Admin(daemon) as admin:
        export = admin.call("ExportKeyring")
    file = document.decode((daemon.state_dir / "keyring.json").read_bytes())
    assert len(file.reserve_secret) == 32
    # But for the secret of what waits out a restart here: nothing of that opens elsewhere.
    assert export["KeyringDocument"] == document.encode(dataclasses.replace(file, reserve_secret=b""))
