"""Whatever lies in the reserve's folder is looked at without following it, waiting for it or reading much."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kpcache.core import segment
from kpcache.core.segment import Header, Place, SegmentError
from kpcache.daemon.segment_folder import EndNote, SegmentFolder

NAME = bytes(range(16))
FILE = segment.file_name(NAME)
HEADER = Header(NAME, Place(b"b" * 16, b"m" * 16, 0), 1, 0, 0, 3, 3, b"n" * 12)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SegmentFolder]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield SegmentFolder(fd)
    os.close(fd)


def test_segments_and_those_in_the_making_are_listed_and_nothing_else(
    tmp_path: Path, folder: SegmentFolder
) -> None:
    for name in (FILE, segment.temporary_name(NAME), "last-end.json", "ledger.note", "x.segment"):
        (tmp_path / name).touch()
    assert folder.segments() == [FILE]
    assert folder.temporaries() == [segment.temporary_name(NAME)]


def test_the_header_is_read_without_the_rest(tmp_path: Path, folder: SegmentFolder) -> None:
    (tmp_path / FILE).write_bytes(HEADER.pack() + b"rows")
    assert folder.header(FILE) == HEADER
    assert folder.read(FILE) == HEADER.pack() + b"rows"


def _link(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(HEADER.pack())
    path.symlink_to(target)


def _hard_link(path: Path) -> None:
    _link(path.with_name("soft"))
    path.hardlink_to(path.with_name("target"))


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def _huge(path: Path) -> None:
    path.write_bytes(HEADER.pack())
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize("make", [_link, _hard_link, os.mkfifo, _socket, Path.mkdir, _huge, Path.touch])
def test_what_is_no_file_of_ours_is_neither_opened_nor_waited_for(
    tmp_path: Path, folder: SegmentFolder, make: object
) -> None:
    assert callable(make)
    make(tmp_path / FILE)
    with pytest.raises(SegmentError, match="format"):
        folder.header(FILE)
    folder.remove(FILE)
    assert not os.path.lexists(tmp_path / FILE)
    if (tmp_path / "target").exists():
        assert (tmp_path / "target").read_bytes() == HEADER.pack(), "only the link is gone"


def test_what_is_gone_is_no_segment_and_is_removed_without_a_word(folder: SegmentFolder) -> None:
    with pytest.raises(SegmentError):
        folder.read(FILE)
    folder.remove(FILE)


def test_of_two_who_take_a_segment_away_one_is_told_so(tmp_path: Path, folder: SegmentFolder) -> None:
    (tmp_path / FILE).touch()
    folder.unlink(FILE)
    with pytest.raises(FileNotFoundError):
        folder.unlink(FILE)


def test_a_folder_that_is_not_empty_is_left(tmp_path: Path, folder: SegmentFolder) -> None:
    (tmp_path / FILE).mkdir()
    (tmp_path / FILE / "something").touch()
    with pytest.raises(OSError, match="not empty"):
        folder.remove(FILE)


def test_a_note_is_taken_once(tmp_path: Path, folder: SegmentFolder) -> None:
    assert folder.take_note() is None
    folder.leave_note(EndNote(3, 10))
    folder.leave_note(EndNote(4, 20))
    assert folder.take_note() == EndNote(4, 20)
    assert folder.take_note() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"life": 1}', '{"life": "x", "pairs": 1}', "7" * 10_000, "[" * 4000,
        '{"life": 1, "pairs": Infinity}', '{"life": 1e400, "pairs": 1}', '{"life": 1, "pairs": -1}',
        '{"life": 1, "pairs": 1' + 300 * "0" + "}",
    ],
)  # fmt: skip
def test_a_note_that_is_none_tells_nothing(tmp_path: Path, folder: SegmentFolder, text: str) -> None:
    (tmp_path / "last-end.json").write_text(text)
    assert folder.take_note() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, _socket])
def test_a_note_that_is_no_file_is_neither_waited_for_nor_left(
    tmp_path: Path, folder: SegmentFolder, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "last-end.json")
    assert folder.take_note() is None
    assert list(tmp_path.iterdir()) == []


def test_a_note_that_is_a_link_is_not_followed(tmp_path: Path, folder: SegmentFolder) -> None:
    target = tmp_path / "target"
    target.write_text('{"life": 1, "pairs": 2}')
    (tmp_path / "last-end.json").symlink_to(target)
    assert folder.take_note() is None
    folder.leave_note(EndNote(4, 20))
    assert target.read_text() == '{"life": 1, "pairs": 2}'
    assert folder.take_note() == EndNote(4, 20)
