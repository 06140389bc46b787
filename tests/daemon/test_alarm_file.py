"""An alarm that the ledger cannot take outlives a restart beside it; what is spoilt there is an alarm too."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpcache.core.specs import SPECS
from kpcache.daemon.alarm_file import AlarmFile
from kpcache.daemon.ledger_batch import Duplicate, Earlier, MakerStart

EARLIER = Earlier(bytes(range(8)), 600.0, MakerStart(0, 1, 2), 3)
FOUND = Duplicate("RSA_2048", b"the public key", 1_700_000_040.0, MakerStart(4, 5, 6), 7, EARLIER)
OTHER = Duplicate("ECC_NIST_P256", b"another", 1260.0, MakerStart(255, 65535, 2**32 - 1), 2**31 - 2, EARLIER)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def read(folder: Path | None) -> AlarmFile:
    kept = AlarmFile(folder)
    kept.read()
    return kept


def test_what_is_kept_is_what_the_next_start_reads_until_it_is_recorded(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = read(folder)
    assert (first.duplicates, first.unreadable, list(folder.iterdir())) == ([], "", [])
    first.keep([FOUND])
    first.keep([FOUND])
    first.keep([FOUND, OTHER])
    assert caplog.text.count("a restart knows of it") == 2, "once for each that is new"
    second = read(folder)
    assert (second.duplicates, second.unreadable) == ([FOUND, OTHER], "")
    second.recorded()
    assert (second.duplicates, list(folder.iterdir())) == ([], [])
    assert read(folder).duplicates == []


def test_the_largest_evidence_there_can_be_is_read_again(folder: Path) -> None:
    """Of two batches, in keys of the largest kind."""
    found = [
        Duplicate("RSA_4096", bytes([n]) * 4096, 60.0, MakerStart(4, 5, 6), 7, EARLIER) for n in range(32)
    ]
    read(folder).keep(found)
    assert read(folder).duplicates == found


def test_it_is_for_its_owner_alone_whatever_the_umask_and_replaces_what_a_crash_left(folder: Path) -> None:
    (folder / "alarm.json.new").write_text("half")
    previous = os.umask(0)
    try:
        read(folder).keep([FOUND])
    finally:
        os.umask(previous)
    [path] = folder.iterdir()
    assert (path.name, path.stat().st_mode & 0o777) == ("alarm.json", 0o600)


def test_a_file_that_is_whole_stays_while_its_successor_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = read(folder)
    kept.keep([FOUND])
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", _no_room)
        kept.keep([OTHER])
        kept.keep([OTHER])
    assert caplog.text.count("cannot be kept in daemon.runtime_dir either") == 1, "told once"
    assert "a restart would not know of it" in caplog.text
    assert read(folder).duplicates == [FOUND]
    kept.keep([OTHER])
    assert read(folder).duplicates == [FOUND, OTHER], "it is tried again"
    kept.recorded()
    assert list(folder.iterdir()) == []


def _no_room(_fd: int) -> None:
    raise OSError(28, "No space left on device")


def test_an_old_file_goes_though_the_last_write_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next start would raise an alarm that was dealt with."""
    kept = read(folder)
    kept.keep([FOUND])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", lambda *_: _no_room(0))
        kept.keep([OTHER])
    kept.recorded()
    assert read(folder).duplicates == []


def test_without_a_folder_it_says_that_nothing_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    kept = read(None)
    assert caplog.text == ""
    kept.keep([FOUND])
    assert "(which cannot be used): until the ledger can be written, a restart would not know" in caplog.text
    assert kept.duplicates == [FOUND], "for this life it is"
    kept.recorded()
    kept.cleared()
    assert kept.duplicates == []


def test_a_file_that_cannot_be_removed_is_told_with_the_cure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = read(folder)
    kept.keep([FOUND])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda _: _no_room(0))
        kept.cleared()
    assert f"{folder / 'alarm.json'} cannot be removed (No space left on device): remove it" in caplog.text
    assert read(folder).duplicates == [FOUND], "closed rather than open"


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """The evidence with one thing in it made wrong."""

    def spoil(path: Path) -> object:
        content = json.loads(path.read_bytes())
        change(content)
        return path.write_text(json.dumps(content))

    return spoil


def of_the_first(**members: Any) -> Callable[[Path], object]:
    return changed(lambda content: content["duplicates"][0].update(members))


def of_the_earlier(**members: Any) -> Callable[[Path], object]:
    return changed(lambda content: content["duplicates"][0]["earlier"].update(members))


def _link(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.write_bytes(path.read_bytes() + b" " * 1024 * 1024),
        lambda path: path.write_bytes(b"[]"),
        _link,
        _folder,
        _fifo,
        changed(lambda content: content.update(version=2)),
        changed(lambda content: content.update(duplicates=[])),
        changed(lambda content: content.update(duplicates="text")),
        of_the_first(spec="RSA_1"),
        of_the_first(spec=["RSA_2048"]),
        of_the_first(public=""),
        of_the_first(public="!"),
        of_the_first(public="A" * 8192),
        of_the_first(found_s=float("nan")),
        of_the_first(found_s=-60),
        of_the_first(found_s=61),
        of_the_first(found_s=6e300),
        of_the_first(found_s="60"),
        of_the_first(by=[1, 2]),
        of_the_first(by=[256, 0, 0]),
        of_the_first(by=None),
        of_the_first(life=0),
        of_the_first(life=2**31 - 1),
        of_the_first(life=True),
        of_the_first(earlier=None),
        of_the_earlier(fingerprint="00"),
        of_the_earlier(fingerprint=5),
        of_the_earlier(life=1.0),
    ],
)
def test_what_cannot_be_read_is_an_alarm_all_the_same_until_it_is_cleared(
    folder: Path, spoil: Callable[[Path], object]
) -> None:
    read(folder).keep([FOUND])
    path = folder / "alarm.json"
    spoil(path)
    kept = read(folder)
    assert kept.duplicates == []
    assert kept.unreadable.startswith(f"{path}: ")
    assert kept.since_s > 1_700_000_000
    kept.recorded()
    assert os.path.lexists(path), "not by what else the ledger is told of"
    if not path.is_dir() or path.is_symlink():
        kept.cleared()
        assert read(folder).unreadable == ""


def test_every_spec_can_be_read_again(folder: Path) -> None:
    found = [Duplicate(spec, b"public", 60.0, MakerStart(0, 0, 0), 1, EARLIER) for spec in SPECS]
    read(folder).keep(found)
    assert read(folder).duplicates == found
