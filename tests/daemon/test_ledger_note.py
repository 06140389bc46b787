"""Older copies that are put back, files that another hand removes, and clocks that are set: what the notes
of how far a ledger had come tell of them."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpcache.daemon import ledger_note
from kpcache.daemon.ledger_note import MAX_LIVES, Note, read_note, write_note
from kpcache.daemon.ledger_store import LedgerUnavailableError
from kpcache.daemon.runtime_folder import prepare_runtime_folder
from kpcache.errors import ConfigError
from tests.ledgers import NOW_S, close_all, open_file, record, refused

YEAR_S = 365 * 86400.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    return state


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "reserve"
    prepare_runtime_folder(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    close_all()


# --- a copy that is put back


def put_back(copy: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)


def test_a_whole_state_folder_that_is_put_back_is_told_by_the_note_in_the_runtime_folder(
    folder: Path, runtime: Path, tmp_path: Path
) -> None:
    file = open_file(folder, runtime_dir=runtime)
    record(file, [1])
    file.close()
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    file = open_file(folder, file.id, runtime_dir=runtime)
    record(file, [2], [3])
    file.close()
    put_back(copy, folder)
    again = open_file(folder, file.id, runtime_dir=runtime)
    assert again.rolled_back == "it has 1 tags, and had 3: an older copy was put back"
    again.acknowledge()
    again.close()
    assert open_file(folder, file.id, runtime_dir=runtime).rolled_back == ""
    close_all()
    put_back(copy, folder)
    assert open_file(folder, file.id, runtime_dir=runtime).rolled_back, "and so is the second time"


def test_an_older_copy_that_lacks_no_tag_may_lack_an_alarm_and_is_told(folder: Path, tmp_path: Path) -> None:
    file = open_file(folder)
    record(file, [1])
    file.close()
    copy = shutil.copy(folder / "ledger.db", tmp_path)
    file = open_file(folder, file.id)
    record(file, [1])
    assert (file.rows, len(file.standing)) == (1, 1)
    file.close()
    shutil.copy(copy, folder)
    again = open_file(folder, file.id)
    assert again.standing == []
    assert again.rolled_back == "it knows of 1 starts, and not of 2: an older copy was put back"


def test_a_life_is_not_given_twice_though_the_ledger_has_forgotten_it(folder: Path, tmp_path: Path) -> None:
    file = open_file(folder)
    file.close()
    copy = shutil.copy(folder / "ledger.db", tmp_path)
    for _ in range(3):
        file = open_file(folder, file.id)
        file.close()
    assert file._life == 4
    shutil.copy(copy, folder)
    assert open_file(folder, file.id)._life == 5


def test_what_a_runtime_folder_knows_of_another_ledger_says_nothing(
    folder: Path, runtime: Path, tmp_path: Path
) -> None:
    """Two daemons with one runtime folder, or a state folder that was begun anew."""
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    file = open_file(other, runtime_dir=runtime)
    record(file, [1], [2])
    file.close()
    file = open_file(folder, runtime_dir=runtime)
    assert file.rolled_back == ""
    file.close()
    assert open_file(folder, file.id, runtime_dir=runtime).rolled_back == ""


def test_a_note_that_cannot_be_written_is_told_once_and_keeps_nothing_from_being_recorded(
    folder: Path, runtime: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [NOW_S]
    file = open_file(folder, runtime_dir=runtime, now=lambda: now[0])
    shutil.rmtree(runtime)
    for n in range(3):
        now[0] += 61
        assert refused(file, [n]) == []
    assert caplog.text.count(f"cannot be noted in {runtime}: No such file or directory") == 1
    assert read_note(folder) == Note(file.id, 3, 1)
    runtime.mkdir(mode=0o700)
    now[0] += 61
    record(file, [4])
    assert read_note(runtime) == Note(file.id, 4, 1)


def test_a_note_of_an_earlier_kpcache_is_read_and_one_that_is_none_is_not(folder: Path) -> None:
    path = folder / ledger_note.NOTE_NAME
    for text, note in (
        ('{"id": "a", "rows": 3}', Note("a", 3, 0)),
        ('{"id": "a", "rows": 3, "lives": 7}', Note("a", 3, 7)),
        (json.dumps({"id": "a", "rows": 3, "lives": MAX_LIVES}), None),
        ('{"id": "a", "rows": 3, "lives": -1}', None),
        ('["id"]', None),
        ("", None),
        ("[" * 4000, None),
        ('{"id": "a", "rows": Infinity}', None),
        ('{"id": "a", "rows": 3, "lives": 1e400}', None),
        ('{"id": "a", "rows": 3}' + 4096 * " ", Note("a", 3, 0)),
        ('{"id": "a"' + 4096 * " " + ', "rows": 3}', None),
    ):
        path.write_text(text)
        assert read_note(folder) == note, text


def test_a_note_that_is_no_file_of_its_own_is_neither_followed_nor_waited_for(folder: Path) -> None:
    path = folder / ledger_note.NOTE_NAME
    write_note(folder, Note("a", 2, 1))
    path.rename(folder / "other")
    path.symlink_to(folder / "other")
    assert read_note(folder) is None
    path.unlink()
    os.mkfifo(path)
    assert read_note(folder) is None
    path.unlink()
    path.mkdir()
    assert read_note(folder) is None


# --- the clock


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S])
def test_a_clock_that_is_set_by_a_year_stops_no_notes(folder: Path, jump_s: float) -> None:
    now = [NOW_S]
    file = open_file(folder, now=lambda: now[0])
    now[0] += jump_s
    record(file, [1])
    assert read_note(folder) == Note(file.id, 1, 1)
    now[0] += 61
    record(file, [2])
    assert read_note(folder) == Note(file.id, 2, 1)
    now[0] += 1
    record(file, [3])
    assert read_note(folder) == Note(file.id, 2, 1), "not at each commit"


# --- another hand


def test_a_log_that_is_removed_beneath_us_is_noticed_and_what_it_held_is_saved(folder: Path) -> None:
    """An operator "tidies up". SQLite itself would go on with a file that has no name any more."""
    now = [NOW_S]
    file = open_file(folder, now=lambda: now[0])
    record(file, [1], [2])
    (folder / "ledger.db-wal").unlink()
    now[0] += 61
    with pytest.raises(LedgerUnavailableError, match="removed or replaced by another hand"):
        record(file, [3])
    file.connect()
    assert (file.rows, file.rolled_back) == (2, "")
    assert refused(file, [3], [2]) == [1]


def test_a_ledger_that_is_removed_or_exchanged_beneath_us_is_not_used(folder: Path, tmp_path: Path) -> None:
    now = [NOW_S]
    file = open_file(folder, now=lambda: now[0])
    record(file, [1])
    file.close()
    copy = shutil.copy(folder / "ledger.db", tmp_path)
    file = open_file(folder, file.id, now=lambda: now[0])
    record(file, [2])
    for path in folder.glob("ledger.db*"):
        path.unlink()
    now[0] += 61
    with pytest.raises(LedgerUnavailableError, match="removed or replaced by another hand"):
        record(file, [3])
    with pytest.raises(ConfigError, match="emptied by another hand; stop the daemon"):
        file.connect()
    shutil.copy(copy, folder)
    with pytest.raises(ConfigError, match="replaced by another hand; stop the daemon"):
        file.connect()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a file that is root's")
def test_a_file_that_root_has_taken_is_refused_with_the_command_that_gives_it_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file(folder).close()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ConfigError, match=r"owned by root, .* run as root: chown 4711 "):
        open_file(folder)


# --- the runtime folder


def test_the_runtime_folder_is_ours_alone_or_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "reserve"
    for _ in range(2):
        prepare_runtime_folder(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o750)
    with pytest.raises(ConfigError, match="lets other users in; run: chmod go-rwx"):
        prepare_runtime_folder(folder)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is not a folder, and no link is followed"):
        prepare_runtime_folder(folder)
    folder.unlink()
    folder.touch()
    with pytest.raises(ConfigError, match=f"{folder}: "):
        prepare_runtime_folder(folder)


def test_a_note_is_whole_or_not_there(folder: Path) -> None:
    write_note(folder, Note("a", 1, 1))
    (folder / "ledger.note.new").write_bytes(b"half")  # a kill in the middle of the next
    write_note(folder, Note("a", 2, 1))
    assert read_note(folder) == Note("a", 2, 1)
    assert [path.name for path in folder.iterdir()] == [ledger_note.NOTE_NAME]
