"""A maker that misbehaves is ended and reported with the reason, and the shard goes on answering draws."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kpcache import __version__
from kpcache.core.pipe import FrameReader, encode
from kpcache.worker import process
from kpcache.worker.shard import DaemonGoneError, Shard
from tests.system.shard_driver import maker_settings

SPEC = "ECC_NIST_P256"
PAIR = [7, b"private", b"public", b"digest", [b"tag"]]

# Reads its init and an order, sends the bytes given as hex, and waits for its pipe to end.
_LIAR = """
import os, socket, sys
pipe = socket.socket(fileno=0)
pipe.recv(4096)
pipe.sendall(bytes.fromhex({said!r}))
while pipe.recv(4096):
    pass
"""
_MANY_LINES = "import sys; print('first\\n' + 'x' * 5000 + '\\n\\n', file=sys.stderr); sys.exit(3)"


class InProcess:
    """A shard in a thread of this process, whose makers run a given source instead."""

    def __init__(self) -> None:
        self.pipe, self._theirs = socket.socketpair()
        self.pipe.settimeout(20)
        self._reader = FrameReader()
        self._messages: list[list[Any]] = []
        self._shard = Shard(self._theirs)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        told = {"shard": 0, "version": __version__, "maker": maker_settings("normal"), "reserve": None}
        self.send("init", told)
        assert self.receive() == ["ready"]

    def _run(self) -> None:
        with contextlib.suppress(DaemonGoneError):
            self._shard.run()
        self._shard.stop()

    def send(self, *message: Any) -> None:
        self.pipe.sendall(encode(list(message)))

    def receive(self) -> list[Any]:
        while not self._messages:
            self._messages += self._reader.feed(self.pipe.recv(65536))
        return self._messages.pop(0)

    def close(self) -> None:
        self.pipe.close()
        self._thread.join()
        self._theirs.close()


StartShard = Callable[[str], InProcess]


@pytest.fixture
def start_shard(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartShard]:
    with contextlib.ExitStack() as stack:

        def start(source: str) -> InProcess:
            def spawn(_module: str, stdin: int, stderr: int) -> int:
                actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stderr, 2)]
                argv = [sys.executable, "-c", source]
                return os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions)

            monkeypatch.setattr(process, "spawn", spawn)
            shard = InProcess()
            stack.callback(shard.close)
            return shard

        yield start


def made(
    order: object = 1,
    spec: object = SPEC,
    pairs: object = (PAIR,),
    keygen_s: object = 0.1,
    took_s: object = (0.1,),
) -> bytes:
    return encode(["made", order, spec, pairs, keygen_s, took_s])


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 8,
        encode(["nonsense"]),
        made(order=2),
        made(spec="RSA_2048"),
        made(pairs=[PAIR] * 3, took_s=[0.1] * 3),
        made(pairs=[], took_s=[]),
        made(pairs=[[7, b"private", b"public", b"digest"]]),
        made(pairs=[[7, b"private", "public", b"digest", [b"tag"]]]),
        made(pairs=[[7, b"private", b"public", b"digest", ["tag"]]]),
        made(pairs=[None]),
        made(keygen_s="x"),
        made(took_s=[]),
        made(took_s=["x"]),
        made(took_s=[float("nan")]),
        made(took_s=[-1.0]),
        made(took_s=None),
        encode(["unsound", 1, SPEC, -1, "reason"]),
        encode(["unsound", 1, SPEC, 3, "reason"]),
        encode(["done", 1]),
        encode(["done", []]),
    ],
)
def test_a_maker_that_talks_nonsense_is_ended(start_shard: StartShard, said: bytes) -> None:
    """None of its pairs is taken in, also not those behind the nonsense."""
    shard = start_shard(_LIAR.format(said=(said + made()).hex()))
    shard.send("start_maker", 0)
    shard.send("make", 0, 1, SPEC, 2)
    name, number, state, _, reason = shard.receive()
    assert (name, number, state) == ("maker", 0, "lost")
    assert reason
    assert not reason.startswith("signal")
    shard.send("draw", 1, SPEC, 1)
    assert shard.receive() == ["batch", 1, 1, SPEC, []]


def test_an_honest_stand_in_passes(start_shard: StartShard) -> None:
    """So the stand-ins above fail for what they say and for nothing else."""
    said = encode(["ready"]) + made() + encode(["unsound", 1, SPEC, 1, "reason"]) + encode(["done", 1])
    shard = start_shard(_LIAR.format(said=said.hex()))
    shard.send("start_maker", 0)
    shard.send("make", 0, 1, SPEC, 2)
    assert [shard.receive()[0] for _ in range(4)] == ["maker", "made", "unsound", "done"]
    shard.send("verdict", [1], [])
    shard.send("draw", 1, SPEC, 1)
    assert shard.receive() == ["batch", 1, 1, SPEC, [[1, *PAIR[:4]]]]


def test_an_order_more_than_one_in_work_and_one_next_ends_the_maker(start_shard: StartShard) -> None:
    shard = start_shard(_LIAR.format(said=""))
    shard.send("start_maker", 0)
    shard.send("make", 0, 1, SPEC, 1)
    shard.send("make", 0, 2, SPEC, 1)
    shard.send("make", 0, 3, SPEC, 1)
    assert "an order too many" in shard.receive()[4]


def test_a_maker_that_cannot_start_is_lost_with_its_last_words(start_shard: StartShard) -> None:
    """Cut, and no blank line taken for them."""
    shard = start_shard(_MANY_LINES)
    shard.send("start_maker", 0)
    assert shard.receive()[4] == f"exit 3: {'x' * 300}"


def test_pairs_sent_just_before_the_end_are_taken_in(start_shard: StartShard) -> None:
    source = _LIAR.format(said=made().hex()).partition("while")[0] + "os.kill(os.getpid(), 9)"
    shard = start_shard(source)
    shard.send("start_maker", 0)
    shard.send("make", 0, 1, SPEC, 2)
    assert shard.receive()[0] == "made"
    assert shard.receive()[4] == f"signal {signal.SIGKILL:d}"


def test_a_program_that_cannot_be_started_is_reported(
    start_shard: StartShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = start_shard("")

    def refuse(*_args: object) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(process, "spawn", refuse)
    before = set(os.listdir("/proc/self/fd"))
    shard.send("start_maker", 0)
    assert shard.receive() == ["maker", 0, "lost", 0, "cannot be started: No such file or directory"]
    assert set(os.listdir("/proc/self/fd")) == before
