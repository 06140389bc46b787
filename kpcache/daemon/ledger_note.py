"""Whether the ledger's files may be used, and a note beside them of how far the ledger had come.

The note is a file of its own: in the keyring it would cost a write of all keys whenever a row is added. It is
written at each start, each minute while rows are added, and at the end; so a copy of the ledger that is put
back is noticed if it is older than that. The keyring has the ledger's id, which changes only with the ledger.
"""

import json
import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from kpcache.errors import ConfigError
from kpcache.keyring.files import check_owner_and_mode, naming

FILE_NAME: Final = "ledger.db"
NOTE_NAME: Final = "ledger.note"
_TEMPORARY_NAME: Final = "ledger.note.new"
# What SQLite puts beside a database in WAL mode; it gives them the owner and mode of the database.
_SUFFIXES: Final = ("", "-wal", "-shm")


class Note(NamedTuple):
    """``rows``: so many tags the ledger ``id`` had, durably."""

    id: str
    rows: int


def check_files(path: Path) -> None:
    """Refuse files that are not ours alone. Raises ``ConfigError`` with the cure; a missing file is fine."""
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
        note = json.loads((folder / NOTE_NAME).read_bytes()[:4096])
        return Note(str(note["id"]), int(note["rows"]))
    except (OSError, ValueError, TypeError, KeyError):
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
