"""A connection's bytes out: replies go to the socket at once, or wait here for it; their pairs are settled.

A pair counts as issued when the kernel has taken the last byte of its answer; if that fails, it is burnt
and the connection, whose stream is torn, never used again. No byte of it goes out in another copy of the
machine than that in which it was taken (but for a copy made in the instant between look and send): then,
too, the connection ends.
"""

import socket
from collections import deque
from collections.abc import Callable, Sequence

import trio

from kpcache.core.limits import Limits
from kpcache.daemon.stock import Stock


class PeerGoneError(Exception):
    """The socket is of no use any more; not a fault of ours."""


class Outbox:
    """Replies that the socket has not taken yet, in order, with one writer task in ``nursery``.

    Each reply has ``limits.message_timeout_s`` to be taken. ``cut()`` ends the connection when the socket
    fails.
    """

    nursery: trio.Nursery  # where the writer runs: to be set before the first reply

    def __init__(self, sock: socket.socket, stock: Stock, limits: Limits, cut: Callable[[], None]) -> None:
        self._sock = sock
        self._stock = stock
        self._limits = limits
        self._cut = cut
        self._burn_reason = "client_gone"
        self._waiting: deque[tuple[memoryview, Sequence[str], int]] = deque()
        self._emptied = trio.Event()  # both are replaced at each use
        self._posted = trio.Event()

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    @property
    def has_pairs(self) -> bool:
        return any(specs for _, specs, _ in self._waiting)

    def post(self, data: bytes, specs: Sequence[str] = (), generation: int = 0) -> None:
        """Send a reply, which holds pairs of these specs and of this generation, now; or leave what is not
        taken to the writer."""
        sent = 0
        if not self._waiting:
            try:
                if specs:
                    self._require_same_machine(generation)
                sent = self._sock.send(data) if data else 0
            except BlockingIOError:
                pass
            except (OSError, PeerGoneError):
                self._settle(specs, sent=False)
                self._cut()
                return
            except BaseException:
                # A defect: what has gone out is not known, and whoever waits for these pairs waits for ever.
                self._settle(specs, sent=False)
                raise
            if sent == len(data):
                self._settle(specs, sent=True)
                self._posted.set()
                return
            self.nursery.start_soon(self._write)
        self._waiting.append((memoryview(data)[sent:], specs, generation))
        self._posted.set()

    async def wait_posted(self) -> None:
        """Until the next reply was posted."""
        self._posted = trio.Event()
        await self._posted.wait()

    async def wait_emptied(self) -> None:
        """Until the socket has taken what waits; there must be something."""
        self._emptied = trio.Event()
        await self._emptied.wait()

    def discard(self) -> None:
        """Burn the pairs in what was not taken: the connection ends."""
        for _, specs, _ in self._waiting:
            self._settle(specs, sent=False)
        self._waiting.clear()

    async def _write(self) -> None:
        while self._waiting:
            data, specs, generation = self._waiting[0]
            with trio.move_on_after(self._limits.message_timeout_s) as scope:
                await self._send_all(data, generation if specs else None)
            if scope.cancelled_caught:
                raise PeerGoneError
            self._waiting.popleft()
            self._settle(specs, sent=True)
        self._emptied.set()

    async def _send_all(self, data: memoryview, generation: int | None) -> None:
        while data:
            await trio.lowlevel.wait_writable(self._sock)
            if generation is not None:
                self._require_same_machine(generation)
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                continue
            except OSError:
                raise PeerGoneError from None

    def _require_same_machine(self, generation: int) -> None:
        """Also where a change was met and dealt with since the pairs were taken."""
        fence = self._stock.fence
        if not fence.stands() or fence.number != generation:
            self._burn_reason = "copied"
            raise PeerGoneError

    def _settle(self, specs: Sequence[str], *, sent: bool) -> None:
        """The pairs in a reply are issued, or burnt: after a failed write nobody knows what arrived."""
        for spec in specs:
            if sent:
                self._stock.issue(spec)
            else:
                self._stock.burn(spec, self._burn_reason)
