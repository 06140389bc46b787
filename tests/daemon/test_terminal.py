"""What a SIGHUP means: the terminal is gone, or goes, or there is none to lose."""

import errno
import signal
from collections.abc import Iterator

import pytest
import trio

from kpcache.daemon import terminal as terminal_module
from kpcache.daemon.terminal import Terminal
from tests.fakes import mock_clock


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Its only entry is what opening the terminal leads to."""
    result: list[int | None] = [None]
    monkeypatch.setattr(terminal_module, "_opens", lambda: result[0])
    return result


@pytest.fixture(autouse=True)
def _hangups_are_heeded() -> Iterator[None]:
    """Also where these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("at_first", "now", "gone"),
    [
        (None, None, False),
        (None, errno.ENXIO, True),
        (None, errno.EIO, True),
        (None, errno.EMFILE, False),
        (errno.ENXIO, errno.ENXIO, False),  # a service has none
    ],
)
def test_a_terminal_is_gone_when_it_was_there_and_cannot_be_opened(
    opens: list[int | None], at_first: int | None, now: int | None, gone: bool
) -> None:
    opens[0] = at_first
    terminal = Terminal()
    opens[0] = now
    assert terminal.is_gone == gone


def test_under_nohup_there_is_none_to_lose(opens: list[int | None]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    terminal = Terminal()
    opens[0] = errno.ENXIO
    assert not terminal.is_gone


@pytest.mark.usefixtures("opens")
def test_a_hangup_that_nobody_waits_for_is_noted_and_ends_nothing() -> None:
    terminal = Terminal()
    with terminal.early_hangups_noted():
        noted = [terminal.hung_up_early]
        signal.raise_signal(signal.SIGHUP)
        noted.append(terminal.hung_up_early)
    signal.raise_signal(signal.SIGHUP)
    assert noted == [False, True]


def test_a_terminal_that_goes_only_after_the_signal_is_missed_all_the_same(opens: list[int | None]) -> None:
    @mock_clock
    async def story() -> None:
        terminal, told = Terminal(), list[float]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.watch, lambda: told.append(trio.current_time()))
            terminal.look_again()  # it stays: somebody wanted a reload
            await trio.sleep(1000)
            assert not told
            signalled = trio.current_time()
            terminal.look_again()
            await trio.sleep(3)
            opens[0] = errno.ENXIO
            await trio.sleep(1000)
            assert len(told) == 1
            assert signalled + 3 <= told[0] < signalled + 7

    story()
