"""Reads what the checker judges: clients' logs, the ledger's rows."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from bench.abuse.client import END
from bench.abuse.records import Answer, LedgerRow

LEDGER: Final = "ledger.db"


def read_log(path: Path) -> tuple[list[Answer], int]:
    """A client's answers, and how many requests it says it made; 0 if it did not come to its end."""
    answers: list[Answer] = []
    requests = 0
    for line in path.read_text().splitlines():
        first, *rest = line.split(" ")
        if first == END:
            requests = int(rest[0])
            continue
        time_s, outcome, spec, private, public = rest
        answers.append(
            Answer(path.stem, int(first), float(time_s), outcome, spec, _digest(private), _digest(public))
        )
    return answers, requests


def _digest(text: str) -> bytes:
    return b"" if text == "-" else bytes.fromhex(text)


def read_logs(paths: Iterable[Path]) -> tuple[list[Answer], dict[str, int]]:
    answers: list[Answer] = []
    expected: dict[str, int] = {}
    for path in paths:
        found, expected[path.stem] = read_log(path)
        answers += found
    return answers, expected


def read_ledger(state_dir: Path) -> list[LedgerRow]:
    """All rows; no daemon may have it open."""
    with closing(sqlite3.connect(state_dir / LEDGER)) as ledger:
        rows = ledger.execute("SELECT tag, fingerprint, batch FROM tags")
        return [LedgerRow(*row) for row in rows]


def last_batch(state_dir: Path) -> int:
    """The number of the last batch in the ledger, which a daemon may have open; 0 if there is none."""
    with closing(sqlite3.connect(f"file:{state_dir / LEDGER}?mode=rw", uri=True, timeout=30)) as ledger:
        [(number,)] = ledger.execute("SELECT max(batch) FROM tags")
    return int(number or 0)


def lives_so_far(state_dir: Path) -> int:
    """How many lives the ledger has begun; 0 if there is none yet. A daemon may have it open."""
    path = state_dir / LEDGER
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=30)) as ledger:
        try:
            row = ledger.execute("SELECT lives FROM ledger").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return 0  # a daemon was killed while it began the ledger
    return int(row[0]) if row else 0
