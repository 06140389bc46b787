"""The pairs of one shard: unrecorded until the daemon's verdict, then held, and forgotten when drawn.

Not a table of states: the daemon keeps the life of every pair (``core/pool``). This is where the bytes are.
"""

from collections import deque
from typing import Any, Final, NamedTuple

from kpcache.core.segment import Row

# Well under a frame's limit (core/pipe), so that a batch always fits one frame.
_MAX_BATCH_BYTES: Final = 8 * 1024 * 1024


class HeldPair(NamedTuple):
    """One pair. ``serial`` is unique within one shard process. What follows is ``segment.Row``'s, of which a
    batch has the first four."""

    serial: int
    generation: int
    private: bytes
    public: bytes
    digest: bytes
    tags: bytes
    made_s: float

    def __repr__(self) -> str:
        return f"<HeldPair {self.serial}>"


class HoldingError(Exception):
    """The daemon spoke of a pair that is not waiting for its verdict: a defect on its side."""


class Holding:
    """A pair is in exactly one place: unrecorded, held, or gone."""

    def __init__(self) -> None:
        self._next_serial = 1
        self._sequence = 0
        self._unrecorded: dict[int, tuple[str, HeldPair]] = {}
        self._held: dict[str, deque[HeldPair]] = {}

    @property
    def size(self) -> int:
        """Pairs that are here, unrecorded ones included."""
        return len(self._unrecorded) + sum(map(len, self._held.values()))

    def add(self, row: Row) -> int:
        """Take in a sound pair, not to be drawn before ``record``; returns its serial number."""
        serial = self._next_serial
        self._next_serial += 1
        self._unrecorded[serial] = (row.spec, HeldPair(serial, *row[1:]))
        return serial

    def record(self, serials: list[int]) -> None:
        """The pairs are recorded and now held. Raises ``HoldingError``."""
        for serial in serials:
            spec, pair = self._take_unrecorded(serial)
            self._held.setdefault(spec, deque()).append(pair)

    def refuse(self, serials: list[int]) -> None:
        """The pairs are refused: forget them. Raises ``HoldingError``."""
        for serial in serials:
            self._take_unrecorded(serial)

    def _take_unrecorded(self, serial: int) -> tuple[str, HeldPair]:
        try:
            return self._unrecorded.pop(serial)
        except (KeyError, TypeError) as error:
            raise HoldingError("a verdict on a pair that waits for none") from error

    def draw(self, spec: str, count: int) -> tuple[int, list[HeldPair]]:
        """Forget the oldest ``count`` held pairs, or as many as there are, and return them with the
        batch's sequence number, which is one above the last batch's.

        They are gone from here before the caller can write a byte of them: whatever happens to the
        batch then, no later one can hold them again.
        """
        held = self._held.get(spec, deque())
        batch: list[HeldPair] = []
        room = _MAX_BATCH_BYTES
        while held and len(batch) < count and room > 0:
            pair = held.popleft()
            room -= len(pair.private) + len(pair.public)
            batch.append(pair)
        self._sequence += 1
        return self._sequence, batch

    def burn(self, spec: str, count: int) -> None:
        """Forget the oldest ``count`` held pairs for good, or as many as there are."""
        held = self._held.get(spec, deque())
        for _ in range(min(count, len(held))):
            held.popleft()

    def take_oldest(self, spec: str) -> HeldPair | None:
        """Forget the oldest held pair and return it; None if none is held."""
        held = self._held.get(spec)
        return held.popleft() if held else None


def is_pair(pair: Any) -> bool:
    """Whether a row of a maker's ``made`` is one."""
    if not isinstance(pair, list) or len(pair) != 5:
        return False
    generation, *parts, tags = pair
    return (
        isinstance(generation, int)
        and all(isinstance(part, bytes) for part in parts)
        and isinstance(tags, list)
        and all(isinstance(tag, bytes) for tag in tags)
    )


def row_of(spec: str, pair: list[Any], made_s: float) -> Row:
    """Such a row, as it is kept."""
    generation, private, public, digest, tags = pair
    return Row(spec, generation, private, public, digest, b"".join(tags), made_s)
