"""Ledgers in files for tests: opened as the daemon does, on a disk that can fail, with pairs made up."""

import hashlib
import itertools
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from kpcache.daemon.ledger_batch import Batch, Made, MakerStart, NewPair
from kpcache.daemon.ledger_file import LedgerFile, Verdict

TAG_KEY: Final = bytes(range(32))
SPEC: Final = "ECC_NIST_P256"
BY: Final = MakerStart(1, 2, 3)
NOW_S: Final = 1_700_000_040.0  # a whole minute


def tag(number: int) -> bytes:
    return hashlib.blake2b(b"%d" % number, digest_size=16).digest()


class Disk:
    """Connections to a ledger, and what is wrong with its disk.

    While ``error`` is set, every statement that writes raises it: before it has done anything or, with
    ``lands``, after it has.
    """

    def __init__(self) -> None:
        self.error = ""
        self.lands = False
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


def record(file: LedgerFile, *pairs: Sequence[int], by: MakerStart = BY) -> Verdict:
    return file.record(batch_of(*pairs, by=by))


def refused(file: LedgerFile, *pairs: Sequence[int]) -> list[int]:
    """The indexes of the duplicates."""
    return sorted(pair for _, pair in record(file, *pairs).refused)
