"""The files in the reserve's folder, as the daemon looks at them: segments, and a note of its last end.

It is a folder in memory that nobody else can enter (``worker/reserve_folder``), so no call here waits for a
disk. What lies in it is not trusted to be what it is called, though: nothing is followed, nothing that could
block is read, and no more of anything than a segment can have.
"""

import errno
import json
import os
import stat
from contextlib import suppress
from typing import Final, NamedTuple

from kpcache.core import segment
from kpcache.core.segment import Header, SegmentError
from kpcache.daemon.note_file import read_json

_NOTE: Final = "last-end.json"
# More than memory can have, and no more than a status can tell.
_MAX_PAIRS: Final = 2**32 - 1
_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class EndNote(NamedTuple):
    """How the daemon's ``life`` ended: with so many ``pairs`` that it had not given out."""

    life: int
    pairs: int


class SegmentFolder:
    """By the folder's open descriptor, which this does not close."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def segments(self) -> list[str]:
        """The names of what is called as a segment."""
        return sorted(filter(segment.is_file_name, os.listdir(self._fd)))

    def temporaries(self) -> list[str]:
        """The names of what is called as a segment in the making."""
        return sorted(filter(segment.is_temporary_name, os.listdir(self._fd)))

    def header(self, name: str) -> Header:
        """The header alone. Raises ``SegmentError`` for what cannot be a segment."""
        return segment.unpack_header(self._read(name, segment.HEADER_BYTES))

    def read(self, name: str) -> bytes:
        """All of it. Raises ``SegmentError`` for what cannot be a segment."""
        return self._read(name, segment.MAX_BYTES)

    def _read(self, name: str, size: int) -> bytes:
        try:
            fd = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=self._fd)
        except OSError as error:
            raise SegmentError("format") from error  # a link, a socket; or gone
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > segment.MAX_BYTES:
                raise SegmentError("format")
            if status.st_uid != os.geteuid() or status.st_nlink != 1:
                raise SegmentError("format")
            return os.read(fd, size)  # whole: it lies in memory
        finally:
            os.close(fd)

    def unlink(self, name: str) -> None:
        """Remove a file that is there: of all who try, exactly one does. Raises ``OSError``, also for what is
        not there any more."""
        os.unlink(name, dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """A folder only if it is empty: we made none. Raises ``OSError``; nothing to remove is fine."""
        try:
            self.unlink(name)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):
                raise
            os.rmdir(name, dir_fd=self._fd)

    def leave_note(self, note: EndNote) -> None:
        """For the next life. Best effort: without it less is known of what the restart costs."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
        with suppress(OSError):
            self.remove(_NOTE)
            fd = os.open(_NOTE, flags, 0o600, dir_fd=self._fd)
            with open(fd, "w") as file:
                json.dump(note._asdict(), file)

    def take_note(self) -> EndNote | None:
        """What the last life left, once; None if it left nothing, as one that was killed."""
        try:
            note = read_json(_NOTE, dir_fd=self._fd)
        except (OSError, ValueError):
            note = None
        with suppress(OSError):
            self.remove(_NOTE)
        match note:
            case {"life": int(life), "pairs": int(pairs)} if 0 <= pairs <= _MAX_PAIRS:
                return EndNote(life, pairs)
        return None
