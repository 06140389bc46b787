"""The daemon's end of one real shard, for tests: sends, expects, and leaves nothing behind."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kpcache import __version__
from kpcache.core.pipe import FrameReader, encode
from kpcache.worker import process

ANSWER_TIMEOUT_S = 20.0  # how long a test waits for what must come; no test passes by waiting
TAG_KEY = b"k" * 32


def maker_settings(scheduling: str) -> dict[str, Any]:
    """What makers are told, of a machine whose copies nobody notices."""
    return {
        "tag_key": TAG_KEY,
        "scheduling": scheduling,
        "generation": 0,
        "guard": ["none", ""],
        "max_keys": 1_000_000,
        "max_age_s": 3600.0,
    }


class ShardDriver:
    """Plays the daemon to one shard process."""

    def __init__(
        self,
        *,
        scheduling: str = "idle",
        version: str = __version__,
        cwd: Path | str = "/",
        inherit: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        reserve: dict[str, Any] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        """``command`` is a program in the place of the shard's."""
        self.pipe, theirs = socket.socketpair()
        self.pipe.settimeout(ANSWER_TIMEOUT_S)
        with theirs:
            self.process = subprocess.Popen(
                [*prefix, *(command or process.command("kpcache.worker.shard"))],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=process.environment({**os.environ, **(inherit or {})}),
            )
        self._reader = FrameReader()
        self._messages: list[list[Any]] = []
        self._pidfds: dict[int, int] = {}
        init = {
            "shard": 0,
            "version": version,
            "maker": maker_settings(scheduling),
            "reserve": reserve,
        }
        self.send("init", init)

    def send(self, *message: Any) -> None:
        self.pipe.sendall(encode(list(message)))

    def receive(self) -> list[Any]:
        """The next message; fails the test when the shard ends instead."""
        while not self._messages:
            data = self.pipe.recv(1 << 20)
            assert data, f"the shard ended: {self.process.communicate()[1]!r}"
            self._messages += self._reader.feed(data)
        return self._messages.pop(0)

    def expect(self, name: str) -> list[Any]:
        message = self.receive()
        assert message[0] == name, message[:4]
        return message[1:]

    def start_maker(self, number: int = 0) -> int:
        """Start one and wait until it is up; returns its pid."""
        self.send("start_maker", number)
        got, state, pid, reason = self.expect("maker")
        assert (got, state, reason) == (number, "up", "")
        if number in self._pidfds:
            os.close(self._pidfds[number])
        self._pidfds[number] = os.pidfd_open(pid)
        return int(pid)

    def make(self, spec: str, count: int, *, maker: int = 0, order: int = 1) -> list[list[Any]]:
        """Order and receive pairs: ``[serial, tags, public]`` of each."""
        self.send("make", maker, order, spec, count)
        made: list[list[Any]] = []
        while len(made) < count:
            got_maker, got_order, got_spec, pairs, keygen_s, took_s = self.expect("made")
            assert (got_maker, got_order, got_spec) == (maker, order, spec)
            assert keygen_s > 0
            assert len(took_s) == len(pairs)
            assert all(each_s > 0 for each_s in took_s)
            made += pairs
        assert self.expect("done") == [maker, order]
        return made

    def fill(self, spec: str, count: int) -> list[int]:
        """Make pairs and hold them; returns their serial numbers."""
        serials = [serial for serial, *_ in self.make(spec, count)]
        self.send("verdict", serials, [])
        return serials

    def draw(self, spec: str, count: int, draw: int = 1) -> tuple[int, list[list[Any]]]:
        """Returns the batch's sequence number and its pairs."""
        self.send("draw", draw, spec, count)
        got_draw, sequence, got_spec, pairs = self.expect("batch")
        assert (got_draw, got_spec) == (draw, spec)
        return sequence, pairs

    def ended_within(self, seconds: float) -> bool:
        """Whether the shard and all its makers end within ``seconds`` in all."""
        deadline = time.monotonic() + seconds
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return not _running_after(self._pidfds.values(), deadline - time.monotonic())

    def maker_ended_within(self, number: int, seconds: float) -> bool:
        return not _running_after([self._pidfds[number]], seconds)

    def close(self) -> None:
        """End the shard and fail if any maker outlives it."""
        with contextlib.suppress(OSError):
            self.pipe.close()
        self.process.kill()
        self.process.communicate()
        left = _running_after(self._pidfds.values(), ANSWER_TIMEOUT_S)
        for fd in self._pidfds.values():
            os.close(fd)
        assert not left, "makers outlived their shard"


def _running_after(pidfds: Iterable[int], seconds: float) -> set[int]:
    """Those of the processes that are still there after ``seconds``; returns as soon as none is."""
    deadline = time.monotonic() + seconds
    running = set(pidfds)
    ends = select.poll()
    for fd in running:
        ends.register(fd, select.POLLIN)
    while running and (left_s := deadline - time.monotonic()) > 0:
        for fd, _ in ends.poll(left_s * 1000):
            ends.unregister(fd)
            running.remove(fd)
    return running


@contextlib.contextmanager
def shard(**options: Any) -> Iterator[ShardDriver]:
    """A shard that has said it is ready, and its makers, all gone at the end."""
    driver = ShardDriver(**options)
    try:
        assert driver.expect("ready") == []
        yield driver
    finally:
        driver.close()


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """So many processes that keep a CPU busy at normal priority."""
    running = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in running:
            hog.kill()
        for hog in running:
            hog.wait()
