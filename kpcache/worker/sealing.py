"""What a shard does with the pairs that it holds when its daemon is gone, and with those that come back.

``core/segment`` has the format. This module imports cryptography, so a shard loads it when it has told that
it is ready, and not when it needs it: by then an upgrade may have put other files in the place of these.
"""

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from kpcache.core import segment
from kpcache.core.segment import Header, Place, Row, SegmentError
from kpcache.core.specs import SPECS
from kpcache.worker.holding import Holding
from kpcache.worker.reserve_folder import open_folder

# If there is time or room for a part only, it is the part that took the longest to make.
_COSTLY_FIRST: Final = sorted(SPECS, key=lambda spec: -SPECS[spec].keygen_cost_s)

# The part of the folder's file system that is left free: /run is other services' too, who may need it to
# start at all. Shards that seal at the same time may go beyond it by a segment each.
_FREE_PART: Final = 0.25


class Sealer:
    """Seals for one shard, under the key of this life of the daemon."""

    def __init__(self, folder: int, shard: int, key: bytes, place: Place, life: int) -> None:
        """``folder`` is a descriptor of the reserve's folder (``reserve_folder``), which is kept open."""
        self._folder = folder
        self._shard = shard
        self._cipher = AESGCMSIV(key)
        self._place = place
        self._life = life

    def seal(self, holding: Holding) -> None:
        """Write all that is held into segments. What has not been recorded is dropped.

        Each pair is forgotten before the segment that has it gets its name, so that it is in one place or in
        none. Nothing is synced: what lies in memory outlives this process, and is not to outlive the machine.
        Raises ``OSError`` when a segment cannot be written, or would leave others too little room; the rest
        is burnt then, here and by the caller.
        """
        had, number = holding.size, 0
        while rows := _next_rows(holding):
            self._write(rows, number, had)
            number += 1

    def _write(self, rows: list[Row], number: int, had: int) -> None:
        name, nonce = os.urandom(segment.NAME_BYTES), os.urandom(segment.NONCE_BYTES)
        place, life = self._place, self._life
        header = Header(name, place, life, self._shard, number, len(rows), had, nonce).pack()
        data = header + self._cipher.encrypt(nonce, segment.pack_rows(rows), header)
        _require_room(self._folder, len(data))
        temporary = segment.temporary_name(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self._folder)
        try:
            with open(fd, "wb", buffering=0) as file:
                _write_all(file.fileno(), data)
            os.rename(temporary, segment.file_name(name), src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._folder)
            raise


def sealer(reserve: Mapping[str, Any], shard: int) -> Sealer:
    """As the daemon's init has it. Raises ``UnfitFolderError``: the daemon found the folder fit, but it is
    this process that would write there."""
    place = Place(reserve["boot"], reserve["machine"], reserve["generation"])
    folder = open_folder(Path(reserve["folder"]))
    return Sealer(folder, shard, reserve["key"], place, reserve["life"])


def _require_room(folder: int, size: int) -> None:
    room = os.fstatvfs(folder)
    left = room.f_bfree - size / room.f_frsize
    if room.f_blocks and left < _FREE_PART * room.f_blocks:  # none are told where there is no limit
        raise OSError(errno.ENOSPC, f"less than {_FREE_PART:.0%} of its file system would be left free")


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _next_rows(holding: Holding) -> list[Row]:
    """The pairs of one segment, taken out of what is held, oldest first; none when none is left."""
    rows: list[Row] = []
    room = segment.FULL_BYTES
    for spec in _COSTLY_FIRST:
        while room > 0 and (pair := holding.take_oldest(spec)) is not None:
            rows.append(Row(spec, *pair[1:]))
            room -= segment.ROW_BYTES + len(pair.private) + len(pair.public)
    return rows


def open_segment(data: bytes, key: bytes) -> list[Row]:
    """What a segment has. ``key`` is of the life that sealed it. Raises ``SegmentError``."""
    header = segment.unpack_header(data)
    sealed: Any = memoryview(data)[segment.HEADER_BYTES :]
    try:
        packed = AESGCMSIV(key).decrypt(header.nonce, sealed, data[: segment.HEADER_BYTES])
    except (InvalidTag, ValueError):
        raise SegmentError("damaged") from None
    return segment.unpack_rows(packed, header)
