"""A name is claimed once, whatever becomes of the process; and the ledger tells which pairs it knows."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kpcache.daemon.ledger_file import LedgerFile
from kpcache.daemon.ledger_store import LedgerUnavailableError
from tests.ledgers import Disk, close_all, open_file, record, tag


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    close_all()


def test_a_name_is_claimed_once_and_a_restart_does_not_forget_it(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    assert file.life == 1
    assert file.claim("one.segment")
    assert not file.claim("one.segment")
    assert file.claim("other.segment")
    file.close()
    again = open_file(tmp_path, file.id)
    assert again.life == 2
    assert not again.claim("one.segment")
    with sqlite3.connect(tmp_path / "ledger.db") as look:
        rows = look.execute("SELECT name, life FROM segments ORDER BY name").fetchall()
    look.close()
    assert rows == [("one.segment", 1), ("other.segment", 1)]


def test_a_claim_is_durable_when_it_is_told(tmp_path: Path) -> None:
    """Committed, and by a connection that syncs each commit."""
    disk = Disk()
    file = open_file(tmp_path, disk=disk)
    assert file.claim("one.segment")
    with sqlite3.connect(f"file:{tmp_path / 'ledger.db'}?mode=ro", uri=True) as look:
        assert look.execute("SELECT count(*) FROM segments").fetchone() == (1,)
    look.close()
    assert "PRAGMA synchronous = FULL" in disk.statements


@pytest.mark.parametrize(
    "ask", [lambda file: file.claim("other.segment"), lambda file: file.unknown([tag(1), tag(2)])]
)
def test_a_ledger_that_was_taken_away_beneath_us_is_not_asked(
    tmp_path: Path, ask: Callable[[LedgerFile], object]
) -> None:
    """SQLite would go on with files that no next start finds: what is claimed there is claimed nowhere."""
    file = open_file(tmp_path)
    record(file, [1])
    assert file.claim("one.segment")
    (tmp_path / "ledger.db-wal").unlink()
    with pytest.raises(LedgerUnavailableError, match="removed or replaced by another hand"):
        ask(file)
    ask(file)
    assert not file.claim("one.segment"), "what the log had is in the ledger, and it is open again"


def test_a_ledger_that_was_begun_before_there_was_a_reserve_gets_its_table(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    record(file, [1])
    file.close()
    with sqlite3.connect(tmp_path / "ledger.db") as old:
        old.execute("DROP TABLE segments")
    old.close()
    again = open_file(tmp_path, file.id)
    assert again.claim("one.segment")
    assert (again.rows, again.rolled_back) == (1, "")


def test_lives_whose_sealed_pairs_may_come_back_begin_at_the_floor(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    assert file.floor == 1
    file.close()
    second = open_file(tmp_path, file.id)
    assert (second.life, second.floor) == (2, 1)
    second.raise_floor()
    second.raise_floor()
    assert second.floor == 2
    second.close()
    third = open_file(tmp_path, file.id)
    assert (third.life, third.floor) == (3, 2)
    third.clear_alarm()  # pairs from before an alarm are gone for good
    assert third.floor == 3
    third.close()
    assert open_file(tmp_path, file.id).floor == 3


def test_a_floor_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    disk = Disk()
    file = open_file(tmp_path, disk=disk)
    disk.error = "disk I/O error"
    with pytest.raises(LedgerUnavailableError):
        file.raise_floor()
    assert file.floor == 1
