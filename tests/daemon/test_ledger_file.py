"""The ledger's file: no tag is ever accepted twice, nothing acknowledged is lost, and a failed commit that
was none after all raises no false alarm."""

import contextlib
import hashlib
import os
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kpcache.daemon import ledger_note, ledger_sqlite
from kpcache.daemon.ledger_batch import LAST_SERIAL, Batch, Made, MakerStart, batch_number, life_of
from kpcache.daemon.ledger_file import LedgerFile
from kpcache.daemon.ledger_store import LedgerUnavailableError
from kpcache.errors import ConfigError
from tests.ledgers import (
    BY,
    NOW_S,
    SPEC,
    Disk,
    batch_of,
    close_all,
    closed_file,
    made_of,
    open_file,
    record,
    refused,
    tag,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    close_all()


def refusal(folder: Path, expected_id: str = "", **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        open_file(folder, expected_id, **options)
    return caught.value.message


# --- what is recorded


def test_what_is_known_of_both_pairs_is_told_and_kept(folder: Path) -> None:
    file = open_file(folder)
    record(file, [1, 2], by=MakerStart(0, 7, 300_000))
    file.close()
    file = open_file(folder, file.id, now=lambda: NOW_S + 6000)
    batch = Batch([made_of([9, 8]), made_of([3, 2], spec="RSA_2048")], int(NOW_S // 60) + 100)
    [found] = file.record(batch).duplicates
    assert (found.spec, found.public, found.by, found.life) == ("RSA_2048", b"spki 3", BY, 2)
    assert found.found_s == NOW_S + 6000
    assert found.earlier.fingerprint == made_digest(made_of([1]))[:8]
    assert (found.earlier.by, found.earlier.life) == (MakerStart(0, 7, 300_000), 1)
    assert found.earlier.recorded_s == NOW_S
    assert file.standing == [found]
    file.close()
    again = open_file(folder, file.id)
    assert again.standing == [found], "it outlives a restart"
    again.clear_alarm()
    assert again.standing == []
    again.close()
    assert open_file(folder, file.id).standing == []
    with sqlite3.connect(folder / "ledger.db") as rows:
        assert rows.execute("SELECT count(*) FROM alarms WHERE cleared_s > 0").fetchone() == (1,)
    rows.close()


def made_digest(made: Made) -> bytes:
    return hashlib.sha256(made.pairs[0].public).digest()


def test_a_large_batch_is_one_statement(folder: Path) -> None:
    disk = Disk()
    file = open_file(folder, disk=disk)
    disk.statements.clear()
    assert record(file, *([n] for n in range(5000))).refused == set()
    assert len(disk.statements) == 1
    assert file.rows == 5000


# --- after a failed commit


@pytest.mark.parametrize("lands", [False, True])
@pytest.mark.parametrize("error", ["disk I/O error", "database or disk is full"])
def test_a_failed_batch_is_recorded_by_the_next_attempt_and_is_no_duplicate_of_itself(
    folder: Path, error: str, lands: bool
) -> None:
    disk = Disk()
    file = open_file(folder, disk=disk)
    record(file, [1, 2])
    disk.error, disk.lands = error, lands
    batch = batch_of([3, 4], [5, 6])
    with pytest.raises(LedgerUnavailableError, match=error):
        file.record(batch)
    assert file.rows == 2, "nothing of it is acknowledged"
    with pytest.raises(LedgerUnavailableError, match="closed after an error"):
        file.record(batch)
    disk.error = ""
    assert disk.opened == 1
    file.connect()
    assert disk.opened == 2, "the connection that failed is never used again"
    assert file.record(batch).refused == set()
    assert (file.rows, file.standing) == (6, [])
    assert refused(file, [6, 7], [3, 8]) == [0, 1]


def test_what_the_log_has_is_written_anew_before_anything_found_there_is_relied_on(folder: Path) -> None:
    """A row in a file whose sync has failed may be in memory only, where no later sync looks for it."""
    disk = Disk()
    file = open_file(folder, disk=disk)
    disk.error, disk.lands = "disk I/O error", True
    batch = batch_of([1, 2])
    with pytest.raises(LedgerUnavailableError):
        file.record(batch)
    disk.error = ""
    disk.statements.clear()
    file.connect()
    assert disk.statements.index("PRAGMA wal_checkpoint(TRUNCATE)") >= 0
    assert (folder / "ledger.db-wal").stat().st_size == 0


def test_a_true_duplicate_in_a_batch_that_failed_is_still_found(folder: Path) -> None:
    disk = Disk()
    file = open_file(folder, disk=disk)
    record(file, [1, 2])
    batch = batch_of([3, 4], [5, 1])
    for lands in (False, True):
        disk.error, disk.lands = "disk I/O error", lands
        with pytest.raises(LedgerUnavailableError) as caught:
            file.record(batch)
        disk.error = ""
        file.connect()
    assert caught.value.duplicates or file.standing
    verdict = file.record(batch)
    assert verdict.refused == {(0, 1)}
    assert len(verdict.duplicates) == 1
    file.close()
    assert len(open_file(folder, file.id).standing) == 1, "one evidence, however many attempts"


def test_a_defect_within_a_transaction_leaves_none_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is recorded next would be acknowledged, and never committed."""
    file = open_file(folder)
    record(file, [1])
    with monkeypatch.context() as patched:
        patched.setattr(ledger_sqlite, "conflicts", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            record(file, [1], [2])
    file.connect()
    assert refused(file, [3]) == []
    with sqlite3.connect(folder / "ledger.db") as rows:
        assert rows.execute("SELECT count(*) FROM tags").fetchone() == (2,)
    rows.close()


def test_duplicates_are_told_though_the_alarm_cannot_be_written(folder: Path) -> None:
    disk = Disk()
    file = open_file(folder, disk=disk)
    record(file, [1])

    batch = batch_of([1])
    disk.lands = True  # BEGIN passes, and the first statement that writes fails behind it
    disk.error = "disk I/O error"
    # The one statement of a sound batch meets the duplicate before the disk's error does.
    with pytest.raises(LedgerUnavailableError) as caught:
        file.record(batch)
    assert [found.spec for found in caught.value.duplicates] == [SPEC]


def test_rows_that_vanish_while_it_runs_are_missed(folder: Path) -> None:
    disk = Disk()
    file = open_file(folder, disk=disk)
    record(file, [1], [2], [3])
    disk.error = "disk I/O error"
    with pytest.raises(LedgerUnavailableError):
        record(file, [4])
    disk.error = ""
    with sqlite3.connect(folder / "ledger.db") as rows:
        rows.execute("DELETE FROM tags WHERE tag = ?", (tag(3),))
        rows.execute("UPDATE ledger SET rows = 2")
    rows.close()
    file.connect()
    assert file.rolled_back == "it has 2 tags, and had 3: an older copy was put back"
    file.close()
    assert open_file(folder, file.id).rolled_back == file.rolled_back


def test_a_batch_that_ran_out_of_memory_is_not_tried_again_as_an_empty_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pairs would be held, and their tags be nowhere."""
    file, batch = open_file(folder), batch_of([1, 2], [3, 4])
    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "sha256", _out_of_memory)
        with pytest.raises(MemoryError):
            file.record(batch)
    file.connect()
    assert file.record(batch).refused == set()
    assert file.rows == 4
    assert refused(file, [4, 5], [1, 6]) == [0, 1]


def _out_of_memory(*_: object) -> None:
    raise MemoryError


def test_rows_of_another_batch_of_the_same_number_are_no_rows_of_this_one(folder: Path) -> None:
    """Two copies of a ledger had a start each, of the same number, and were put together by hand."""
    file = open_file(folder)
    batch = batch_of([7, 8], [9, 10])
    file.record(batch)
    file._serial = 0
    fellow = Batch([made_of([11, 8]), made_of([9, 10], by=MakerStart(0, 7, 300))], batch.minute)
    verdict = file.record(fellow)
    assert fellow.number == batch.number
    assert verdict.refused == {(0, 0), (1, 0)}
    assert verdict.duplicates[0].earlier.fingerprint == made_digest(made_of([7]))[:8]


def test_after_the_last_number_of_a_life_another_life_begins(folder: Path) -> None:
    file = open_file(folder)
    file._serial = LAST_SERIAL - 1
    batches = [batch_of([n]) for n in range(3)]
    for batch in batches:
        file.record(batch)
    first, last = batch_number(1, LAST_SERIAL), batch_number(2, 1)
    assert [batch.number for batch in batches] == [first, last, last + 1]
    file.close()
    again, batch = open_file(folder, file.id), batch_of([4])
    again.record(batch)
    assert (life_of(batch.number), again.rolled_back) == (3, "")


def test_an_alarm_needs_no_room_for_temporary_files(folder: Path) -> None:
    """A full /tmp is a common thing. Here no file can be opened at all."""
    file = open_file(folder)
    for start in range(0, 20_000, 2500):
        record(file, *([n] for n in range(start, start + 2500)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        verdict = record(file, *([n] for n in [*range(100_000, 100_511), 5]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert verdict.refused == {(0, 511)}
    assert len(file.standing) == 1


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN"])
def test_who_holds_the_ledger_is_named_as_what_it_is(folder: Path, begin: str) -> None:
    """A shell that was forgotten in a transaction: one that writes keeps every batch from the ledger, and one
    that only reads keeps it from being opened."""
    file = open_file(folder)
    record(file, [1])
    with contextlib.closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as shell:
        shell.execute(begin)
        shell.execute("SELECT count(*) FROM tags").fetchone()
        act: Callable[[], object] = lambda: record(file, [3])  # noqa: E731 - shorter than two functions
        if begin == "BEGIN":
            assert refused(file, [2]) == []
            file.close()
            act = (file := closed_file(folder, file.id)).connect
        with pytest.raises(LedgerUnavailableError, match="another program is in the middle of something"):
            act()
    file.connect()
    assert refused(file, [3]) == []


# --- what is missing


def test_a_first_ledger_is_no_rollback_and_a_second_start_neither(folder: Path) -> None:
    file = open_file(folder)
    assert (file.rolled_back, len(file.id)) == ("", 32)
    file.close()
    again = open_file(folder, file.id)
    assert (again.rolled_back, again.id) == ("", file.id)


def test_an_older_copy_that_is_put_back_is_told_until_it_is_acknowledged(folder: Path) -> None:
    file = open_file(folder)
    record(file, [1])
    file.close()
    shutil.copy(folder / "ledger.db", folder / "copy")
    file = open_file(folder, file.id)
    record(file, [2], [3])
    file.close()
    shutil.copy(folder / "copy", folder / "ledger.db")
    file = open_file(folder, file.id)
    assert file.rolled_back == "it has 1 tags, and had 3: an older copy was put back"
    record(file, *([n] for n in range(10, 20)))  # more than it had: a start must not take that for the lost
    file.close()
    file = open_file(folder, file.id)
    assert file.rolled_back
    file.acknowledge()
    file.close()
    assert open_file(folder, file.id).rolled_back == ""


def test_a_copy_put_back_after_a_kill_is_told_by_the_note_of_the_last_minute(folder: Path) -> None:
    """Without an end that could note how far it came."""
    now = [NOW_S]
    open_file(folder).close()
    restored = folder / "restored"
    restored.mkdir(mode=0o700)
    shutil.copy(folder / "ledger.db", restored)
    file = open_file(folder, now=lambda: now[0])
    record(file, [1], [2])
    now[0] += 61
    record(file, [3])
    shutil.copy(folder / "ledger.note", restored)
    assert "and had 3" in open_file(restored, file.id).rolled_back


def test_a_missing_ledger_is_told_and_a_new_one_begun(folder: Path) -> None:
    file = open_file(folder)
    record(file, [1])
    file.close()
    for path in folder.glob("ledger.db*"):
        path.unlink()
    new = open_file(folder, file.id)
    assert new.rolled_back == f"the ledger {file.id} that was used here is missing, and a new one was begun"
    assert new.id != file.id
    new.close()
    assert open_file(folder, new.id).rolled_back == new.rolled_back, "until it is acknowledged"


def test_the_note_alone_tells_of_a_missing_ledger(folder: Path) -> None:
    """The keyring was restored from a copy that had not heard of it."""
    file = open_file(folder)
    file.close()
    (folder / "ledger.db").unlink()
    assert "is missing" in open_file(folder, "").rolled_back


def test_another_ledger_under_the_same_key_is_told(folder: Path) -> None:
    open_file(folder).close()
    file = open_file(folder, "ab" * 16)
    assert file.rolled_back == f"it is {file.id}, and not {'ab' * 16}, which was used here last"


def test_a_first_start_that_was_killed_is_finished_by_the_next(folder: Path) -> None:
    ledger_note.make_file(folder / "ledger.db")
    file = open_file(folder)
    assert (file.rolled_back, file.rows) == ("", 0)


# --- what is refused


def test_the_ledger_of_another_keyring_is_refused(folder: Path) -> None:
    open_file(folder).close()
    before = (folder / "ledger.db").read_bytes()
    assert "was made with the tag key of another keyring" in refusal(folder, tag_key=bytes(32))
    assert (folder / "ledger.db").read_bytes() == before


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all, and long enough to be told as one" * 100)


def _holes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 3] = b"\xff" * 4096 * 2
    path.write_bytes(data)


def _one_leaf(path: Path) -> None:
    """No start would read it of itself."""
    data = bytearray(path.read_bytes())
    data[-4096:] = b"\xff" * 4096
    path.write_bytes(data)


def _open_mode(path: Path) -> None:
    path.chmod(0o640)


def _link(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def _another_programs(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (text)")
    connection.close()
    path.chmod(0o600)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_garbage, "is damaged, or no ledger at all; put a sound copy of it here"),
        (_holes, "is damaged, or no ledger at all; put a sound copy of it here"),
        (_one_leaf, "is damaged, or no ledger at all; put a sound copy of it here"),
        (_open_mode, "mode 0640 lets other users in; run: chmod 600"),
        (_link, "is not a regular file, and no link is followed; put a sound copy of it here"),
        (_folder, "is not a regular file"),
        (_newer, "a later kpcache wrote it, in version 99; it is whole"),
        (_another_programs, "is a database of another program; put a sound copy of it here"),
    ],
)
def test_a_file_that_is_no_sound_ledger_of_ours_is_refused_and_left_as_it_is(
    folder: Path, spoil: Callable[[Path], None], told: str
) -> None:
    file = open_file(folder)
    record(file, *([n, -n] for n in range(1, 500)))
    file.close()
    path = folder / "ledger.db"
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    assert told in refusal(folder, file.id)
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert not path.is_symlink() or path.readlink().exists()


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_what_lies_beside_it_must_be_ours_alone_too(folder: Path, suffix: str) -> None:
    open_file(folder).close()
    path = folder / f"ledger.db{suffix}"
    path.symlink_to(folder / "elsewhere")
    assert f"{path}: is not a regular file" in refusal(folder)


def test_its_files_are_for_their_owner_alone_whatever_the_umask(folder: Path) -> None:
    previous = os.umask(0)
    try:
        file = open_file(folder)
        record(file, [1])
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
        file.close()
    finally:
        os.umask(previous)
    assert modes == dict.fromkeys(["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.note"], 0o600)


def test_a_ledger_that_was_exchanged_while_it_ran_is_not_used(folder: Path) -> None:
    disk = Disk()
    file = open_file(folder, disk=disk)
    disk.error = "disk I/O error"
    with pytest.raises(LedgerUnavailableError):
        record(file, [1])
    disk.error = ""
    for path in folder.glob("ledger.*"):
        path.unlink()
    open_file(folder).close()
    with pytest.raises(ConfigError, match="replaced by another hand"):
        file.connect()


def test_a_disk_that_cannot_be_written_is_no_reason_to_refuse_a_start(folder: Path) -> None:
    open_file(folder).close()
    disk = Disk()
    disk.error = "database or disk is full"
    file = closed_file(folder, disk=disk)
    with pytest.raises(LedgerUnavailableError, match="disk is full"):
        file.connect()
    disk.error = ""
    file.connect()
    assert refused(file, [1]) == []


def test_the_evidence_is_read_though_nothing_can_be_written(folder: Path) -> None:
    """A start on a full disk must know that the alarm stands."""
    file = open_file(folder)
    record(file, [1])
    record(file, [1])
    file.close()
    disk = Disk()
    disk.error = "database or disk is full"
    file = closed_file(folder, file.id, disk=disk)
    with pytest.raises(LedgerUnavailableError):
        file.connect()
    assert len(file.standing) == 1


def test_it_is_durable_in_sqlites_strictest_way(folder: Path) -> None:
    file = open_file(folder)
    connection = file._connection
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_number_of_a_batch_is_no_other_batchs(folder: Path) -> None:
    """Else a true duplicate could pass for a row that an earlier attempt left."""
    numbers = set[int]()
    file: LedgerFile | None = None
    for _ in range(3):
        file = open_file(folder, file.id if file else "")
        for n in range(3):
            batch = batch_of([len(numbers) * 10 + n])
            file.record(batch)
            numbers.add(batch.number)
        file.close()
    assert len(numbers) == 9
    assert life_of(batch_number(7, 2**32 - 1)) == 7
