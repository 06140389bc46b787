"""The bench's own end of one real shard with its makers: what a draw costs, without a daemon around it."""

import contextlib
import os
import socket
import time
from typing import Any

from bench.daemon import BenchError
from bench.nest import Nest
from kpcache import __version__
from kpcache.core.pipe import FrameReader, encode
from kpcache.worker import process as worker_process

_ANSWER_TIMEOUT_S = 60.0
_MAX_ORDER = 64
# More than can be made while the bench runs: the makers are never done with it.
_ENDLESS = 1_000_000


def maker_settings() -> dict[str, Any]:
    """What a maker is told: that nobody notices copies of this machine, and to work on for ever."""
    return {
        "tag_key": os.urandom(32),
        "scheduling": "idle",
        "generation": 0,
        "guard": ["none", ""],
        "max_keys": _ENDLESS,
        "max_age_s": 86_400.0,
    }


class Shard:
    """Plays the daemon to one shard."""

    def __init__(self, nest: Nest, makers: int) -> None:
        self.makers = makers
        self._pipe, theirs = socket.socketpair()
        with theirs:
            nest.start(worker_process.command("kpcache.worker.shard"), stdin=theirs.fileno(), log="shard.log")
        self._pipe.settimeout(_ANSWER_TIMEOUT_S)
        self._reader = FrameReader()
        self._messages: list[list[Any]] = []
        self._draws = self._orders = 0
        init = {
            "shard": 0,
            "version": __version__,
            "maker": maker_settings(),
            "reserve": None,
        }
        self._send("init", init)
        self._expect("ready")
        for maker in range(makers):
            self._send("start_maker", maker)
            if self._expect("maker")[2] != "up":
                raise BenchError("a maker does not start")

    def stock(self, spec: str, count: int) -> None:
        """Have ``count`` pairs made and held."""
        while count > 0:
            self._order(0, spec, min(count, _MAX_ORDER))
            count -= self._hold_until_done()

    def make_for_ever(self, spec: str) -> None:
        """Have all makers make a spec from now on; what they make is not taken in."""
        for maker in range(self.makers):
            self._order(maker, spec, _ENDLESS)

    def draw(self, spec: str, count: int) -> float:
        """Draw ``count`` held pairs; seconds from the request to the last byte. Raises ``BenchError``."""
        self._draws += 1
        started = time.perf_counter()
        self._send("draw", self._draws, spec, count)
        batch = self._expect("batch")
        seconds = time.perf_counter() - started
        if len(batch[4]) != count:
            raise BenchError("the shard held fewer pairs than were drawn")
        return seconds

    def close(self) -> None:
        """The shard and its makers end with their pipe."""
        with contextlib.suppress(OSError):
            self._pipe.close()

    def _order(self, maker: int, spec: str, count: int) -> None:
        self._orders += 1
        self._send("make", maker, self._orders, spec, count)

    def _hold_until_done(self) -> int:
        held = 0
        while (message := self._receive())[0] != "done":
            if message[0] == "made":
                serials = [serial for serial, _ in message[4]]
                self._send("verdict", serials, [])
                held += len(serials)
        return held

    def _expect(self, name: str) -> list[Any]:
        """The next message of that name; pairs that come meanwhile are not for us."""
        while (message := self._receive())[0] != name:
            if message[0] != "made":
                raise BenchError(f"the shard says {message[0]} where {name} was due")
        return message

    def _send(self, *message: Any) -> None:
        self._pipe.sendall(encode(list(message)))

    def _receive(self) -> list[Any]:
        while not self._messages:
            data = self._pipe.recv(1 << 20)
            if not data:
                raise BenchError("a shard has ended")
            self._messages += self._reader.feed(data)
        return self._messages.pop(0)
