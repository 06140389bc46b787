"""One life of one shard process: its start, the pipe to it, its last words, its end.

A ``ShardLink`` is used once. ``run`` returns when the shard is gone, for whatever reason, and leaves no
process behind; the supervisor decides what comes next. The messages are listed in ``worker/__init__``.
"""

import errno
import os
import socket
import subprocess
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from kpcache.core import pipe
from kpcache.core.pool import IllegalMoveError
from kpcache.core.text import printable
from kpcache.daemon.floor import ShardFaultError
from kpcache.daemon.notices import log, log_defect
from kpcache.worker import process as worker_process

# A shard answers a draw within milliseconds even on a loaded host; one that takes this long is stuck.
ANSWER_TIMEOUT_S = 10.0
# For what a shard does at its stop, which is to seal what it holds; after this it is killed.
STOP_TIMEOUT_S = 2.0
# Orders, verdicts and draws not yet read by the shard; a live one is never this far behind.
MAX_UNREAD_BYTES = 1024 * 1024
_READ_BYTES = 256 * 1024


class ShardLink:
    """The daemon's end of one shard process."""

    def __init__(self, shard: int, handle: Callable[[list[Any]], None]) -> None:
        """``handle`` is given each message of the shard and raises ``ShardFaultError`` on a bad one."""
        self.shard = shard
        self.pid: int | None = None
        self._handle = handle
        self._sock: socket.socket | None = None  # while the shard lives
        self._scope = trio.CancelScope()  # of the shard's life; cancelled to end it
        self._unsent = bytearray()
        self._something_to_send = trio.Event()
        self._owed: deque[float] = deque()  # when each unanswered draw was sent, oldest first
        self._draw_owed = trio.Event()
        self._last_words = ""
        self._fault = ""
        self._is_deaf = False  # what it says now counts no more: its pairs are burnt, in the books as well

    def send(self, message: list[Any]) -> None:
        """Write a message to the shard; returns at once. Whatever cannot arrive is void with the shard."""
        data = pipe.encode(message)
        if message[0] == "draw":
            self._owed.append(trio.current_time())
            self._draw_owed.set()
        if not self._unsent and self._sock is not None:
            # Nearly always the socket takes it whole, which saves waking the writer for every message.
            with suppress(OSError):  # full, or broken: then the reader sees the end, too, and says why
                data = data[self._sock.send(data) :]
        if data:
            self._unsent += data
            self._something_to_send.set()
        if len(self._unsent) > MAX_UNREAD_BYTES:
            self.give_up("does not read what it is sent")

    def give_up(self, fault: str) -> None:
        """Kill this shard: ``fault`` is why."""
        self._is_deaf = True
        self._fault = self._fault or fault
        self._scope.cancel()

    def end(self) -> None:
        """Tell this shard to forget all that it holds, and end."""
        self.send(["end"])
        self._is_deaf = True

    async def run(self) -> str:
        """Start the shard and serve its pipe until it is gone. Returns why it ended, in printable words.

        Raises ``OSError`` when it cannot be started at all.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        words_out, words_in = os.pipe()
        ours.setblocking(False)
        async with trio.lowlevel.FdStream(words_out) as words:
            with ours:
                try:
                    process = await trio.lowlevel.open_process(
                        worker_process.command("kpcache.worker.shard"),
                        stdin=theirs.fileno(),
                        stdout=subprocess.DEVNULL,
                        stderr=words_in,
                        cwd="/",
                        env=worker_process.environment(os.environ),
                    )
                except RuntimeError as error:
                    # trio starts processes in a thread, and there was none to be had.
                    raise OSError(errno.EAGAIN, "no process or thread can be started") from error
                finally:
                    theirs.close()
                    os.close(words_in)
                self.pid, self._sock = process.pid, ours
                try:
                    with self._scope:
                        await self._talk(ours, words)
                finally:
                    self._sock = None
                    if self._fault or (self._is_deaf and self._unsent):
                        # Before its pipe ends: it would seal what it holds, and nothing may come back from a
                        # shard that is at fault, or that could not be told to forget.
                        process.kill()
                    trio.lowlevel.notify_closing(ours)
                    ours.close()  # which tells the shard to stop
                    with trio.CancelScope(shield=True):
                        await self._end(process, words)
        return self._fault or _describe(process.returncode, self._last_words)

    async def _talk(self, sock: socket.socket, words: trio.abc.ReceiveStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, sock)
            nursery.start_soon(self._keep_last_words, words)
            nursery.start_soon(self._watch_for_stuck)
            await self._read(sock)
            nursery.cancel_scope.cancel()

    async def _read(self, sock: socket.socket) -> None:
        reader = pipe.FrameReader()
        try:
            while True:
                await trio.lowlevel.wait_readable(sock)
                try:
                    data = sock.recv(_READ_BYTES)
                except BlockingIOError:
                    continue
                if not data:
                    return
                self._take_in(reader, data)
                del data  # or the last batch's keys lay here until the next one comes
        except (pipe.PipeError, ShardFaultError, IllegalMoveError) as error:
            self.give_up(f"broke the rules of its pipe: {error}")
        except OSError:
            pass  # it died; the exit status tells more
        except Exception as error:
            # Whatever its bytes led to, it ends this shard and not the daemon.
            log_defect(f"a message of shard {self.shard}", error)
            self.give_up(f"sent a malformed message ({type(error).__name__})")

    def _take_in(self, reader: pipe.FrameReader, data: bytes) -> None:
        for message in reader.feed(data):
            if self._is_deaf:
                return
            if message[0] == "batch":
                self._owed.popleft()  # IndexError: nobody drew this
            self._handle(message)

    async def _write(self, sock: socket.socket) -> None:
        """Send what the socket did not take at once."""
        while True:
            await self._something_to_send.wait()
            self._something_to_send = trio.Event()
            while self._unsent:
                await trio.lowlevel.wait_writable(sock)
                try:
                    del self._unsent[: sock.send(self._unsent)]
                except BlockingIOError:
                    continue
                except OSError:
                    return  # the reader sees the end, too, and says why

    async def _keep_last_words(self, stderr: trio.abc.ReceiveStream) -> None:
        """The shard says nothing on stderr unless it fails: log it, and keep the last line as the reason."""
        tail = b""
        async for data in stderr:
            *lines, tail = (tail + data)[-4096:].split(b"\n")
            for line in lines:
                if line.strip():
                    self._last_words = printable(line.decode(errors="replace").strip())
                    log.warning("shard %d: %s", self.shard, self._last_words)

    async def _watch_for_stuck(self) -> None:
        """End a shard that owes a draw for too long. Sleeps for good while none is owed."""
        while True:
            await self._draw_owed.wait()
            self._draw_owed = trio.Event()
            while self._owed:
                due = self._owed[0] + ANSWER_TIMEOUT_S
                await trio.sleep_until(due)
                # The daemon itself may have been stopped meanwhile: let it read what lies there first.
                await trio.sleep(1.0)
                if self._owed and self._owed[0] + ANSWER_TIMEOUT_S == due:
                    self.give_up(f"owed a draw for over {ANSWER_TIMEOUT_S:.0f} s")
                    return

    async def _end(self, process: trio.Process, words: trio.abc.ReceiveStream) -> None:
        """The pipe is closed, which tells the shard to stop; make sure that it does, and reap it."""
        with trio.move_on_after(STOP_TIMEOUT_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        if not self._last_words:
            self._last_words = await _rest_of(words)
            if self._last_words and process.returncode == 0:
                # It ended as it was told to, and nobody is told the reason of that.
                log.warning("shard %d: %s", self.shard, self._last_words)


async def _rest_of(stderr: trio.abc.ReceiveStream) -> str:
    """The last line left in a dead process's stderr; its makers hold the other end too and may live on."""
    with trio.move_on_after(0.1):
        lines = (await stderr.receive_some(4096)).decode(errors="replace").strip().splitlines()
        return printable(lines[-1]) if lines else ""
    return ""


def _describe(returncode: int | None, last_words: str) -> str:
    how = f"signal {-returncode}" if returncode is not None and returncode < 0 else f"exit {returncode}"
    return f"{how}: {last_words}" if last_words else how
