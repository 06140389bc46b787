"""The blocking client against a stand-in server: what it returns, and what it survives."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kpcache import Client, load_private_key
from kpcache.client.connection import MAX_ANSWER_BYTES
from kpcache.client.members import DataKeyPairMembers
from kpcache.errors import (
    DaemonUnreachableError,
    InvalidCiphertextException,
    ThrottlingException,
    UnsupportedOperationException,
    ValidationException,
)
from tests.system.fake_server import FakeServer, encode_answer, status

P256: DataKeyPairMembers = {"KeyId": "alias/kpcache", "KeyPairSpec": "ECC_NIST_P256"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kpcache.sock"


@pytest.fixture
def server(path: Path) -> Iterator[FakeServer]:
    with FakeServer(path) as server:
        yield server


@pytest.fixture
def client(path: Path) -> Iterator[Client]:
    with Client(path, timeout_s=20.0) as client:
        yield client


def on_sleep(monkeypatch: pytest.MonkeyPatch, module: str, act: Callable[[], None]) -> None:
    """In ``module`` of the client, sleeping does ``act`` instead: the test decides what happens meanwhile."""
    stand_in = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _seconds: act())
    monkeypatch.setattr(f"kpcache.client.{module}.time", stand_in)


# What it returns


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256", "ECC_NIST_EDWARDS25519"])
def test_a_pair_loads_and_its_blob_opens_only_with_the_same_context(
    server: FakeServer, client: Client, spec: str
) -> None:
    context = {"app": "billing"}
    answer = client.generate_data_key_pair(KeyId="alias/kpcache", KeyPairSpec=spec, EncryptionContext=context)
    key = load_private_key(answer)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki == answer["PublicKey"]
    blob = answer["PrivateKeyCiphertextBlob"]
    opened = client.decrypt(CiphertextBlob=blob, EncryptionContext=MappingProxyType(context))
    assert opened["Plaintext"] == answer["PrivateKeyPlaintext"]
    again = load_private_key(opened).public_key()
    assert again.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == spki
    with pytest.raises(InvalidCiphertextException):
        client.decrypt(CiphertextBlob=blob)
    assert server.connections == 1


def test_without_plaintext_there_is_no_key_to_load(server: FakeServer, client: Client) -> None:
    answer = client.generate_data_key_pair_without_plaintext(**P256)
    assert "PrivateKeyPlaintext" not in answer
    with pytest.raises(ValueError, match="decrypt"):
        load_private_key(answer)
    assert server.requests[0][0] == "GenerateDataKeyPairWithoutPlaintext"


def test_wait_s_travels_as_an_option_and_only_when_given(server: FakeServer, client: Client) -> None:
    client.generate_data_key_pair(**P256)
    client.generate_data_key_pair(**P256, wait_s=0)
    client.generate_data_key_pair_without_plaintext(**P256, wait_s=0.5)
    assert [params for _, params in server.requests] == [
        [P256],
        [P256, {"wait_s": 0}],
        [P256, {"wait_s": 0.5}],
    ]


def test_ping_status_and_the_socket_in_use(server: FakeServer, client: Client, path: Path) -> None:
    assert client.socket_path is None
    assert client.ping()["ProtocolVersion"] == 1
    assert client.status() == server.status
    assert client.socket_path == str(path)


def test_an_answer_longer_than_one_receive_arrives_whole(server: FakeServer, client: Client) -> None:
    server.status = {"workers": [{"reason": "x" * 100}] * 2000}
    assert client.status() == server.status


def test_a_request_longer_than_the_socket_buffers_arrives_whole(server: FakeServer, client: Client) -> None:
    context = {"k": "v" * 1_000_000}
    members: DataKeyPairMembers = {**P256, "EncryptionContext": context}
    client.generate_data_key_pair_without_plaintext(**members)
    assert server.requests[0][1][0]["EncryptionContext"] == context


def test_errors_are_classes_named_as_kms_names_them(server: FakeServer, client: Client) -> None:
    with pytest.raises(UnsupportedOperationException, match="SM2"):
        client.generate_data_key_pair(KeyId="k", KeyPairSpec="SM2")
    server.dry_after = 0
    with pytest.raises(ThrottlingException) as caught:
        client.generate_data_key_pair(**P256)
    assert (caught.value.reason, caught.value.retry_after_s) == ("pool_dry", 0.5)
    assert server.connections == 1


def test_a_member_that_cannot_be_sent_is_refused_here_and_harms_nothing(
    server: FakeServer, client: Client
) -> None:
    with pytest.raises(ValidationException):
        client.decrypt(CiphertextBlob=object())  # type: ignore[arg-type]
    assert client.ping()
    assert [method for method, _ in server.requests] == ["kpcache.Ping"]


def test_a_closed_client_says_so(server: FakeServer, client: Client) -> None:
    client.ping()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.ping()
    assert server.connections == 1


# What it survives


def test_a_restart_goes_unnoticed(server: FakeServer, client: Client, path: Path) -> None:
    client.ping()
    server.close()
    with FakeServer(path) as successor:
        assert client.ping()
        assert len(successor.requests) == 1


def test_all_idle_connections_may_be_stale_at_once(server: FakeServer, client: Client, path: Path) -> None:
    barrier = threading.Barrier(4, timeout=20)

    def meet(_number: int, _msgid: int) -> None:
        barrier.wait()

    server.fault = meet
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: client.ping(), range(4)))
    assert server.connections == 4
    server.close()
    with FakeServer(path) as successor:
        assert client.ping()
        assert successor.connections == 1


def test_it_looks_for_a_daemon_that_was_there_before(
    server: FakeServer, client: Client, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.ping()
    server.close()
    successors: list[FakeServer] = []
    on_sleep(monkeypatch, "pool", lambda: successors.append(FakeServer(path)))
    assert client.ping()
    assert len(successors) == 1
    successors[0].close()


def test_it_looks_no_longer_than_it_may(server: FakeServer, path: Path) -> None:
    with Client(path, reconnect_s=0.02) as client:
        client.ping()
        server.close()
        with pytest.raises(DaemonUnreachableError, match=str(path)):
            client.ping()


def test_where_no_daemon_was_met_it_does_not_wait(
    client: Client, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_sleep(monkeypatch, "pool", lambda: pytest.fail("it waited"))
    with pytest.raises(DaemonUnreachableError, match=str(path)) as caught:
        client.ping()
    assert caught.value.exit_code == 3


def test_a_draining_daemons_successor_is_asked(
    server: FakeServer, client: Client, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.ping()
    server.draining = True
    successors: list[FakeServer] = []

    def restart() -> None:
        server.close()
        successors.append(FakeServer(path))

    on_sleep(monkeypatch, "client", restart)
    assert client.generate_data_key_pair(**P256)
    assert len(successors) == 1
    successors[0].close()


def test_without_a_successor_the_drain_is_told(server: FakeServer, path: Path) -> None:
    server.draining = True
    with Client(path, reconnect_s=0.0) as client, pytest.raises(ThrottlingException) as caught:
        client.ping()
    assert caught.value.reason == "draining"


def test_the_request_is_repeated_once_and_no_more(server: FakeServer, client: Client) -> None:
    server.fault = lambda _number, _msgid: []
    with pytest.raises(DaemonUnreachableError, match="twice"):
        client.generate_data_key_pair(**P256)
    assert len(server.requests) == 2


def test_an_answer_cut_in_the_middle_is_asked_for_again(server: FakeServer, client: Client) -> None:
    def cut_the_first(number: int, msgid: int) -> list[bytes] | None:
        return [encode_answer(msgid, None, {"KeyMetadata": {}})[:-1]] if number == 1 else None

    server.fault = cut_the_first
    assert client.describe_key(KeyId="k")["KeyMetadata"]["Arn"]
    assert len(server.requests) == 2


def test_an_answer_in_single_bytes_is_an_answer(server: FakeServer, client: Client) -> None:
    server.fault = lambda _number, msgid: [
        bytes([byte]) for byte in encode_answer(msgid, None, {"Version": "piecemeal"})
    ]
    assert client.ping()["Version"] == "piecemeal"


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda msgid: encode_answer(msgid + 1, None, {}),
        lambda msgid: encode_answer(msgid, None, {}) * 2,
        lambda msgid: encode_answer(msgid, None, {"a": "b" * 40_000}) + b"\xc0",
        lambda msgid: msgpack.packb([1, msgid, None, [1, 2]]),
        lambda msgid: msgpack.packb([1, msgid, None, None]),
        lambda msgid: msgpack.packb([0, msgid, "kpcache.Ping", [{}]]),
        lambda msgid: msgpack.packb([1, msgid, None, {"a": msgpack.ExtType(5, b"x")}]),
        lambda _msgid: b"\xc1",
        lambda _msgid: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        lambda msgid: encode_answer(msgid, None, {"a": b"x" * MAX_ANSWER_BYTES}),
    ],
    ids=["other msgid", "two answers", "long, and more", "a list", "nothing", "a request", "ext type",
         "no msgpack", "http", "too long"],
)  # fmt: skip
def test_what_is_not_the_answer_is_never_returned(
    server: FakeServer, client: Client, nonsense: Callable[[int], bytes]
) -> None:
    server.fault = lambda number, msgid: [nonsense(msgid)] if number <= 2 else None
    with pytest.raises(DaemonUnreachableError, match="twice"):
        client.ping()
    assert client.ping()


def test_a_silent_daemon_costs_the_time_limit_and_a_late_answer_meets_nobody(path: Path) -> None:
    asked_twice = threading.Event()

    def late(number: int, msgid: int) -> list[bytes] | None:
        if number == 1:
            asked_twice.wait(20)
            return [encode_answer(msgid, None, {"Version": "late"})]
        asked_twice.set()
        return None

    with FakeServer(path, fault=late) as server, Client(path, timeout_s=0.05) as client:
        with pytest.raises(DaemonUnreachableError, match=r"did not answer within 0\.05 s"):
            client.ping()
        assert client.ping()["Version"] != "late"
        assert server.connections == 2


def test_a_call_that_may_wait_longer_has_the_time_to(path: Path) -> None:
    never = threading.Event()

    def slowly(number: int, _msgid: int) -> None:
        if number > 1:
            never.wait(0.3)

    with FakeServer(path, fault=slowly), Client(path, timeout_s=0.1) as client:
        client.ping()
        assert client.generate_data_key_pair(**P256, wait_s=20.0)


def test_an_answer_that_trickles_does_not_stretch_the_time_limit(path: Path) -> None:
    gone = threading.Event()

    def trickle(_number: int, msgid: int) -> Iterator[bytes]:
        # Each byte well within the limit, the last one far beyond it.
        for byte in encode_answer(msgid, None, {"Version": "x" * 100}):
            gone.wait(0.05)
            yield bytes([byte])

    with FakeServer(path, fault=trickle), Client(path, timeout_s=0.2) as client:
        with pytest.raises(DaemonUnreachableError, match="did not answer"):
            client.ping()
        gone.set()


def test_an_interrupted_call_leaves_no_answer_for_the_next(server: FakeServer, client: Client) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def interrupt(number: int, _msgid: int) -> None:
        if number == 1:
            signal.pthread_kill(main, signal.SIGUSR1)

    def handler(_signal: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    server.fault = interrupt
    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            client.ping()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert client.status() == status()
    assert server.connections == 2


# Threads and processes


def test_threads_share_a_bounded_number_of_connections(server: FakeServer, path: Path) -> None:
    with Client(path, max_connections=3) as client, ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: client.generate_data_key_pair(**P256), range(120)))
    assert len({answer["PrivateKeyPlaintext"] for answer in answers}) == 120
    assert server.connections <= 3


def test_a_call_that_finds_all_connections_busy_gives_up_in_time(path: Path) -> None:
    asked, go = threading.Event(), threading.Event()

    def hold(_number: int, _msgid: int) -> None:
        asked.set()
        go.wait(20)

    with FakeServer(path, fault=hold), ThreadPoolExecutor(1) as thread:
        client = Client(path, timeout_s=20.0, max_connections=1)
        first = thread.submit(client.ping)
        assert asked.wait(20)
        client._timeout_s = 0.02
        with pytest.raises(DaemonUnreachableError, match="max_connections"):
            client.ping()
        go.set()
        assert first.result()
        client.close()


FORKS = """
import os, sys
from kpcache import Client
client = Client(sys.argv[1])
client.ping()
child = os.fork()
if child == 0:
    ok = client.ping()["ProtocolVersion"] == 1
    client.close()
    os._exit(0 if ok else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
client.ping()
client.close()
"""


def test_a_forked_child_has_a_connection_of_its_own(server: FakeServer, path: Path) -> None:
    subprocess.run([sys.executable, "-c", FORKS, str(path)], check=True, timeout=60)
    # One for the parent, which outlives its child's closing, and one for the child.
    assert server.connections == 2
    assert len(server.requests) == 3


def test_a_child_forked_while_another_thread_held_the_lock_is_not_stuck(
    server: FakeServer, client: Client
) -> None:
    client.ping()
    client._pool._lock.acquire()
    client._pool.after_fork_in_child()
    assert client.ping()
    assert server.connections == 2


# Whom it believes


def test_a_stranger_is_sent_nothing(
    server: FakeServer, client: Client, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_about: list[int] = []

    def distrust(_path: str, uid: int, _environ: object) -> str:
        asked_about.append(uid)
        return "it is a stranger"

    monkeypatch.setattr("kpcache.client.connection.why_not_trusted", distrust)
    with pytest.raises(DaemonUnreachableError, match=f"{path} is not trusted: it is a stranger"):
        client.ping()
    assert asked_about == [os.geteuid()]
    assert server.requests == []


def test_importing_the_client_loads_no_more_than_it_needs() -> None:
    script = (
        "import sys, kpcache; kpcache.Client; kpcache.load_private_key;"
        "print([m for m in ('trio', 'boto3', 'cryptography', 'rich', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
