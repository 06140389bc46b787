"""One life of a shard process, as real processes of a few lines: whatever they do, none is left behind."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio

from kpcache.daemon import shard_link
from kpcache.daemon.floor import ShardFaultError
from kpcache.daemon.shard_link import ShardLink
from kpcache.daemon.watch import process_state
from kpcache.worker import process as worker_process
from tests.fakes import real_clock

# Reads one frame of the daemon's and writes frames of its own; kpcache is installed, so it can be imported.
PRELUDE = """
import os, socket, sys, time, signal
from kpcache.core.pipe import FrameReader, encode
pipe = socket.socket(fileno=0)
reader = FrameReader()
def say(*message): pipe.sendall(encode(list(message)))
heard = []
def hear():
    while not heard:
        data = pipe.recv(65536)
        if not data: sys.exit(0)
        heard.extend(reader.feed(data))
    return heard.pop(0)
"""


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have links start this program in a shard's place."""

    def use(code: str) -> None:
        monkeypatch.setattr(worker_process, "command", lambda _: [sys.executable, "-c", PRELUDE + code])

    return use


def is_gone(link: ShardLink) -> bool:
    """Ended and waited for."""
    assert link.pid is not None
    return not os.path.exists(f"/proc/{link.pid}")


def link_to(heard: list[list[Any]]) -> ShardLink:
    link = ShardLink(0, heard.append)
    link.send(["init", {}])
    return link


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.exit(0)", "exit 0"),
        ("sys.exit('no memory \\x1b[2J')", "exit 1: no memory \\x1b[2J"),
        ("print('one', file=sys.stderr); print('two', file=sys.stderr); sys.exit(3)", "exit 3: two"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
        ("pipe.sendall(b'\\xff' * 100); time.sleep(60)", "broke the rules of its pipe: "),
        ("say('batch', 1, 1, 'S', []); time.sleep(60)", "sent a malformed message (IndexError)"),
        ("say('fault'); time.sleep(60)", "broke the rules of its pipe: told so"),
        ("say('odd'); time.sleep(60)", "sent a malformed message (AttributeError)"),
        ("say('odder'); time.sleep(60)", "sent a malformed message (OverflowError)"),
    ],
)
@real_clock
async def test_the_reason_of_an_end_is_told_and_the_process_reaped(
    code: str, reason: str, program: Callable[[str], None]
) -> None:
    def handle(message: list[Any]) -> None:
        if message[0] == "fault":
            raise ShardFaultError("told so")
        if message[0] == "odd":
            raise AttributeError
        if message[0] == "odder":
            raise OverflowError

    program(code)
    link = ShardLink(0, handle)
    assert (await link.run()).startswith(reason)
    assert is_gone(link)


@real_clock
async def test_what_a_shard_says_after_it_was_given_up_is_not_heard(program: Callable[[str], None]) -> None:
    """Its pairs are burnt in the books already; both messages come in one read."""
    program("pipe.sendall(encode(['one']) + encode(['two'])); time.sleep(60)")
    heard: list[str] = []

    def handle(message: list[Any]) -> None:
        heard.append(message[0])
        link.give_up("told so")

    link = ShardLink(0, handle)
    assert await link.run() == "told so"
    assert heard == ["one"]


@real_clock
async def test_a_shard_that_is_told_to_end_is_not_heard_any_more(program: Callable[[str], None]) -> None:
    program("say('one'); assert hear() == ['init', {}]; assert hear() == ['end']; say('two')")
    heard: list[str] = []

    def handle(message: list[Any]) -> None:
        heard.append(message[0])
        link.end()

    link = ShardLink(0, handle)
    link.send(["init", {}])
    assert await link.run() == "exit 0"
    assert heard == ["one"]


@real_clock
async def test_messages_go_both_ways_in_order(program: Callable[[str], None]) -> None:
    program("for n in range(100): say('heard', n, *hear())")
    heard: list[list[Any]] = []
    link = link_to(heard)
    for n in range(99):
        link.send(["order", n])
    assert await link.run() == "exit 0"
    assert heard == [["heard", 0, "init", {}], *(["heard", n + 1, "order", n] for n in range(99))]


@real_clock
async def test_when_its_pipe_closes_a_shard_gets_time_to_end_and_is_killed_after_it(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_link, "STOP_TIMEOUT_S", 0.3)
    for code in ("hear(); say('up'); hear()", "hear(); say('up')\nwhile True: time.sleep(60)"):
        program(code)
        up = trio.Event()
        link = ShardLink(0, lambda _, up=up: up.set())  # type: ignore[misc]
        link.send(["init", {}])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            await up.wait()
            nursery.cancel_scope.cancel()
        assert is_gone(link)


def _give_up(link: ShardLink) -> None:
    link.give_up("is not to be trusted")


def _cannot_be_told(link: ShardLink) -> None:
    """It says something, and then is not heard any more, before all that it is told fits its pipe."""
    link.send(["draw", b"x" * 900_000])
    link.end()


@pytest.mark.parametrize("lose", [_give_up, _cannot_be_told])
@real_clock
async def test_a_shard_whose_pairs_are_burnt_is_killed_before_its_pipe_ends(
    lose: Callable[[ShardLink], None], program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of its pipe would have it seal what it holds."""
    program("hear(); say('up'); pipe.recv(1); say('something'); time.sleep(60)")
    up = trio.Event()
    link = ShardLink(0, lambda _: up.set())
    link.send(["init", {}])
    states: list[str] = []
    closing = trio.lowlevel.notify_closing

    def look_and_close(sock: object) -> None:
        deadline = time.monotonic() + 5
        while (found := process_state(link.pid or 0)) and found[0] != "Z" and time.monotonic() < deadline:
            time.sleep(0.001)
        states.append(found[0] if found else "gone")
        closing(sock)  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await up.wait()
        monkeypatch.setattr(trio.lowlevel, "notify_closing", look_and_close)
        lose(link)
    assert states[:1] in (["Z"], ["gone"])


@real_clock
async def test_a_shard_that_owes_a_draw_for_too_long_is_ended(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_link, "ANSWER_TIMEOUT_S", 0.5)
    program("hear(); hear(); say('batch', 1, 1, 'S', []); time.sleep(60)")
    heard: list[list[Any]] = []
    link = link_to(heard)
    link.send(["draw", 1, "S", 1])
    link.send(["draw", 2, "S", 1])
    started = time.monotonic()
    assert await link.run() == "owed a draw for over 0 s"
    assert heard == [["batch", 1, 1, "S", []]]  # one was answered, the other is owed
    assert time.monotonic() - started < 5
    assert is_gone(link)


@real_clock
async def test_an_answer_that_came_while_the_daemon_was_frozen_is_read_first(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cgroup freezer or a paused machine: the clock says too late, the answer lies there."""
    monkeypatch.setattr(shard_link, "ANSWER_TIMEOUT_S", 0.5)
    program("hear(); say('up'); hear(); say('batch', 1, 1, 'S', []); hear(); sys.exit(7)")
    up = trio.Event()
    link = ShardLink(0, lambda _: up.set())
    link.send(["init", {}])
    async with trio.open_nursery() as nursery:

        async def freeze_with_a_draw_owed() -> None:
            await up.wait()
            link.send(["draw", 1, "S", 1])
            time.sleep(1.0)  # noqa: ASYNC251 - the loop stands still: that is the freeze
            await trio.sleep(2.0)
            link.send(["stop"])

        nursery.start_soon(freeze_with_a_draw_owed)
        assert await link.run() == "exit 7"


@real_clock
async def test_without_a_thread_to_be_had_a_start_fails_as_without_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full process table, which the supervisor sits out with back-off; the daemon must outlive it."""

    async def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.lowlevel, "open_process", no_thread)
    with pytest.raises(BlockingIOError, match="no process or thread"):
        await link_to([]).run()


@real_clock
async def test_a_shard_that_reads_nothing_is_ended_before_it_fills_the_daemons_memory(
    program: Callable[[str], None],
) -> None:
    program("say('up'); time.sleep(60)")
    up = trio.Event()
    link = ShardLink(0, lambda _: up.set())

    async def flood() -> None:
        await up.wait()
        while not link._fault:
            link.send(["verdict", list(range(1000)), []])
            assert len(link._unsent) < 2 * shard_link.MAX_UNREAD_BYTES

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        assert await link.run() == "does not read what it is sent"
    assert is_gone(link)


@real_clock
async def test_a_program_that_cannot_be_started_is_an_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_process, "command", lambda _: ["/nowhere/python"])
    with pytest.raises(FileNotFoundError):
        await link_to([]).run()


@real_clock
async def test_a_shard_inherits_no_environment_and_no_descriptors(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "value")
    monkeypatch.setenv("PYTHONPATH", "/tmp")
    program(
        "say('env', sorted(os.environ)); say(os.getcwd())\n"
        "say('fds', sorted(map(int, os.listdir('/proc/self/fd'))))"
    )
    heard: list[list[Any]] = []
    await link_to(heard).run()
    assert heard[0][1] == ["LANG"]
    assert heard[1] == ["/"]
    assert heard[2][1][:3] == [0, 1, 2]
    assert len(heard[2][1]) == 4  # and the one that lists them
