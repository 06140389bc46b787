"""Bad input against the real daemon: the misbehaving are answered or cut, and nobody else notices."""

import contextlib
import os
import random
import resource
import socket
import stat
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from tests.system.harness import Daemon, pools, running

SPEC = "ECC_NIST_EDWARDS25519"
PLANTED_ID = 4242


def request(msgid: int, method: str = "GenerateDataKeyPair", **members: Any) -> bytes:
    members = members or {"KeyId": "alias/kpcache", "KeyPairSpec": SPEC}
    packed: bytes = msgpack.packb([0, msgid, method, [members]])
    return packed


PLANTED = request(PLANTED_ID)  # a valid request: behind a broken message it must never run

# Each begins a request with msgid 7 and breaks it; whoever read on would find the planted request.
_HEAD = b"\x94\x00\x07\xb3GenerateDataKeyPair\x91"
BROKEN = {
    "random bytes": random.Random(1).randbytes(200),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "not an array": msgpack.packb({"method": "GenerateDataKeyPair"}),
    "too few items": msgpack.packb([0, 7]),
    "too many items": msgpack.packb([0, 7, "m", [], 1]),
    "unknown message type": msgpack.packb([5, 7, "m", []]),
    "boolean as message type": msgpack.packb([False, 7, "m", []]),
    "a response": msgpack.packb([1, 7, None, {}]),
    "negative msgid": msgpack.packb([0, -1, "m", []]),
    "msgid too large": msgpack.packb([0, 2**32, "m", []]),
    "text as msgid": msgpack.packb([0, "7", "m", []]),
    "number as method": msgpack.packb([0, 7, 7, []]),
    "params not an array": msgpack.packb([0, 7, "kpcache.Ping", {}]),
    "three params": msgpack.packb([0, 7, "kpcache.Ping", [{}, {}, {}]]),
    "duplicate key": _HEAD + b"\x82\xa1a\x01\xa1a\x02",
    "duplicate key in a context": _HEAD + b"\x81\xb1EncryptionContext\x82\xa1a\xa1b\xa1a\xa1c",
    "key not a string": _HEAD + b"\x81\x01\x02",
    "bad UTF-8": _HEAD + b"\x81\xa1a\xa2\xff\xfe",
    "extension type": _HEAD + b"\x81\xa1a\xd4\x05\x00",
    "timestamp": _HEAD + b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",
    "unused byte": _HEAD + b"\x81\xa1a\xc1",
    "deep nesting": _HEAD + b"\x91" * 60 + b"\xc0",
    "huge array": _HEAD + b"\xdd\xff\xff\xff\xff",
    "huge map": _HEAD + b"\xdf\xff\xff\xff\xff",
    "huge string": _HEAD + b"\xdb\xff\xff\xff\xff",
    "huge blob": _HEAD + b"\xc6\x00\x01\x00\x00",
    "over the limit": request(7, KeyId="x" * 70_000),
}
ADDRESSED = [
    "params not an array", "three params", "duplicate key", "duplicate key in a context", "key not a string",
    "bad UTF-8", "extension type", "timestamp", "unused byte", "deep nesting", "huge array", "huge map",
    "huge string", "huge blob", "over the limit", "number as method",
]  # fmt: skip


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    config = pools(**{SPEC: 64}) + "[requests]\nmessage_timeout_s = 2.0\n"
    with running(tmp_path_factory.mktemp("abuse"), config) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def others_are_served(daemon: Daemon) -> Iterator[None]:
    """After each abuse another client gets its pair, and the log tells of no defect."""
    yield
    with daemon.client() as client:
        answer = client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)
    assert len(answer["PrivateKeyPlaintext"]) == 48
    assert not [line for line in daemon.log if "defect" in line]


def connect(daemon: Daemon) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(daemon.socket)
    return sock


def answers_until_closed(sock: socket.socket) -> list[Any]:
    """All responses up to the end of the stream, which must come."""
    unpacker = msgpack.Unpacker()
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            unpacker.feed(data)
    return list(unpacker)


def issued(daemon: Daemon) -> int:
    count: int = daemon.status()["pools"][SPEC]["issued"]
    return count


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("pieces", ["whole", "dripped"])
def test_a_request_behind_a_broken_message_never_runs(daemon: Daemon, kind: str, pieces: str) -> None:
    before = issued(daemon)
    data = BROKEN[kind] + PLANTED
    with connect(daemon) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in [data] if pieces == "whole" else [data[i : i + 7] for i in range(0, len(data), 7)]:
                sock.sendall(piece)
        answers = answers_until_closed(sock)
    assert PLANTED_ID not in [answer[1] for answer in answers]
    assert issued(daemon) == before
    if kind in ADDRESSED and pieces == "whole":
        [[kind_of_message, msgid, error, result]] = answers
        assert (kind_of_message, msgid, result) == (1, 7, None)
        assert error["Code"] == "ValidationException"


def test_the_planted_request_is_one_that_a_naive_reader_runs() -> None:
    """What is guarded against is real: a decoder that goes on after its error does read it."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(BROKEN["bad UTF-8"] + PLANTED)
    with pytest.raises(UnicodeDecodeError):
        unpacker.unpack()
    left = []
    while True:
        try:
            left.append(unpacker.unpack())
        except UnicodeDecodeError:
            continue
        except msgpack.OutOfData:
            break
    assert msgpack.unpackb(PLANTED) in left


PAIR = {"KeyId": "alias/kpcache", "KeyPairSpec": SPEC}


@pytest.mark.parametrize(
    ("method", "members", "code"),
    [
        ("NoSuchMethod", {"a": 1}, "UnsupportedOperationException"),
        ("kpcache.Shutdown", {"a": 1}, "UnsupportedOperationException"),
        ("GenerateDataKeyPair", {**PAIR, "KeyId": 5}, "ValidationException"),
        ("GenerateDataKeyPair", {"KeyId": "alias/kpcache"}, "ValidationException"),
        ("GenerateDataKeyPair", {**PAIR, "KeyPairSpec": "RSA_1024"}, "ValidationException"),
        ("GenerateDataKeyPair", {**PAIR, "New": 1}, "ValidationException"),
        ("GenerateDataKeyPair", {**PAIR, "KeyId": "alias/nobody"}, "NotFoundException"),
        ("GenerateDataKeyPair", {**PAIR, "KeyPairSpec": "SM2"}, "UnsupportedOperationException"),
        ("GenerateDataKeyPair", {**PAIR, "KeyPairSpec": "ML_KEM_512"}, "UnsupportedOperationException"),
        ("GenerateDataKeyPair", {**PAIR, "Recipient": {}}, "UnsupportedOperationException"),
        ("GenerateDataKeyPair", {**PAIR, "DryRun": True}, "DryRunOperationException"),
        ("Decrypt", {"CiphertextBlob": b"x" * 200}, "InvalidCiphertextException"),
    ],
)
def test_a_wrong_request_is_answered_and_the_connection_goes_on(
    daemon: Daemon, method: str, members: dict[str, Any], code: str
) -> None:
    before = issued(daemon)
    with connect(daemon) as sock:
        sock.sendall(request(7, method, **members) + request(8))
        unpacker = msgpack.Unpacker()
        answers: dict[int, Any] = {}
        while len(answers) < 2:
            unpacker.feed(sock.recv(65536))
            answers |= {answer[1]: answer for answer in unpacker}
    assert answers[7][2]["Code"] == code
    assert answers[8][2] is None
    assert issued(daemon) == before + 1


def test_truncated_messages_cost_nothing(daemon: Daemon) -> None:
    before = issued(daemon)
    whole = request(9)
    for end in range(1, len(whole)):
        with connect(daemon) as sock:
            sock.sendall(whole[:end])
    assert issued(daemon) == before


def test_random_bytes(daemon: Daemon) -> None:
    source = random.Random(20261123)
    for _ in range(500):
        with connect(daemon) as sock, contextlib.suppress(OSError):
            sock.sendall(source.randbytes(source.randrange(1, 300)))
            sock.shutdown(socket.SHUT_WR)
            answers_until_closed(sock)


def test_a_thousand_slow_connections(daemon: Daemon) -> None:
    """Each begins a message and stalls; all are cut at the deadline, and others are served meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with contextlib.ExitStack() as stack, daemon.client() as client:
            slow = [stack.enter_context(connect(daemon)) for _ in range(1000)]
            for sock in slow:
                sock.sendall(PLANTED[:10])
            started = time.monotonic()
            client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=SPEC)
            assert time.monotonic() - started < 1.0
            for sock in slow:
                assert answers_until_closed(sock) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert daemon.status()["connections"] == 1


def test_a_client_that_reads_no_answers_is_cut_and_its_pairs_are_burnt(daemon: Daemon) -> None:
    before = daemon.status()
    with connect(daemon) as sock:
        sock.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            for number in range(100_000):
                sock.send(request(number % 2**32))
                sent += 1
        sock.settimeout(20)
        while sock.recv(1, socket.MSG_PEEK) and daemon.status()["connections"] > 1:
            pass  # its own deadline cuts it
    after = daemon.status()
    burnt = after["discarded"][SPEC]["client_gone"] - before["discarded"].get(SPEC, {}).get("client_gone", 0)
    assert burnt > 0
    pool = after["pools"][SPEC]
    assert pool["generated"] == sum(pool[n] for n in ("issued", "discarded", "held", "ready", "in_hand"))


def test_administration_is_not_for_the_client_socket(daemon: Daemon) -> None:
    assert stat.S_IMODE(os.stat(daemon.admin_socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == 0o660
