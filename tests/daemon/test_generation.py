"""Where the generation is read: from a file in the VMClock's form, from a log, or nowhere, and why."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpcache.worker import generation
from kpcache.worker.generation import GenerationError, KernelLog, Unknown, VmClock, open_source, reopen
from tests.vmclock import StandIn, page

FORKED = b"5,%d,1278582,-;random: crng reseeded due to virtual machine fork\n"
OTHER = b"6,%d,1278582,-;something else\n"


class Log:
    """A pipe that keeps records apart, as the kernel's log does."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
        self.path = f"/proc/self/fd/{self.out}"

    def write(self, record: bytes) -> None:
        os.write(self.into, record)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    monkeypatch.setattr(generation, "_require_kernel_log", lambda _fd, _path: None)
    log = Log()
    yield log
    for fd in (log.out, log.into):
        with contextlib.suppress(OSError):
            os.close(fd)


def test_a_file_in_its_form_is_called_a_stand_in(tmp_path: Path) -> None:
    clock = StandIn(tmp_path / "clock", 5)
    source, lacks = open_source(str(clock.path), "")
    assert (source.mode, source.read(), lacks) == ("stand-in", 5, [])
    clock.generation = 2**64 - 1
    assert source.read() == 2**64 - 1


@pytest.mark.parametrize("content", [b"", b"short", page(1, flags=0), bytes(4096)])
def test_what_is_no_clock_is_not_used(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clock"
    path.write_bytes(content)
    with pytest.raises(GenerationError, match=str(path)):
        VmClock(str(path))
    source, lacks = open_source(str(path), str(tmp_path / "none"))
    assert isinstance(source, Unknown)
    assert [str(path) in lacks[0], "No such file" in lacks[1]] == [True, True]
    assert source.read() == 0


@pytest.mark.parametrize("place", ["null", "file", "folder", "fifo", "terminal", "gone"])
def test_what_is_no_log_of_the_kernel_is_not_used(tmp_path: Path, place: str) -> None:
    """Containers have all sorts of things there, most of which would stay silent for ever."""
    path = tmp_path / "kmsg"
    terminal, other = os.openpty()
    try:
        if place == "file":
            path.write_bytes(FORKED % 1)
        elif place == "folder":
            path.mkdir()
        elif place == "fifo":
            os.mkfifo(path)
        elif place != "gone":
            path.symlink_to("/dev/null" if place == "null" else os.ttyname(other))
        source, lacks = open_source(str(path), str(path))  # nor a clock
        assert source.mode == "none"
        assert [str(path) in lack for lack in lacks] == [True, True]
    finally:
        os.close(terminal)
        os.close(other)


def test_what_is_switched_off_is_said() -> None:
    source, lacks = open_source("", "")
    assert (source.mode, len(lacks)) == ("none", 2)


def test_the_log_tells_by_the_last_line_of_a_fork(log: Log) -> None:
    for number, record in enumerate([OTHER, FORKED, OTHER, FORKED, OTHER]):
        log.write(record % number)
    source = KernelLog(log.path)
    assert source.read() == 3
    log.write(OTHER % 5)
    assert source.read() == 3
    log.write(FORKED % 6)
    log.write(OTHER % 7)
    assert source.read() == 6


def test_a_log_without_such_a_line_is_generation_0(log: Log) -> None:
    log.write(OTHER % 1)
    assert KernelLog(log.path).read() == 0


def test_lines_that_were_overwritten_unread_count_as_a_change(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write(OTHER % 1)
    source = KernelLog(log.path)
    log.write(OTHER % 900)
    honest, lost = os.read, [True]

    def read(fd: int, size: int) -> bytes:
        if lost:
            lost.pop()
            raise BrokenPipeError  # the kernel's way to say so
        return honest(fd, size)

    monkeypatch.setattr(os, "read", read)
    assert source.read() == 900


def test_a_record_without_a_number_is_a_change_too(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write(FORKED % 7)
    source = KernelLog(log.path)
    log.write(b"what is this?")
    honest, lost = os.read, [True]

    def read(fd: int, size: int) -> bytes:
        if lost:
            lost.pop()
            raise BrokenPipeError
        return honest(fd, size)

    monkeypatch.setattr(os, "read", read)
    assert source.read() == 8


def test_what_was_overwritten_before_the_start_does_not(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write(OTHER % 900)
    honest, lost = os.read, [True]

    def read(fd: int, size: int) -> bytes:
        if lost:
            lost.pop()
            raise BrokenPipeError
        return honest(fd, size)

    monkeypatch.setattr(os, "read", read)
    assert KernelLog(log.path).read() == 0


def test_a_log_that_fails_is_not_taken_for_silent(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    source = KernelLog(log.path)
    log.write(OTHER % 1)

    def read(_fd: int, _size: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", read)
    with pytest.raises(OSError, match="Input"):
        source.read()


def test_the_kernels_own_log_is_read_from_its_end_by_those_that_know_the_generation() -> None:
    try:
        known = KernelLog("/dev/kmsg").read()
    except GenerationError as error:
        pytest.skip(f"NOT TESTED: {error}")
    source = reopen("kmsg", "/dev/kmsg", known)
    assert (source.mode, source.read()) == ("kmsg", known)


def test_another_process_must_find_the_generation_that_it_was_told(tmp_path: Path) -> None:
    clock = StandIn(tmp_path / "clock", 5)
    assert reopen("stand-in", str(clock.path), 5).read() == 5
    clock.generation = 6
    with pytest.raises(GenerationError, match="copied"):
        reopen("stand-in", str(clock.path), 5)
    with pytest.raises(GenerationError, match="No such file"):
        reopen("vmclock", str(tmp_path / "gone"), 5)
    assert reopen("none", "", 0).read() == 0
