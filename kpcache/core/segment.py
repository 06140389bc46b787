"""The format of a reserve segment: a file in memory, in which sealed pairs wait out a restart of the daemon.

A header in clear, then rows under AES-256-GCM-SIV (RFC 8452) with the whole header as associated data. The
header says where and when the segment was sealed; all but the counts in it also go into the key, which is
derived from a secret of the keyring that is used for nothing else. So a segment opens in the boot, on the
machine and in the generation that it was sealed in, and nowhere else, whatever its header says.

A segment is named by 16 random bytes, which the header repeats: the ledger has the names that were claimed.
No pair in it is of use before its name is there, durably, and never again after.
"""

import hashlib
import re
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgpack

from kpcache.core.specs import SPECS

_MAGIC: Final = b"kpcseg"
_FORMAT: Final = 1
# Magic, format; name, boot, machine; generation, life; shard, number; pairs, had; nonce. Big-endian.
_HEADER: Final = struct.Struct(">6sH16s16s16sQQHHII12s")
HEADER_BYTES: Final = _HEADER.size
NONCE_BYTES: Final = 12
NAME_BYTES: Final = 16
# A segment is begun anew when its rows have so many bytes: what is sealed or opened at once needs little
# memory, and a frame that carries one to a shard stays far below what a pipe may hold back.
FULL_BYTES: Final = 384 * 1024
# What a row has beside the two keys, at most: spec, digest and tags, numbers, and their packing.
ROW_BYTES: Final = 128
# The last pair goes beyond what is full, by a few KB; no file that is larger than this is a segment.
MAX_BYTES: Final = 512 * 1024

SUFFIX: Final = ".segment"
TEMPORARY_SUFFIX: Final = ".segment.new"
_FILE_NAME: Final = re.compile("([0-9a-f]{32})(\\.segment|\\.segment\\.new)")

_LABEL: Final = b"kpcache reserve 1"
_PERSON: Final = b"kpc-reserve"
TAG_BYTES: Final = 16

# Why a segment, or a pair in one, is dropped: a closed set, since each is to be a metric's label.
REASONS: Final = frozenset(
    {
        "alarm",  # the alarm stands: no pair made before is used
        "claimed_before",  # the ledger has its name: it was restored once, or somebody began to
        "damaged",  # it does not open, or what is in it is not rows
        "foreign_boot",  # sealed in another boot, on another machine, or under another guard against copies
        "format",  # not a regular file of ours, or no format that this version knows
        "generation",  # sealed in another life of the VM
        "ledger_rolled_back",  # the ledger may have lost the claim, or the pairs
        "no_pool",  # its spec has no pool any more
        "quiesced",  # a snapshot of the machine is to be taken: none of its copies is to have them
        "stale",  # of no earlier life of the daemon on this ledger, or of one whose pairs are burnt
        "too_old",  # it is beyond its pool's max_age_s
        "unclaimed",  # the ledger or the folder failed when it was to be claimed and removed
        "unknown_pairs",  # the ledger has not all of its tags
        "worker_lost",  # it was with a shard that died before it held it
    }
)


class SegmentError(Exception):
    """The bytes are no segment, or not its rows. The message is one of ``REASONS``."""


class Place(NamedTuple):
    """Where a segment can be opened. ``boot``: 16 bytes, random at each boot; ``machine``: 16 bytes, zeros
    where the machine has no id, which the boot's makes up for unless memory is cloned, and then both are."""

    boot: bytes
    machine: bytes
    generation: int


class Header(NamedTuple):
    """``name``: 16 random bytes; ``life``: the daemon's start on its ledger, counted; ``number``: which of
    this shard's segments, from 0; ``pairs`` are in it, and the shard ``had`` so many in all when it began."""

    name: bytes
    place: Place
    life: int
    shard: int
    number: int
    pairs: int
    had: int
    nonce: bytes

    def pack(self) -> bytes:
        place = self.place
        return _HEADER.pack(
            _MAGIC, _FORMAT, self.name, place.boot, place.machine, place.generation, self.life,
            self.shard, self.number, self.pairs, self.had, self.nonce,
        )  # fmt: skip


class Row(NamedTuple):
    """One pair. ``tags``: its tags end to end; ``made_s``: when it was made, in seconds since the boot."""

    spec: str
    generation: int
    private: bytes
    public: bytes
    digest: bytes
    tags: bytes
    made_s: float

    def __repr__(self) -> str:
        return f"<Row {self.spec}>"


def unpack_header(data: bytes) -> Header:
    """The header at the beginning of a file. Raises ``SegmentError``."""
    if len(data) < HEADER_BYTES:
        raise SegmentError("format")
    magic, version, name, boot, machine, generation, life, *rest = _HEADER.unpack_from(data)
    if (magic, version) != (_MAGIC, _FORMAT):
        raise SegmentError("format")
    return Header(name, Place(boot, machine, generation), life, *rest)


def file_name(name: bytes) -> str:
    return name.hex() + SUFFIX


def temporary_name(name: bytes) -> str:
    """What a segment is called while it is written."""
    return name.hex() + TEMPORARY_SUFFIX


def is_file_name(text: str) -> bool:
    """Whether a file of this name is a segment, or wants to be taken for one."""
    found = _FILE_NAME.fullmatch(text)
    return found is not None and found[2] == SUFFIX


def is_temporary_name(text: str) -> bool:
    found = _FILE_NAME.fullmatch(text)
    return found is not None and found[2] == TEMPORARY_SUFFIX


def why_not(header: Header, called: str, here: Place, lives: range) -> str:
    """Why the segment in a file ``called`` so is not to be opened, one of ``REASONS``; empty if it may be.
    ``lives``: those of the daemon whose pairs may come back."""
    if file_name(header.name) != called:
        return "format"
    if header.place[:2] != here[:2]:
        return "foreign_boot"
    if header.place.generation != here.generation:
        return "generation"
    return "" if header.life in lives else "stale"


def derive_key(secret: bytes, place: Place, life: int) -> bytes:
    """The 32 bytes under which shards of one life of the daemon seal. ``secret``: 32 bytes. Raises
    ``ValueError`` if there is none: BLAKE2b would go without, and anybody could derive the key."""
    if not secret:
        raise ValueError("no secret to derive the reserve's keys from")
    mac = hashlib.blake2b(key=secret, digest_size=32, person=_PERSON)
    numbers = (place.generation.to_bytes(8, "big"), life.to_bytes(8, "big"))
    for part in (_LABEL, place.boot, place.machine, *numbers):
        mac.update(len(part).to_bytes(4, "big"))
        mac.update(part)
    return mac.digest()


def pack_rows(rows: Iterable[Row]) -> bytes:
    packed: bytes = msgpack.packb(list(rows), use_bin_type=True)
    return packed


def unpack_rows(data: bytes, header: Header) -> list[Row]:
    """The rows, all of which are as they should be. Raises ``SegmentError``."""
    try:
        found = msgpack.unpackb(data, raw=False, use_list=True)
    except (ValueError, msgpack.UnpackException):
        # From None: what a decoder has in its hands is key material.
        raise SegmentError("damaged") from None
    if not isinstance(found, list) or len(found) != header.pairs:
        raise SegmentError("damaged")
    return [_row(each, header.place.generation) for each in found]


def _row(found: object, generation: int) -> Row:
    match found:
        case [
            str(spec),
            int(made_in),
            bytes(private),
            bytes(public),
            bytes(digest),
            bytes(tags),
            float(made_s),
        ]:
            if spec in SPECS and made_in == generation and len(tags) == tags_bytes(spec) and made_s >= 0:
                return Row(spec, made_in, private, public, digest, tags, made_s)
    raise SegmentError("damaged")


def tags_bytes(spec: str) -> int:
    """How long the tags of a pair are, end to end: an RSA pair is known by both of its primes."""
    return TAG_BYTES * (2 if SPECS[spec].family == "rsa" else 1)
