"""An alarm that the ledger cannot take yet, kept in the runtime folder: so that a restart knows of it.

The disk that fails is the state folder's, as a rule; the runtime folder lies in memory. The file is written
at once, read at the next start before anything is issued, and removed when the ledger has what is in it or
an administrator has cleared the alarm. A reboot ends it, where the folder is in memory.

Blocking, and for one thread at a time.
"""

import base64
import json
import os
import stat
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from kpcache.core.specs import SPECS
from kpcache.daemon.ledger_batch import FINGERPRINT_BYTES, MAX_PUBLIC_BYTES, Duplicate, Earlier, MakerStart
from kpcache.daemon.ledger_note import MAX_LIVES, sync_folder
from kpcache.daemon.notices import log

FILE_NAME: Final = "alarm.json"
_TEMPORARY_NAME: Final = "alarm.json.new"
_VERSION: Final = 1
# The evidence of one batch, with keys of the largest kind, takes some 50 kB.
_MAX_BYTES: Final = 1024 * 1024
# In any year that a date can have.
_MAX_TIME_S: Final = 2.5e11


class AlarmFile:
    """``duplicates``: what the ledger does not have yet, as far as is known here, in the file or not."""

    def __init__(self, folder: Path | None) -> None:
        """``folder`` is ours alone; None where there is no such place: then nothing is kept, which the log
        says when there is something to keep."""
        self.duplicates: list[Duplicate] = []
        self.unreadable = ""  # why what an earlier life left cannot be read: that there is an alarm is known
        self.since_s = 0.0  # when that was left, Unix seconds
        self._folder = folder
        self._is_kept = False  # whether the file has all of ``duplicates``
        self._why_not = ""  # as the log has it

    def read(self) -> None:
        """What an earlier life has left. What cannot be read is an alarm all the same."""
        if self._folder is None:
            return
        path = self._folder / FILE_NAME
        try:
            self.duplicates = _unpack(_contents(path))
        except FileNotFoundError:
            return
        except OSError as error:
            self.unreadable = f"{path}: {error.strerror}"
        except (ValueError, TypeError, KeyError, RecursionError):
            self.unreadable = f"{path}: holds no evidence that can be read"
        self._is_kept = not self.unreadable
        self.since_s = _written_s(path)

    def keep(self, duplicates: Sequence[Duplicate]) -> None:
        """Add this to what a restart will know of, as well as can be; the log says how well."""
        new = [each for each in duplicates if each not in self.duplicates]
        self.duplicates += new
        if self._is_kept and not new:
            return
        why_not = self._write()
        self._is_kept = not why_not
        if not why_not:
            log.warning(
                "the alarm is kept in %s until it can be written to the ledger: a restart knows of it, and a "
                "reboot only if that folder outlives it", self._folder,
            )  # fmt: skip
        elif why_not != self._why_not:
            log.critical(
                "the alarm cannot be kept in daemon.runtime_dir either (%s): until the ledger can be "
                "written, a restart would not know of it", why_not,
            )  # fmt: skip
        self._why_not = why_not

    def recorded(self) -> None:
        """The ledger has all of it; what could not be read stands until it is cleared."""
        self.duplicates = []
        if not self.unreadable:
            self._remove()

    def cleared(self) -> None:
        """By an administrator, and durably."""
        self.duplicates, self.unreadable = [], ""
        self._remove()

    def _write(self) -> str:
        """Durably, whole or not at all; why it could not be, empty if it was."""
        if self._folder is None:
            return "which cannot be used"
        temporary = self._folder / _TEMPORARY_NAME
        try:
            with suppress(FileNotFoundError):
                temporary.unlink()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(temporary, flags, 0o600)
            with open(fd, "wb") as file:
                file.write(_pack(self.duplicates))
                file.flush()
                os.fsync(fd)
            temporary.rename(self._folder / FILE_NAME)
            sync_folder(self._folder)
        except OSError as error:
            return f"{self._folder}: {error.strerror}"
        return ""

    def _remove(self) -> None:
        self._is_kept = False
        if self._folder is None:
            return
        path = self._folder / FILE_NAME
        try:
            if os.path.lexists(path):  # else there is nothing to say of a folder that cannot be written
                path.unlink()
                sync_folder(self._folder)
        except OSError as error:
            # Closed rather than open: what is in it has been looked at, or will be again.
            log.error(
                "%s cannot be removed (%s): remove it, else the next start raises the alarm anew",
                path, error.strerror,
            )  # fmt: skip


def _contents(path: Path) -> bytes:
    """Raises ``OSError``, and ``ValueError`` for what we did not write."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("not a regular file")
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError("too long")
    return data


def _written_s(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def _pack(duplicates: Sequence[Duplicate]) -> bytes:
    rows = [
        {
            "spec": each.spec,
            "public": base64.b64encode(each.public).decode(),
            "found_s": each.found_s,
            "by": list(each.by),
            "life": each.life,
            "earlier": {
                "fingerprint": each.earlier.fingerprint.hex(),
                "recorded_s": each.earlier.recorded_s,
                "by": list(each.earlier.by),
                "life": each.earlier.life,
            },
        }
        for each in duplicates
    ]
    return json.dumps({"version": _VERSION, "duplicates": rows}, indent=1).encode() + b"\n"


def _unpack(data: bytes) -> list[Duplicate]:
    """Raises ``ValueError``, ``TypeError``, ``KeyError`` or ``RecursionError`` for what ``_pack`` would not
    have made: nothing else of it may get into the ledger."""
    content = json.loads(data)
    if content["version"] != _VERSION or not content["duplicates"]:
        raise ValueError("of another version, or empty")
    return [_duplicate(each) for each in content["duplicates"]]


def _duplicate(row: Any) -> Duplicate:
    public = base64.b64decode(row["public"], validate=True)
    fingerprint = bytes.fromhex(row["earlier"]["fingerprint"])
    if row["spec"] not in SPECS or not 0 < len(public) <= MAX_PUBLIC_BYTES:
        raise ValueError("no public key of a spec")
    if len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError("a fingerprint is malformed")
    earlier = Earlier(
        fingerprint, _time_s(row["earlier"]["recorded_s"]), _maker(row["earlier"]["by"]),
        _life(row["earlier"]["life"]),
    )  # fmt: skip
    return Duplicate(
        row["spec"], public, _time_s(row["found_s"]), _maker(row["by"]), _life(row["life"]), earlier
    )


def _time_s(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= _MAX_TIME_S or value % 60:
        raise ValueError("a time is out of range")
    return float(value)


def _maker(value: Any) -> MakerStart:
    try:
        return MakerStart.unpack(MakerStart(*value).pack())
    except struct.error as error:
        raise ValueError("a maker is out of range") from error


def _life(value: Any) -> int:
    if type(value) is not int or not 0 < value < MAX_LIVES:
        raise ValueError("a life is out of range")
    return value
