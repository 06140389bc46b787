"""What is recorded of a pair, in batches; and what is known of two pairs that share a tag."""

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from kpcache.core.specs import SPECS

TAG_BYTES: Final = 16
FINGERPRINT_BYTES: Final = 8
_MAKER_START: Final = struct.Struct(">BHI")
MAKER_START_BYTES: Final = _MAKER_START.size
_SERIAL_BITS: Final = 32
LAST_SERIAL: Final = (1 << _SERIAL_BITS) - 1
# Of no batch: evidence that is recorded apart from its batch bears it.
ALARM_SERIAL: Final = 0
# The longest public key, of ML-KEM-1024, has 1,590 bytes.
MAX_PUBLIC_BYTES: Final = 4096


class MakerStart(NamedTuple):
    """Which process made a pair: ``start`` counts the starts of that maker in one life of the daemon."""

    shard: int
    maker: int
    start: int

    def pack(self) -> bytes:
        return _MAKER_START.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> "MakerStart":
        return cls(*_MAKER_START.unpack(data))

    def __str__(self) -> str:
        return f"maker {self.maker} of shard {self.shard}, start {self.start}"


class NewPair(NamedTuple):
    """A sound pair that nobody holds yet. ``serial`` is its number in its shard, ``public`` its DER SPKI."""

    serial: int
    tags: Sequence[bytes]
    public: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """Pairs of one spec that were reported together. ``settle`` is called once, when all of them are recorded
    durably: with the indexes of those that are duplicates."""

    spec: str
    by: MakerStart
    pairs: Sequence[NewPair]
    settle: Callable[["Made", frozenset[int]], None]


@dataclass(frozen=True, slots=True)
class Earlier:
    """The pair that was there first. ``fingerprint``: 8 bytes of SHA-256 of its SPKI; times are Unix seconds,
    to the minute; ``life`` counts the daemon's starts on this ledger."""

    fingerprint: bytes
    recorded_s: float
    by: MakerStart
    life: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A fresh pair that shares a prime or a public key with an earlier one. Nothing of it is secret."""

    spec: str
    public: bytes
    found_s: float
    by: MakerStart
    life: int
    earlier: Earlier

    @property
    def digest(self) -> bytes:
        """SHA-256 of the SPKI."""
        return hashlib.sha256(self.public).digest()


class Row(NamedTuple):
    """One tag: whose it is, by the indexes of ``Made`` in the batch and of the pair in that."""

    tag: bytes
    fingerprint: bytes
    made: int
    pair: int


@dataclass(slots=True)
class Batch:
    """Pairs that are recorded by one commit. ``number`` is given once, by the first attempt: rows that bear
    it, and are the same otherwise, are this batch's own, whatever became of an attempt that failed."""

    made: Sequence[Made]
    minute: int
    number: int = 0
    rows: list[Row] = field(default_factory=list)

    def lay_out(self, number: int) -> None:
        """Make the rows. A millisecond for the largest batch, so it is left to the thread that writes.

        The number comes last: a batch that has one has all its rows. Else what ran out of memory here would
        be tried again as an empty batch, and its pairs be held without being recorded.
        """
        self.rows = [
            Row(tag, fingerprint, position, index)
            for position, made in enumerate(self.made)
            for index, pair in enumerate(made.pairs)
            for fingerprint in [hashlib.sha256(pair.public).digest()[:FINGERPRINT_BYTES]]
            for tag in pair.tags
        ]
        self.number = number

    def parameters(self) -> dict[str, Any]:
        """For one statement that takes all rows: their columns end to end."""
        packed = [made.by.pack() for made in self.made]
        return {
            "count": len(self.rows),
            "tags": b"".join(row.tag for row in self.rows),
            "fingerprints": b"".join(row.fingerprint for row in self.rows),
            "makers": b"".join(packed[row.made] for row in self.rows),
            "minute": self.minute,
            "batch": self.number,
        }

    def duplicate(self, row: Row, earlier: Earlier) -> Duplicate:
        """This row's pair is one of ``earlier``."""
        made = self.made[row.made]
        return Duplicate(
            made.spec, made.pairs[row.pair].public, self.minute * 60.0, made.by, life_of(self.number), earlier
        )

    def within(self) -> list[tuple[Row, Earlier]]:
        """Rows whose tag an earlier row of this very batch has."""
        first: dict[bytes, Row] = {}
        found = []
        for row in self.rows:
            other = first.setdefault(row.tag, row)
            if other is not row:
                by = self.made[other.made].by
                found.append((row, Earlier(other.fingerprint, self.minute * 60.0, by, life_of(self.number))))
        return found


def batch_number(life: int, serial: int) -> int:
    """Of no other batch on the same ledger: ``life`` is never given twice, ``serial`` counts in it, from 1 to
    ``LAST_SERIAL``."""
    return life << _SERIAL_BITS | serial


def life_of(number: int) -> int:
    return number >> _SERIAL_BITS


def new_pairs(spec: str, rows: Sequence[Any]) -> list[NewPair]:
    """Rows of a shard's ``made`` message. Raises ``ValueError`` for one that is out of order: their columns
    are laid end to end, so that a tag of another length would shift all behind it."""
    wanted = 2 if SPECS[spec].family == "rsa" else 1
    pairs = []
    for serial, tags, public in rows:
        if type(serial) is not int or type(tags) is not list or type(public) is not bytes:
            raise ValueError("a pair is malformed")
        if len(tags) != wanted or not 0 < len(public) <= MAX_PUBLIC_BYTES:
            raise ValueError("a pair has a wrong number of tags, or no public key")
        if any(type(tag) is not bytes or len(tag) != TAG_BYTES for tag in tags):
            raise ValueError("a tag is malformed")
        pairs.append(NewPair(serial, tags, public))
    return pairs
