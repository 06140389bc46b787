"""What the ledger asks of SQLite: connections, whether a file is a ledger, and rows as what they mean."""

import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from kpcache.daemon import ledger_note, ledger_schema
from kpcache.daemon.ledger_batch import Batch, Duplicate, Earlier, MakerStart, Row, life_of
from kpcache.errors import ConfigError

_BUSY_TIMEOUT_S: Final = 1.0  # someone looks into the ledger with another program
_IN_USE: Final = (
    "another program is in the middle of something with it; let that end (fuser tells which it is)"
)
_CACHE_KIB: Final = 8192
_MAX_WAL_BYTES: Final = 16 * 1024 * 1024
# A sound ledger of 100 MB is read whole in about so long; of a larger one, what can be.
_CHECK_S: Final = 0.5


def connect(path: Path) -> sqlite3.Connection:
    """Statements commit by themselves."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, check_same_thread=False,
        timeout=_BUSY_TIMEOUT_S,
    )  # fmt: skip


def refuse_damaged(connection: sqlite3.Connection, path: Path) -> None:
    """Look for damage for a while, before anything is written. Raises ``ConfigError``."""
    deadline = time.monotonic() + _CHECK_S
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.OperationalError as error:
        if code(error) != sqlite3.SQLITE_INTERRUPT:
            raise
        return
    finally:
        connection.set_progress_handler(None, 0)
    if found != [("ok",)]:
        raise damaged(path)


def is_begun(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether this is a ledger; False for an empty file, which is to become one.

    Raises ``ConfigError`` for anything else, which is left as it is.
    """
    application, version, tables = (
        connection.execute(each).fetchone()[0]
        for each in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if not tables and not application:
        return False
    if application != ledger_schema.APPLICATION_ID:
        raise ConfigError(f"{path}: is a database of another program; {ledger_note.begin_anew(path)}")
    if version != ledger_schema.VERSION:
        raise ConfigError(
            f"{path}: a later kpcache wrote it, in version {version}; it is whole: use that one, or a later"
        )
    return True


def damaged(path: Path) -> ConfigError:
    return ConfigError(f"{path}: is damaged, or no ledger at all; {ledger_note.begin_anew(path)}")


def prepare(connection: sqlite3.Connection) -> None:
    [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError("no write-ahead log can be kept there")
    for setting in (
        "synchronous = FULL",
        f"cache_size = -{_CACHE_KIB}",
        f"journal_size_limit = {_MAX_WAL_BYTES}",
        "trusted_schema = OFF",
        # A large batch with a duplicate in it would else need room in /tmp, and its alarm with it.
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {setting}").fetchall()


def close(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error), closing(connection):
        pass


def code(error: sqlite3.Error) -> int:
    """The primary code of SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def told(error: sqlite3.Error, path: Path) -> str:
    """The file, the reason, and what helps if known."""
    return in_use(path) if code(error) == sqlite3.SQLITE_BUSY else f"{path}: {error}"


def in_use(path: Path) -> str:
    """A transaction of another program, that writes or has been reading for long."""
    return f"{path}: {_IN_USE}"


def standing(connection: sqlite3.Connection) -> list[Duplicate]:
    rows = connection.execute(ledger_schema.STANDING).fetchall()
    return [
        Duplicate(
            spec, public, minute * 60.0, MakerStart.unpack(maker), life_of(batch),
            Earlier(fingerprint, earlier_minute * 60.0, MakerStart.unpack(earlier_maker), earlier_life),
        )
        for (
            spec, public, minute, maker, batch, fingerprint, earlier_minute, earlier_maker, earlier_life
        ) in rows
    ]  # fmt: skip


def alarm_row(batch: int, found: Duplicate) -> tuple[Any, ...]:
    """``batch`` is the number of one in the life that found it."""
    earlier = found.earlier
    return (
        batch, found.spec, found.public, int(found.found_s // 60), found.by.pack(), earlier.fingerprint,
        int(earlier.recorded_s // 60), earlier.by.pack(), earlier.life,
    )  # fmt: skip


def conflicts(connection: sqlite3.Connection, batch: Batch) -> list[tuple[Row, Earlier]]:
    """Rows of the batch whose tag is recorded already, by another batch."""
    found = connection.execute(ledger_schema.CONFLICTS, batch.parameters()).fetchall()
    return [
        (batch.rows[index], Earlier(fingerprint, minute * 60.0, MakerStart.unpack(maker), life_of(number)))
        for index, fingerprint, minute, maker, number in found
    ]
