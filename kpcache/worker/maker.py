"""A maker: makes pairs to order, checks them, hands them to its shard over the pipe that is its stdin.

It holds nothing worth saving, so it has one way to stop: to be killed, by its shard or, when the shard
dies, by the kernel. It ends by itself when its pipe does. What is said over the pipe: ``worker/__init__``.
"""

import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from kpcache.core.pair import handover_digest
from kpcache.core.pipe import FrameReader, encode
from kpcache.core.specs import SPECS
from kpcache.worker import process
from kpcache.worker.background import Background, parse_scheduling
from kpcache.worker.checks import check, tags
from kpcache.worker.generate import generate, reseeder

_RECEIVE_BYTES: Final = 4096
# A quick spec's pairs travel together, since a frame costs as much as some of them; an RSA pair never
# waits for the next.
_MAX_BATCH_PAIRS: Final = 32
_MAX_BATCH_S: Final = 0.05


class Maker:
    """The work of one maker process, after its init."""

    def __init__(
        self, pipe: socket.socket, tag_key: bytes, generation: int, before_key: Callable[[], None]
    ) -> None:
        """``before_key`` is called before each key's first random byte."""
        self._pipe = pipe
        self._tag_key = tag_key
        self._generation = generation
        self._before_key = before_key

    def make(self, order: int, spec: str, count: int) -> None:
        """Carry out one order. Raises ``OSError`` when the shard is gone."""
        left = count
        while left:
            made, frames = self._make_batch(order, spec, left)
            left -= made
            if not left:
                frames += encode(["done", order])
            # One write: each wakes the shard and then the daemon.
            self._pipe.sendall(frames)

    def _make_batch(self, order: int, spec: str, left: int) -> tuple[int, bytes]:
        """Make and check some pairs; returns how many, sound or not, and the frames that tell of them."""
        limit = 1 if SPECS[spec].family == "rsa" else min(left, _MAX_BATCH_PAIRS)
        batch: list[list[Any]] = []
        frames = b""
        made, cpu_s, deadline = 0, time.process_time(), time.monotonic() + _MAX_BATCH_S
        while made < limit and (not made or time.monotonic() < deadline):
            self._before_key()
            private, public = generate(spec)
            made += 1
            reason = check(spec, private, public)
            if reason:
                frames += encode(["unsound", order, spec, 1, reason])
            else:
                batch.append(self._close(spec, private, public))
        if batch:
            frames += encode(["made", order, spec, batch, time.process_time() - cpu_s])
        return made, frames

    def _close(self, spec: str, private: bytes, public: bytes) -> list[Any]:
        """The checked pair as it travels, with the hash that its last reader verifies."""
        digest = handover_digest(spec, self._generation, private, public)
        return [self._generation, private, public, digest, tags(spec, private, public, self._tag_key)]


def _run(pipe: socket.socket) -> None:
    background = Background()
    process.protect("kpcache-maker")
    process.die_with_parent(pipe)
    reseed = reseeder()
    maker: Maker | None = None

    def before_key() -> None:
        background.settle()
        reseed()

    reader = FrameReader()
    while data := pipe.recv(_RECEIVE_BYTES):
        for message in reader.feed(data):
            match message:
                case ["init", bytes(tag_key), scheduling, int(generation)] if maker is None:
                    chosen = parse_scheduling(scheduling)
                    maker = Maker(pipe, tag_key, generation, before_key)
                    # Ready before stepping back: behind busy processes the first order would come seconds
                    # later, and a maker that is missed is what a pool can least afford.
                    pipe.sendall(encode(["ready"]))
                    background.enter(chosen)
                case ["make", int(order), str(spec), int(count)] if maker is not None:
                    maker.make(order, spec, count)
                case _:
                    raise process.StartError("the shard said something that a maker does not know")


def main() -> int:
    """Exit status: 0 when the pipe ended, 3 when it cannot run here (the reason is on stderr)."""
    try:
        _run(socket.socket(fileno=0))
    except process.StartError as error:
        print(error, file=sys.stderr)
        return process.EXIT_CANNOT_START
    except ConnectionError:
        pass  # the shard is gone
    return 0


if __name__ == "__main__":
    sys.exit(main())
