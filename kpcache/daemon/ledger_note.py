"""Whether the ledger's files may be used, and notes elsewhere of how far the ledger had come.

A note is a file of its own: in the keyring it would cost a write of all keys whenever a row is added. It is
written at each start, each minute while rows are added, and at the end; so a copy of the ledger that is put
back is noticed if it is older than that. The keyring has the ledger's id, which changes only with the ledger.

One note lies beside the ledger, one in the runtime folder, which no backup has: where the whole state folder
is put back from a copy, its own note is as old as the ledger. A reboot ends that one; then nothing tells.
"""

import json
import os
import shlex
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from kpcache.daemon.note_file import read_json
from kpcache.daemon.notices import log
from kpcache.errors import ConfigError
from kpcache.keyring.files import check_owner_and_mode, naming

FILE_NAME: Final = "ledger.db"
NOTE_NAME: Final = "ledger.note"
_TEMPORARY_NAME: Final = "ledger.note.new"
# The number of a batch has 31 bits for its life.
MAX_LIVES: Final = 2**31 - 1
# What SQLite puts beside a database in WAL mode; it gives them the owner and mode of the database.
_SUFFIXES: Final = ("", "-wal", "-shm")


class Note(NamedTuple):
    """``rows``: so many tags the ledger ``id`` had, durably; ``lives``: so many starts."""

    id: str
    rows: int
    lives: int


class Notes:
    """The note in each of these folders, of which the first is the ledger's own."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._failing: set[Path] = set()

    def beside(self) -> Note | None:
        """The one in the ledger's own folder; None where there is none that can be read."""
        return read_note(self._folders[0])

    def furthest(self, id_: str) -> Note:
        """The most that any of them says of this ledger. What the others say of another one counts not:
        a runtime folder may have seen more than one state folder."""
        found = [note for folder in self._folders if (note := read_note(folder)) and note.id == id_]
        rows, lives = max((note.rows for note in found), default=0), max((n.lives for n in found), default=0)
        return Note(id_, rows, lives)

    def lacking(self, found: Note, acknowledged: int) -> str:
        """What this ledger lacks of what it was; empty if nothing is known to be. ``acknowledged``: so many
        tags it has had in this life."""
        noted = self.furthest(found.id)
        least = max(acknowledged, noted.rows)
        if found.rows < least:
            return f"it has {found.rows} tags, and had {least}: an older copy was put back"
        if found.lives < noted.lives:
            # It need not lack a tag: an alarm, or what was claimed in a life that it does not know.
            return f"it knows of {found.lives} starts, and not of {noted.lives}: an older copy was put back"
        return ""

    def write(self, note: Note) -> bool:
        """Best effort: what is not noted is less to compare with at the next start, and nothing more.

        Returns whether it is in all folders."""
        for folder in self._folders:
            try:
                write_note(folder, note)
            except OSError as error:
                if folder not in self._failing:
                    log.warning(
                        "how far the ledger has come cannot be noted in %s: %s; until it can, an older copy "
                        "that is put back may not be noticed", folder, error.strerror,
                    )  # fmt: skip
                self._failing.add(folder)
            else:
                self._failing.discard(folder)
        return not self._failing


def check_files(path: Path) -> None:
    """Refuse files that others can use, or we cannot. Raises ``ConfigError`` with the cure; a missing file is
    fine."""
    for suffix in _SUFFIXES:
        each = path.with_name(path.name + suffix)
        with naming(each):
            try:
                status = each.lstat()
            except FileNotFoundError:
                continue
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{each}: is not a regular file, and no link is followed; {begin_anew(path)}")
        check_owner_and_mode(status, each, forbidden=0o077, cure="600")
        if os.geteuid() not in (0, status.st_uid):
            # SQLite would only say that it is "unable to open" it.
            raise ConfigError(
                f"{each}: owned by root, so that it cannot be opened; "
                f"run as root: chown {os.geteuid()} {shlex.quote(str(each))}"
            )


def identities(path: Path) -> list[tuple[int, int]]:
    """Which files the database and its log are now. One that is not there is (0, 0)."""
    found = []
    for suffix in ("", "-wal"):
        try:
            status = path.with_name(path.name + suffix).stat()
        except OSError:
            found.append((0, 0))
        else:
            found.append((status.st_dev, status.st_ino))
    return found


def make_file(path: Path) -> None:
    """Make an empty file where there is none, 0600 and durable: SQLite would let the umask decide.

    Raises ``OSError``."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        sync_folder(path.parent)


def begin_anew(path: Path) -> str:
    """What an operator does about a ledger that cannot be used, for a message."""
    names = " ".join(shlex.quote(path.name + suffix) for suffix in _SUFFIXES)
    return (
        "put a sound copy of it here, from a backup; or, to begin a new one, which knows nothing of what "
        f"was made before, move {names} together out of {path.parent}"
    )


def read_note(folder: Path) -> Note | None:
    """None where there is none that can be read."""
    try:
        note = read_json(folder / NOTE_NAME)
    except (OSError, ValueError):
        return None
    if isinstance(note, dict):
        note.setdefault("lives", 0)  # an earlier kpcache noted none
    match note:
        case {"id": str(id_), "rows": int(rows), "lives": int(lives)}:
            # More than there can be would leave no number for the next.
            return Note(id_, rows, lives) if 0 <= lives < MAX_LIVES else None
    return None


def write_note(folder: Path, note: Note) -> None:
    """Durably, whole or not at all. Raises ``OSError``."""
    temporary = folder / _TEMPORARY_NAME
    with suppress(FileNotFoundError):
        temporary.unlink()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(json.dumps(note._asdict()).encode() + b"\n")
        file.flush()
        os.fsync(fd)
    temporary.rename(folder / NOTE_NAME)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def file_bytes(path: Path) -> int:
    """What the ledger takes on the disk."""
    total = 0
    for suffix in _SUFFIXES:
        with suppress(OSError):
            total += path.with_name(path.name + suffix).stat().st_size
    return total
