"""One maker as its shard sees it: a process, the pipe to it, what it says on stderr, its order in work."""

import contextlib
import os
import socket
from collections import deque
from typing import Any, Final, NamedTuple

from kpcache.core.pipe import FrameReader, PipeError, encode
from kpcache.worker import process

MAX_ORDERS: Final = 2  # in work, and next: a maker that need not sleep in between (core/refill)
_RECEIVE_BYTES: Final = 65536
_LAST_WORDS_BYTES: Final = 4096
_MAX_LINE_CHARACTERS: Final = 300


class Order(NamedTuple):
    """``left`` is how many of the ordered pairs the maker has not spoken of yet."""

    number: int
    spec: str
    left: int


class Maker:
    """A running maker. Its descriptors belong to this object until ``reap``."""

    def __init__(self, number: int, init: list[Any]) -> None:
        """Start the process and send it ``init``. Raises ``OSError`` when it cannot be started."""
        self.number = number
        self.orders: deque[Order] = deque()  # in work, and next
        self.ending = False
        self._complaint = ""
        self._last_words = b""
        self._reader = FrameReader()
        with contextlib.ExitStack() as undo:
            self.pipe, theirs = socket.socketpair()
            undo.callback(self.pipe.close)
            self.stderr, their_stderr = os.pipe()
            undo.callback(os.close, self.stderr)
            with theirs, open(their_stderr, "wb", buffering=0):
                self.pid = process.spawn("kpcache.worker.maker", theirs.fileno(), their_stderr)
            undo.callback(os.waitpid, self.pid, 0)
            undo.callback(process.kill, self.pid)
            # A pidfd becomes readable when the process ends, and names no other process ever.
            self.pidfd = os.pidfd_open(self.pid)
            undo.pop_all()
        self.pipe.setblocking(False)
        os.set_blocking(self.stderr, False)
        self._send(init)

    def give(self, order: Order) -> None:
        """Send an order. It has two at most: a third is the daemon's defect and ends the maker."""
        if len(self.orders) >= MAX_ORDERS:
            self.end("was given an order too many")
            return
        self.orders.append(order)
        self._send(["make", *order])

    def _send(self, message: list[Any]) -> None:
        frame = encode(message)
        try:
            sent = self.pipe.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it has ended; its pidfd tells the rest
        if sent < len(frame):  # frames to a maker are tiny: its pipe is full only if it reads nothing
            self.end("does not read its pipe")

    def receive(self) -> list[list[Any]] | None:
        """Messages that have arrived; None when there is nothing to read, at present or for good.

        At the end of its pipe, or after bytes that are no frame, the maker is ended.
        """
        if self.ending:
            return None
        try:
            data = self.pipe.recv(_RECEIVE_BYTES)
            if data:
                return self._reader.feed(data)
            self.end()
        except BlockingIOError:
            pass
        except ConnectionError:
            self.end()
        except PipeError as error:
            self.end(str(error))
        return None

    def account(self, order: object, spec: object, count: int) -> bool:
        """Whether ``count`` pairs belong to the order in work; if so, that many fewer are left."""
        work = self.orders[0] if self.orders else None
        if work is None or (order, spec) != work[:2] or not 0 < count <= work.left:
            self.end("spoke of an order that it does not have")
            return False
        self.orders[0] = work._replace(left=work.left - count)
        return True

    def finish(self, order: int) -> bool:
        """Whether all of ``order`` has been accounted for; if so, the maker is free for another."""
        work = self.orders[0] if self.orders else None
        if work is None or work.number != order or work.left:
            return False
        self.orders.popleft()
        return True

    def read_stderr(self) -> bool:
        """Keep the end of what it wrote. False when there is nothing; if it was readable, for good."""
        try:
            data = os.read(self.stderr, _RECEIVE_BYTES)
        except BlockingIOError:
            return False
        self._last_words = (self._last_words + data)[-_LAST_WORDS_BYTES:]
        return bool(data)

    def end(self, complaint: str = "") -> None:
        """Kill it, for ``complaint`` if there is one. Its pidfd tells when it is gone."""
        self.ending = True
        self._complaint = self._complaint or complaint
        process.kill(self.pid)

    def reap(self) -> str:
        """After the pidfd became readable: collect the process, close everything, return why it ended."""
        while self.read_stderr():
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pipe.close()
        os.close(self.stderr)
        os.close(self.pidfd)
        return self._reason(os.waitstatus_to_exitcode(status))

    def _reason(self, exit_code: int) -> str:
        if self._complaint:
            return self._complaint
        if exit_code < 0:
            return f"signal {-exit_code}"
        lines = self._last_words.decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f"exit {exit_code}: {last[:_MAX_LINE_CHARACTERS]}" if last else f"exit {exit_code}"
