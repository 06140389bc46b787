"""A maker: makes pairs to order, checks them, hands them to its shard over the pipe that is its stdin.

It holds nothing worth saving, so it has one way to be stopped: to be killed, by its shard or, when the
shard dies, by the kernel. It ends by itself when its pipe does, and when it is spent: it has made enough
keys, or its machine was copied. What is said over the pipe: ``worker/__init__``.
"""

import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kpcache.core.pair import handover_digest
from kpcache.core.pipe import FrameReader, encode
from kpcache.core.specs import SPECS
from kpcache.worker import process
from kpcache.worker.background import Background, parse_scheduling
from kpcache.worker.checks import check, tags
from kpcache.worker.generate import generate, reseeder
from kpcache.worker.generation import GenerationError, Source, reopen

_RECEIVE_BYTES: Final = 4096
# A quick spec's pairs travel together, since a frame costs as much as some of them; an RSA pair never
# waits for the next.
_MAX_BATCH_PAIRS: Final = 32
_MAX_BATCH_S: Final = 0.05


class SpentError(Exception):
    """This process must make no more keys: another one shall. The text says why, for tests."""


@dataclass(frozen=True, slots=True)
class Life:
    """How long a maker works: until so many keys or seconds, whichever comes first, at the end of an order.

    ``is_reseeded``: fresh randomness is mixed in before each key. Without, it is one key and no more, of an
    order of any size: OpenSSL's generator is seeded when it is first asked, which is that key's first byte.
    """

    max_keys: int
    max_age_s: float
    is_reseeded: bool = True


class Maker:
    """The work of one maker process, after its init."""

    def __init__(
        self,
        pipe: socket.socket,
        tag_key: bytes,
        source: Source,
        life: Life,
        before_key: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``source`` tells the generation, which must stay what it is now. ``before_key`` is called before
        each key's first random byte."""
        self._pipe = pipe
        self._tag_key = tag_key
        self._source = source
        self._generation = source.read()
        self._life = life
        self._before_key = before_key
        self._clock = clock
        self._born = clock()
        self._keys = 0

    def make(self, order: int, spec: str, count: int) -> None:
        """Carry out one order. Raises ``OSError`` when the shard is gone, and ``SpentError``, after the order
        or within it: what is left of it is then void."""
        left = count
        while left:
            made, frames = self._make_batch(order, spec, left)
            left -= made
            self._keys += made
            if not left:
                frames += encode(["done", order])
            # One write: each wakes the shard and then the daemon.
            self._pipe.sendall(frames)
            if not self._life.is_reseeded:
                raise SpentError("one key a process: this cryptography has no way to mix in randomness")
        if self._keys >= self._life.max_keys or self._clock() - self._born >= self._life.max_age_s:
            raise SpentError("it has worked long enough")

    def _make_batch(self, order: int, spec: str, left: int) -> tuple[int, bytes]:
        """Make and check some pairs; returns how many, sound or not, and the frames that tell of them."""
        limit = (
            1 if SPECS[spec].family == "rsa" or not self._life.is_reseeded else min(left, _MAX_BATCH_PAIRS)
        )
        batch: list[list[Any]] = []
        took_s: list[float] = []
        frames = b""
        made, cpu_s, deadline = 0, time.process_time(), time.monotonic() + _MAX_BATCH_S
        while made < limit and (not made or time.monotonic() < deadline):
            self._require_same_machine()
            self._before_key()
            begun = time.perf_counter()
            private, public = generate(spec)
            made += 1
            reason = check(spec, private, public)
            ended = time.perf_counter()
            if reason:
                frames += encode(["unsound", order, spec, 1, reason])
            else:
                batch.append(self._close(spec, private, public))
                took_s.append(ended - begun)
        # A copy made within a key leaves twins that are equal or, worse, share one prime of two.
        self._require_same_machine()
        if batch:
            frames += encode(["made", order, spec, batch, time.process_time() - cpu_s, took_s])
        return made, frames

    def _require_same_machine(self) -> None:
        """Raises ``SpentError``: then nothing may leave that was made since this was last called."""
        if self._source.read() != self._generation:
            raise SpentError("the machine was copied")

    def _close(self, spec: str, private: bytes, public: bytes) -> list[Any]:
        """The checked pair as it travels, with the hash that its last reader verifies."""
        digest = handover_digest(spec, self._generation, private, public)
        return [self._generation, private, public, digest, tags(spec, private, public, self._tag_key)]


def _run(pipe: socket.socket) -> None:
    background = Background()
    process.protect("kpcache-maker")
    process.die_with_parent(pipe)
    maker: Maker | None = None
    reader = FrameReader()
    while data := pipe.recv(_RECEIVE_BYTES):
        for message in reader.feed(data):
            match message:
                case ["init", dict(settings)] if maker is None:
                    chosen = parse_scheduling(settings["scheduling"])
                    maker = _from_settings(pipe, settings, background)
                    # Ready before stepping back: behind busy processes the first order would come seconds
                    # later, and a maker that is missed is what a pool can least afford.
                    pipe.sendall(encode(["ready"]))
                    background.enter(chosen)
                case ["make", int(order), str(spec), int(count)] if maker is not None:
                    try:
                        maker.make(order, spec, count)
                    except SpentError:
                        pipe.sendall(encode(["spent"]))
                        return
                case _:
                    raise process.StartError("the shard said something that a maker does not know")


def _from_settings(pipe: socket.socket, settings: dict[str, Any], background: Background) -> Maker:
    """Raises ``StartError`` where copies of the machine cannot be noticed as they should."""
    try:
        mode, path = settings["guard"]
        source = reopen(mode, path, settings["generation"])
    except GenerationError as error:
        raise process.StartError(f"copies of this machine could not be noticed: {error}") from error
    reseed = reseeder()

    def before_key() -> None:
        background.settle()
        if reseed is not None:
            reseed()

    life = Life(settings["max_keys"], settings["max_age_s"], is_reseeded=reseed is not None)
    return Maker(pipe, settings["tag_key"], source, life, before_key)


def main() -> int:
    """Exit status: 0 when the pipe ended or it is spent, 3 when it cannot run here (the reason is on
    stderr)."""
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
