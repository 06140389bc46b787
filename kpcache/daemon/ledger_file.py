"""The ledger: the durable set of tags of all that was ever made here and passed its checks. SQLite.

Blocking, and for one thread at a time. A pair whose tag is there already, or comes twice in one batch, is a
duplicate; it is found, recorded and alarmed of in one commit.

**After an error** the connection is closed and never used again, for what its commit has left behind is not
known: the rows may be in the file although the commit failed. ``connect`` reads the file anew, has all that
is in the write-ahead log written into the database and synced (a failed sync is told once, and the pages
that it should have written are clean from then on: only what is written anew is synced anew), and sees that
nothing is missing that was acknowledged. Then the same batch is recorded again, under its own number: of
rows that bear it some attempt has succeeded after all, and that is no duplicate.

So it is too when another hand has removed or replaced the files, which is seen within a minute: SQLite would
go on with what nobody finds any more. Closed, it writes what the log has into the database, if that is there.
"""

import hashlib
import hmac
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kpcache.daemon import ledger_note, ledger_schema, ledger_segments, ledger_sqlite
from kpcache.daemon.ledger_batch import ALARM_SERIAL, LAST_SERIAL, Batch, Duplicate, batch_number
from kpcache.daemon.ledger_note import Note, Notes
from kpcache.daemon.ledger_store import MAX_EVIDENCE, LedgerUnavailableError, Verdict
from kpcache.errors import ConfigError

_LOOK_INTERVAL_S: Final = 60.0
_PERSON: Final = b"kpc-ledger"


class LedgerFile:
    """``state_dir/ledger.db``. The state folder's lock must be held."""

    def __init__(
        self,
        state_dir: Path,
        tag_key: bytes,
        expected_id: str,
        urandom: Callable[[int], bytes],
        *,
        runtime_dir: Path | None = None,
        now: Callable[[], float] = time.time,
        connect: Callable[[Path], sqlite3.Connection] = ledger_sqlite.connect,
    ) -> None:
        """``tag_key`` and ``expected_id`` are the keyring's; the id is empty where no ledger was begun yet.

        ``runtime_dir`` is where a second note is kept, None where there is no such place. ``now`` gives Unix
        seconds.
        """
        self.path = state_dir / ledger_note.FILE_NAME
        self.id = ""
        self.rows = 0  # tags, as far as acknowledged
        self.size_bytes = 0  # on the disk, as of the last minute
        self.rolled_back = ""  # what is missing of what was recorded, until it is acknowledged
        self.floor = 1  # the first life whose sealed pairs may come back
        self.standing: list[Duplicate] = []  # evidence of the alarm that is durable
        self._key_check = hashlib.blake2b(b"kpcache ledger", key=tag_key, person=_PERSON).digest()
        self._expected_id = expected_id
        self._urandom = urandom
        self._now = now
        self._open = connect
        self._connection: sqlite3.Connection | None = None
        self._life = 0
        self._serial = 0
        self._notes = Notes([state_dir] if runtime_dir is None else [state_dir, runtime_dir])
        self._noted = Note("", 0, 0)
        self._looked_s = 0.0
        self._files: list[tuple[int, int]] = []

    @property
    def life(self) -> int:
        """Which of the daemon's starts on this ledger this is; 0 until it has been open."""
        return self._life

    # --- from closed to open

    def connect(self) -> None:
        """Open the ledger, made first where none is; check it and begin a life, once. Does nothing if open.

        Raises ``ConfigError`` with the cure for a file that is not this keyring's sound ledger, and
        ``LedgerUnavailableError`` for a disk that does not do what it should.
        """
        if self._connection is not None:
            return
        try:
            ledger_note.check_files(self.path)
            ledger_note.make_file(self.path)
        except OSError as error:
            raise LedgerUnavailableError(f"{self.path}: {error.strerror}") from error
        connection = None
        try:
            connection = self._open(self.path)
            self._take(connection)
        except sqlite3.Error as error:
            if connection is not None:
                ledger_sqlite.close(connection)
            raise self._told(error) from error
        except BaseException:
            if connection is not None:
                ledger_sqlite.close(connection)
            raise
        self._connection = connection
        self._files = ledger_note.identities(self.path)
        self._note()

    def _take(self, connection: sqlite3.Connection) -> None:
        is_first = not self._life
        if is_first:
            ledger_sqlite.refuse_damaged(connection, self.path)
        is_begun = ledger_sqlite.is_begun(connection, self.path)
        ledger_sqlite.prepare(connection)
        if not is_begun:
            if not is_first:
                raise ConfigError(
                    f"{self.path}: emptied by another hand; stop the daemon, then: {self._cure}"
                )
            self._begin(connection)
        row = connection.execute(ledger_schema.READ_LEDGER).fetchone()
        if row is None:
            raise ledger_sqlite.damaged(self.path)
        id_, key_check, lives, rows, rolled_back = row
        if not hmac.compare_digest(key_check, self._key_check):
            raise ConfigError(
                f"{self.path}: was made with the tag key of another keyring, so that nothing in it can be "
                f"compared; put the keyring here that belongs to it, or {self._cure}"
            )
        if not is_first and (id_ != self.id or lives < self._life):
            raise ConfigError(f"{self.path}: replaced by another hand; stop the daemon, then: {self._cure}")
        connection.execute(ledger_segments.CREATE)
        connection.execute(ledger_segments.CREATE_FLOOR)
        [[self.floor]] = connection.execute(ledger_segments.FLOOR).fetchall()
        self.standing = ledger_sqlite.standing(connection)
        missing = rolled_back or self._missing(Note(id_, rows, lives))
        # All that is in the log goes into the database, written and synced anew: see above.
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise LedgerUnavailableError(ledger_sqlite.in_use(self.path))
        # What is missing is noted here before any more rows can hide it.
        if is_first:
            self._begin_life(connection, missing, self._notes.furthest(id_).lives)
        elif missing != rolled_back:
            connection.execute(ledger_schema.MISSING, (missing,))
        self.id, self.rows, self.rolled_back = id_, rows, missing

    def _begin(self, connection: sqlite3.Connection) -> None:
        note = self._notes.beside()
        lost = self._expected_id or (note.id if note is not None else "")
        rolled_back = (
            f"the ledger {lost} that was used here is missing, and a new one was begun" if lost else ""
        )
        id_ = self._urandom(16).hex()
        values = {"id": id_, "key_check": self._key_check, "rolled_back": rolled_back}
        connection.execute("BEGIN IMMEDIATE")
        for statement in ledger_schema.CREATE:
            connection.execute(statement)
        connection.execute(ledger_schema.BEGIN_LEDGER, values)
        connection.execute("COMMIT")
        self._expected_id = id_

    def _begin_life(self, connection: sqlite3.Connection, missing: str, noted: int) -> None:
        """Of which no batch has a number, not even one that this copy has forgotten (``noted`` lives)."""
        [(self._life,)] = connection.execute(ledger_schema.BEGIN_LIFE, (noted, missing)).fetchall()
        self._serial = 0

    def _missing(self, found: Note) -> str:
        """What this ledger lacks of the one that was last used here; empty if nothing is known to be."""
        if not self._life and self._expected_id not in ("", found.id):
            return f"it is {found.id}, and not {self._expected_id}, which was used here last"
        return self._notes.lacking(found, self.rows)

    # --- while it is open

    def record(self, batch: Batch) -> Verdict:
        """Check and record all pairs of the batch, durably when this returns, duplicates included: of those,
        one twin is enough. Try a batch that failed again as it is, before any other.

        Raises ``LedgerUnavailableError``; then the ledger is closed, and which rows are in it is not known.
        """
        connection = self._connected()
        is_time = not 0 <= self._now() - self._looked_s < _LOOK_INTERVAL_S  # or the clock was set back
        if is_time:
            self._require_our_files()
        verdict = Verdict(set(), [])
        try:
            if not batch.number:
                batch.lay_out(self._next_number(connection))
            try:
                connection.execute(ledger_schema.RECORD, batch.parameters())
                self.rows += len(batch.rows)
            except sqlite3.IntegrityError:
                verdict = self._record_again(connection, batch)
        except sqlite3.Error as error:
            raise self._closed_by(error) from error
        except LedgerUnavailableError:
            raise
        except BaseException:
            # A defect, perhaps within a transaction: what came next would seem to be committed.
            self._drop()
            raise
        if is_time:
            self._note()
        return verdict

    def _next_number(self, connection: sqlite3.Connection) -> int:
        if self._serial == LAST_SERIAL:
            self._begin_life(connection, self.rolled_back, 0)
        self._serial += 1
        return batch_number(self._life, self._serial)

    def _require_our_files(self) -> None:
        if ledger_note.identities(self.path) != self._files:
            self._drop()
            raise LedgerUnavailableError(f"{self.path}, or its -wal: removed or replaced by another hand")

    def _record_again(self, connection: sqlite3.Connection, batch: Batch) -> Verdict:
        """Some tags are there already: see whose they are, then record what is new and raise the alarm."""
        new: list[Duplicate] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            met = [*ledger_sqlite.conflicts(connection, batch), *batch.within()]
            refused = {(row.made, row.pair) for row, _ in met}
            duplicates = [batch.duplicate(row, earlier) for row, earlier in met[:MAX_EVIDENCE]]
            # A batch that is tried again tells of the same duplicates.
            new = [each for each in duplicates if each not in self.standing]
            connection.execute(ledger_schema.RECORD_NEW, batch.parameters())
            for each in new:
                connection.execute(ledger_schema.RAISE, ledger_sqlite.alarm_row(batch.number, each))
            [rows] = connection.execute("SELECT rows FROM ledger").fetchone()
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._closed_by(error, new) from error
        self.rows = rows
        self.standing += new
        return Verdict(refused, duplicates)

    def raise_alarm(self, duplicates: Sequence[Duplicate]) -> None:
        """Evidence that could not be recorded when it was found, now; what stands already is not added twice.
        Raises as ``connect``."""
        self.connect()
        for each in duplicates:
            if each not in self.standing:
                batch = batch_number(each.life, ALARM_SERIAL)
                self._execute(ledger_schema.RAISE, ledger_sqlite.alarm_row(batch, each))
                self.standing.append(each)

    def clear_alarm(self) -> None:
        """No alarm stands from now on, durably; the evidence stays, marked, and nothing that was made before
        comes back. Raises ``LedgerUnavailableError``."""
        self.raise_floor()
        self._execute(ledger_schema.CLEAR, (float(self._now()),))
        self.standing = []

    def acknowledge(self) -> None:
        """What is missing is known to whoever must know. Raises ``LedgerUnavailableError``."""
        self._execute(ledger_schema.MISSING, ("",))
        self.rolled_back = ""

    def raise_floor(self) -> None:
        """No sealed pair of an earlier life comes back from now on, durably, nor one of this life that was
        sealed before: its shards seal at its end. Raises ``LedgerUnavailableError``."""
        self._execute(ledger_segments.RAISE_FLOOR, (self._life,))
        self.floor = max(self.floor, self._life)

    def claim(self, name: str) -> bool:
        """This reserve segment is used from now on, and never again, durably; whether it had not been before.
        Raises ``LedgerUnavailableError``: then that is not known."""
        self.connect()
        self._require_our_files()
        minute = int(self._now() // 60)
        return bool(self._execute(ledger_segments.CLAIM, (name, self._life, minute)))

    def unknown(self, tags: Sequence[bytes]) -> set[int]:
        """The indexes of those that are not recorded. Raises ``LedgerUnavailableError``."""
        if not tags:
            return set()
        self.connect()
        self._require_our_files()
        found = self._execute(ledger_segments.UNKNOWN, {"count": len(tags), "tags": b"".join(tags)})
        return {index for (index,) in found}

    def close(self) -> None:
        """Leave the note of how far it came. May be called again."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            ledger_sqlite.close(connection)
            self._note()

    def _execute(self, statement: str, values: tuple[Any, ...] | Mapping[str, Any]) -> list[Any]:
        self.connect()
        try:
            return self._connected().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._closed_by(error) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LedgerUnavailableError(f"{self.path}: closed after an error")
        return self._connection

    def _closed_by(
        self, error: sqlite3.Error, duplicates: list[Duplicate] | None = None
    ) -> LedgerUnavailableError:
        self._drop()
        return LedgerUnavailableError(ledger_sqlite.told(error, self.path), duplicates)

    def _drop(self) -> None:
        """Never use this connection again."""
        connection, self._connection = self._connected(), None
        ledger_sqlite.close(connection)

    def _note(self) -> None:
        self._looked_s = self._now()
        self.size_bytes = ledger_note.file_bytes(self.path)
        note = Note(self.id, self.rows, self._life)
        if note != self._noted and self._notes.write(note):
            self._noted = note

    @property
    def _cure(self) -> str:
        return ledger_note.begin_anew(self.path)

    def _told(self, error: sqlite3.Error) -> ConfigError | LedgerUnavailableError:
        if ledger_sqlite.code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return ledger_sqlite.damaged(self.path)
        return LedgerUnavailableError(ledger_sqlite.told(error, self.path))
