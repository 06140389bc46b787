"""Ledgers for tests: in files, opened as the daemon does, on a disk that can fail; in memory; and pairs."""

import hashlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from kpcache.daemon.ledger_batch import (
    Batch,
    Duplicate,
    Earlier,
    Made,
    MakerStart,
    NewPair,
    Row,
    batch_number,
)
from kpcache.daemon.ledger_file import LedgerFile
from kpcache.daemon.ledger_store import MAX_EVIDENCE, LedgerUnavailableError, Store, Verdict

TAG_KEY: Final = bytes(range(32))
SPEC: Final = "ECC_NIST_P256"
BY: Final = MakerStart(1, 2, 3)
NOW_S: Final = 1_700_000_040.0  # a whole minute


def tag(number: int) -> bytes:
    return hashlib.blake2b(b"%d" % number, digest_size=16).digest()


class Faults:
    """While ``error`` is set, every change raises it: before it has done anything or, with ``lands``, after
    it has."""

    def __init__(self) -> None:
        self.error = ""
        self.lands = False


class Disk(Faults):
    """Connections to a ledger, and what is wrong with its disk: what is true of changes is so of statements
    that write."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0
        self.statements: list[str] = []

    def connect(self, path: Path) -> sqlite3.Connection:
        self.opened += 1
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                disk.statements.append(sql)
                writes = sql.startswith(("INSERT", "UPDATE", "COMMIT", "BEGIN"))
                if writes and disk.error and not disk.lands:
                    raise sqlite3.OperationalError(disk.error)
                cursor = super().execute(sql, *args)
                if writes and disk.error and not sql.startswith("BEGIN"):
                    raise sqlite3.OperationalError(disk.error)
                return cursor

        return sqlite3.connect(
            f"file:{path}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )


_ids = itertools.count(1)
_opened: list[LedgerFile] = []


def open_file(
    folder: Path,
    expected_id: str = "",
    *,
    tag_key: bytes = TAG_KEY,
    disk: Disk | None = None,
    now: Callable[[], float] = lambda: NOW_S,
    runtime_dir: Path | None = None,
) -> LedgerFile:
    """The ledger of a folder, open."""
    file = closed_file(folder, expected_id, tag_key=tag_key, disk=disk, now=now, runtime_dir=runtime_dir)
    file.connect()
    return file


def closed_file(
    folder: Path,
    expected_id: str = "",
    *,
    tag_key: bytes = TAG_KEY,
    disk: Disk | None = None,
    now: Callable[[], float] = lambda: NOW_S,
    runtime_dir: Path | None = None,
) -> LedgerFile:
    def urandom(size: int) -> bytes:
        return next(_ids).to_bytes(size, "big")

    file = LedgerFile(
        folder, tag_key, expected_id, urandom, runtime_dir=runtime_dir, now=now,
        connect=(disk or Disk()).connect,
    )  # fmt: skip
    _opened.append(file)
    return file


def close_all() -> None:
    """Whatever a test has left open."""
    while _opened:
        _opened.pop().close()


class Memory(Faults):
    """What outlives a ``MemoryStore``: a set of tags, with whose they are, a set of names, and the alarm."""

    def __init__(self) -> None:
        super().__init__()
        self.id = ""
        self.lives = 0
        self.tags: dict[bytes, tuple[int, Earlier]] = {}  # with the number of their batch
        self.names: set[str] = set()
        self.evidence: list[Duplicate] = []
        self.cleared: list[Duplicate] = []
        self.rolled_back = ""
        self.floor = 1


class MemoryStore:
    """The ledger as one would write it who need not care for disks: see ``Store``."""

    def __init__(self, memory: Memory) -> None:
        self.id = ""
        self.rows = 0
        self.size_bytes = 0
        self.life = 0
        self.rolled_back = ""
        self.floor = 1
        self.standing: list[Duplicate] = []
        self._memory = memory
        self._serial = 0
        self._is_open = False

    def connect(self) -> None:
        if not self._is_open:
            memory = self._memory
            self.standing, self.floor = list(memory.evidence), memory.floor
            if not self.life:
                with self._changing():
                    memory.id = memory.id or "memory"
                    memory.lives += 1
                self.life = memory.lives
            self.id, self.rows, self.rolled_back = memory.id, len(memory.tags), memory.rolled_back
            self._is_open = True

    def record(self, batch: Batch) -> Verdict:
        if not self._is_open:
            raise LedgerUnavailableError("closed after an error")
        if not batch.number:
            self._serial += 1
            batch.lay_out(batch_number(self.life, self._serial))
        known, met = self._memory.tags, list[tuple[Row, Earlier]]()
        for row in batch.rows:
            number, earlier = known.get(row.tag, (batch.number, None))
            if earlier is not None and number != batch.number:
                met.append((row, earlier))
        met += batch.within()
        found = [batch.duplicate(row, earlier) for row, earlier in met[:MAX_EVIDENCE]]
        new = [each for each in found if each not in self.standing]
        with self._changing(new):
            self._memory.evidence += new
            for row in batch.rows:
                by = batch.made[row.made].by
                owner = Earlier(row.fingerprint, batch.minute * 60.0, by, self.life)
                known.setdefault(row.tag, (batch.number, owner))
        self.rows = len(known)
        self.standing += new
        return Verdict({(row.made, row.pair) for row, _ in met}, found)

    def raise_alarm(self, duplicates: Sequence[Duplicate]) -> None:
        self.connect()
        new = [each for each in duplicates if each not in self.standing]
        with self._changing():
            self._memory.evidence += new
        self.standing += new

    def clear_alarm(self) -> None:
        self.raise_floor()
        with self._changing():
            self._memory.cleared += self._memory.evidence
            self._memory.evidence = []
        self.standing = []

    def acknowledge(self) -> None:
        self.connect()
        with self._changing():
            self._memory.rolled_back = ""
        self.rolled_back = ""

    def raise_floor(self) -> None:
        self.connect()
        with self._changing():
            self._memory.floor = max(self._memory.floor, self.life)
        self.floor = self._memory.floor

    def claim(self, name: str) -> bool:
        self.connect()
        is_new = name not in self._memory.names
        with self._changing():
            self._memory.names.add(name)
        return is_new

    def unknown(self, tags: Sequence[bytes]) -> set[int]:
        self.connect()
        return {index for index, each in enumerate(tags) if each not in self._memory.tags}

    def close(self) -> None:
        self._is_open = False

    @contextmanager
    def _changing(self, duplicates: list[Duplicate] | None = None) -> Iterator[None]:
        """Within: a change. If it fails, nothing that follows it is done."""
        failure = LedgerUnavailableError(self._memory.error, duplicates) if self._memory.error else None
        if failure is not None and not self._memory.lands:
            self._is_open = False
            raise failure
        yield
        if failure is not None:
            self._is_open = False
            raise failure


def made_of(
    *pairs: Sequence[int],
    spec: str = SPEC,
    settle: Callable[[Made, frozenset[int]], None] = lambda _made, _twins: None,
    by: MakerStart = BY,
) -> Made:
    """A pair for each sequence of numbers, which are of its tags; its public key is of the first one."""
    rows = [
        NewPair(serial, [tag(n) for n in each], b"spki %d" % each[0]) for serial, each in enumerate(pairs)
    ]
    return Made(spec, by, rows, settle)


def batch_of(*pairs: Sequence[int], by: MakerStart = BY) -> Batch:
    return Batch([made_of(*pairs, by=by)], int(NOW_S // 60))


def record(store: Store, *pairs: Sequence[int], by: MakerStart = BY) -> Verdict:
    return store.record(batch_of(*pairs, by=by))


def refused(store: Store, *pairs: Sequence[int]) -> list[int]:
    """The indexes of the duplicates."""
    return sorted(pair for _, pair in record(store, *pairs).refused)
