"""The keyring's file while it is in use: looked after in time, and what is wrong with it told for what it is.

Time stands still here until a test moves it on.
"""

import functools
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from kpcache.daemon.keyring_watch import LOOK_INTERVAL_S, LOOK_TIMEOUT_S, KeyringWatch
from kpcache.errors import KeyUnavailableException
from kpcache.keyring import document
from kpcache.keyring.vault import Sight
from tests.administration import ALIAS, Administration, administration
from tests.vaults import FILE, MARK, refusal

PATIENCE_S = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


def still_clock(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        trio.run(functools.partial(test, *args, **kwargs), clock=trio.testing.MockClock())

    return run


def move_on(seconds: float) -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread brings about."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await trio.lowlevel.checkpoint()


class Looks:
    """Stands before the vault's ``look``: counts, and can hang or fail."""

    def __init__(self, it: Administration, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = self.ended = self.told = 0
        self.failure: Exception | None = None
        self.disk = threading.Event()
        self.disk.set()
        self._look = it.vault.look
        monkeypatch.setattr(it.vault, "look", self._counted)
        look = KeyringWatch.look

        async def to_its_end(watch: KeyringWatch) -> None:
            await look(watch)
            self.told += 1

        monkeypatch.setattr(KeyringWatch, "look", to_its_end)

    def _counted(self) -> Sight:
        self.begun += 1
        try:
            assert self.disk.wait(PATIENCE_S)
            if self.failure is not None:
                raise self.failure
            return self._look()
        finally:
            self.ended += 1

    async def next(self) -> None:
        """Let the next one be due, and wait until what it found is told."""
        told = self.told
        await trio.testing.wait_all_tasks_blocked()
        move_on(LOOK_INTERVAL_S)
        await until(lambda: self.told > told)


@still_clock
async def test_a_file_that_goes_while_it_is_in_use_is_told_once_and_so_is_its_return(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with administration(folder) as it:
        looks = Looks(it, monkeypatch)
        caplog.clear()
        await looks.next()
        assert (it.administrator.fault, caplog.messages) == ("", [])
        away = (folder / FILE).rename(folder.parent / "away")
        for _ in range(3):
            await looks.next()
        assert str(folder) in it.administrator.fault
        [line] = caplog.messages
        assert "in memory only" in line
        assert "kpcache keyring export" in line
        assert caplog.records[0].levelno == logging.CRITICAL
        # All keys are there still, and can be taken out.
        export = await it.call("ExportKeyring")
        content = replace(it.keyring.content, reserve_secret=b"")
        assert document.decode(export["KeyringDocument"]) == content
        await until(lambda: looks.told == 5)  # while there is a fault, an answer is followed by a look
        away.rename(folder / FILE)
        await looks.next()
        assert it.administrator.fault == ""
        assert "as it should be again" in caplog.messages[-1]
    assert "as it should be again" in caplog.messages[-1], "nothing stands at the stop"


@still_clock
async def test_a_folder_that_vanishes_whole_is_no_first_start_for_the_next_one(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with administration(folder) as it:
        looks = Looks(it, monkeypatch)
        caplog.clear()
        shutil.rmtree(folder)
        await looks.next()
        assert os.listdir(folder) == [MARK]
        assert caplog.messages[-1] == it.administrator.fault
    told = f"this daemon stops, and what it has told still stands: {it.administrator.fault}"
    assert caplog.messages[-1] == told
    assert caplog.records[-1].levelno == logging.CRITICAL
    assert "missing, yet it was made here" in refusal(folder)


@still_clock
async def test_what_cannot_be_made_again_is_told_with_the_loss(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with administration(folder) as it:
        looks = Looks(it, monkeypatch)
        shutil.rmtree(folder)
        os.mknod(folder)
        await looks.next()
        assert "in memory only" in caplog.messages[-1]
        assert "what should keep the next start from beginning anew cannot be made" in caplog.messages[-1]


@still_clock
async def test_a_fault_that_is_no_loss_is_not_told_as_one(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with administration(folder) as it:
        looks = Looks(it, monkeypatch)
        caplog.clear()
        (folder / FILE).chmod(0o640)
        await looks.next()
        assert it.administrator.fault.startswith("no change of the keyring can be made: ")
        assert "run: chmod 600" in it.administrator.fault
        assert "memory" not in caplog.text
        (folder / FILE).unlink()
        await looks.next()
        assert "in memory only" in caplog.messages[-1], "a worse fault is told anew"


@still_clock
async def test_changes_do_not_keep_the_file_from_being_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with administration(folder) as it:
        looks = Looks(it, monkeypatch)
        change = it.vault.change

        def slow(*args: Any, **kwargs: Any) -> Any:
            trio.from_thread.run_sync(move_on, LOOK_INTERVAL_S)
            return change(*args, **kwargs)

        monkeypatch.setattr(it.vault, "change", slow)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(it.call, "RotateKeyOnDemand", {"KeyId": ALIAS})
        assert looks.begun >= 9


@still_clock
async def test_what_a_change_shows_of_the_file_is_known_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with administration(folder) as it:
        looks = Looks(it, monkeypatch)
        assert await it.call("RotateKeyOnDemand", {"KeyId": ALIAS})
        (folder / FILE).chmod(0o640)
        error = await it.refusal("RotateKeyOnDemand", {"KeyId": ALIAS})
        assert isinstance(error, KeyUnavailableException)
        await until(lambda: it.administrator.fault != "")
        (folder / FILE).chmod(0o600)
        assert await it.call("RotateKeyOnDemand", {"KeyId": ALIAS})
        await until(lambda: it.administrator.fault == "")
        assert looks.begun == 2


@still_clock
async def test_a_defect_in_a_look_is_told_once_and_the_daemon_goes_on(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when no thread can be started any more, by a limit on processes or memory."""
    async with administration(folder) as it:
        looks = Looks(it, monkeypatch)
        caplog.clear()
        looks.failure = RuntimeError("can't start new thread")
        for _ in range(3):
            await looks.next()
        [line] = caplog.messages
        assert "defect in looking at the keyring's file: RuntimeError" in line
        looks.failure = None
        (folder / FILE).chmod(0o640)
        await looks.next()
        assert "chmod 600" in it.administrator.fault
        (folder / FILE).chmod(0o600)
        assert await it.call("RotateKeyOnDemand", {"KeyId": ALIAS})


@still_clock
async def test_a_disk_that_hangs_is_told_and_keeps_nothing_else_waiting(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with administration(folder) as it:
        looks = Looks(it, monkeypatch)
        caplog.clear()
        looks.disk.clear()
        try:
            for number in range(3):
                await trio.testing.wait_all_tasks_blocked()
                move_on(LOOK_INTERVAL_S)
                await until(lambda: looks.begun == 1)
                await trio.testing.wait_all_tasks_blocked()
                move_on(LOOK_TIMEOUT_S)
                await until(lambda number=number: looks.told > number)  # type: ignore[misc]
            [line] = caplog.messages
            assert "could not be read within 10 s: the disk may hang" in line
            assert "memory" not in line
            assert looks.begun == 1, "no look joins one that hangs"
            assert await it.call("ExportKeyring")
            await trio.testing.wait_all_tasks_blocked()
            move_on(LOOK_TIMEOUT_S)
            await until(lambda: looks.told == 4)
        finally:
            looks.disk.set()
        await until(lambda: looks.ended == 1)
        await looks.next()
        assert it.administrator.fault == ""


@still_clock
async def test_a_look_that_hangs_does_not_delay_the_stop(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Administration(folder)
    looks = Looks(it, monkeypatch)
    looks.disk.clear()
    late = threading.Timer(PATIENCE_S / 2, looks.disk.set)
    late.start()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.administrator.run)
            await trio.testing.wait_all_tasks_blocked()
            move_on(LOOK_INTERVAL_S)
            await until(lambda: looks.begun == 1)
            nursery.cancel_scope.cancel()
        assert not looks.disk.is_set()
    finally:
        late.cancel()
        looks.disk.set()
    await until(lambda: looks.ended == 1)
