"""One daemon has the reserve's folder; another one has none, and says what would help."""

import os
from pathlib import Path

import pytest

from kpcache.core.segment import Place
from kpcache.daemon import reserve_start
from kpcache.daemon.reserve_start import Setup, open_reserve
from kpcache.worker.generation import MODES

SECRET = b"s" * 32


@pytest.fixture(autouse=True)
def any_folder_will_do(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Also one on a disk; returns the descriptors that were opened, which are closed at the end."""
    opened: list[int] = []

    def open_folder(path: Path) -> int:
        opened.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        return opened[-1]

    monkeypatch.setattr(reserve_start, "open_folder", open_folder)
    return opened


def opened(path: Path, *, life: int = 3) -> Setup:
    return open_reserve(path, SECRET, guard="none", life=life, ledger_fault="disk full")


def test_the_folder_is_one_daemons_until_it_ends(tmp_path: Path, any_folder_will_do: list[int]) -> None:
    path = tmp_path / "reserve"
    first = opened(path)
    assert (first.why, first.folder is None) == ("", False)
    second = opened(path)
    assert second.folder is None
    assert second.why.startswith(f"another daemon uses {path}; set daemon.runtime_dir to ")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(any_folder_will_do[1])
    os.close(any_folder_will_do[0])
    third = opened(path)
    assert third.why == ""
    os.close(any_folder_will_do[2])


def test_a_shard_that_has_the_folder_open_keeps_no_daemon_out(
    tmp_path: Path, any_folder_will_do: list[int]
) -> None:
    path = tmp_path / "reserve"
    path.mkdir(mode=0o700)
    shard = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    assert opened(path).why == ""
    for fd in (shard, *any_folder_will_do):
        os.close(fd)


def test_without_a_ledger_at_the_start_there_is_none(tmp_path: Path) -> None:
    setup = opened(tmp_path / "reserve", life=0)
    assert setup.why == "the ledger was not available at the start (disk full)"
    assert setup.init(0) is None


def test_the_keyrings_secret_is_in_no_text(tmp_path: Path, any_folder_will_do: list[int]) -> None:
    setup = opened(tmp_path / "reserve")
    assert SECRET.decode() not in repr(setup)
    assert setup.place(4) == Place(setup.boot, setup.machine, 4)
    os.close(any_folder_will_do[0])


def test_each_mode_of_the_guard_makes_another_machine_of_it() -> None:
    """Each counts generations in its own way: the same number is not the same generation."""
    assert len({reserve_start._machine(mode) for mode in MODES}) == len(MODES)
    assert reserve_start._machine("kmsg") == reserve_start._machine("kmsg")
