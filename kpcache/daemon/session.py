"""One client's connection: moves bytes between its socket and ``core.connection``, and settles its pairs.

The common case, a request whose pair is ready, runs from receive to send without another task and with
one system call each way: the socket is tried directly, and trio is asked only to wait. Requests that
must wait, for a pair or for a change of the keyring, get a task each; replies that the socket does not
take at once wait in the outbox.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

import trio

from kpcache.core.connection import NEED_DATA, NOTIFICATION, PAUSED, Broken, Connection
from kpcache.core.fair_queue import Identity
from kpcache.core.limits import Limits
from kpcache.core.pair import Pair
from kpcache.core.wire import Request
from kpcache.daemon.access import NOBODY, Visitor
from kpcache.daemon.administrator import Change
from kpcache.daemon.dispatcher import Dispatcher, PairOrder
from kpcache.daemon.hangup import is_gone, wait_gone
from kpcache.daemon.notices import log, log_defect
from kpcache.daemon.outbox import Outbox, PeerGoneError
from kpcache.daemon.pools import Waiter
from kpcache.daemon.stock import Stock
from kpcache.daemon.tally import HIT, KEYRING, NONE, WAITED, Labels, answered
from kpcache.daemon.user import User
from kpcache.errors import KMSInternalException, KpcacheError

# Some eighty requests. Each read allocates as much, and where memory is overwritten (worker/wiping) that
# costs 1 µs less than reading 64 KiB.
_READ_BYTES = 16384
# Messages of any kind taken in one go before others get their turn: at most about 40 µs each, so under a
# millisecond.
_MESSAGES_PER_TURN = 16
# Half-closed connections of one user that are served to their end: each takes a file descriptor more.
_MAX_HALF_CLOSED = 32
_NEVER = float("inf")

Begin = Callable[[Request, Visitor], dict[str, Any] | PairOrder | Change]


class Session:
    """Owns ``sock``, a connected non-blocking socket, and closes it at the end of ``run``.

    A client that only half-closes is answered what it asked for before the connection ends; of one that is
    gone, nothing is left in any queue.
    """

    def __init__(
        self,
        sock: socket.socket,
        user: User,
        who: Identity,
        dispatcher: Dispatcher,
        stock: Stock,
        limits: Limits,
        begin: Begin | None = None,
        visitor: Visitor = NOBODY,
    ) -> None:
        """``who`` its requests are counted for, and ``visitor`` what it may ask for. ``begin``: for an
        administrator's connection, which may ask for more than the dispatcher knows."""
        self.user = user
        self._who = who
        self._visitor = visitor
        self.scope = trio.CancelScope()  # cancel it to cut the connection
        self._sock = sock
        self._dispatcher = dispatcher
        self._tally = dispatcher.tally
        self._take_up = begin or dispatcher.begin
        self._stock = stock
        self._limits = limits
        self._connection = Connection(limits)
        self._outbox = Outbox(sock, stock, limits, self.scope.cancel)
        self._received = 0.0  # when the last bytes came: each request in the buffer ends in them
        self._timed_message = 0  # the number of the message that ``scope.deadline`` is for
        self._nursery: trio.Nursery

    @property
    def is_incomplete(self) -> bool:
        """Whether it has begun a message whose rest must still come."""
        return self._connection.is_mid_message

    @property
    def is_busy(self) -> bool:
        """Whether an answer is owed or under way."""
        return bool(self._connection.in_flight) or not self._outbox.is_empty

    @property
    def owes_pairs(self) -> bool:
        """Whether an answer with a pair in it waits for its client to read."""
        return self._outbox.has_pairs

    async def run(self) -> None:
        """Serve until the client leaves, misbehaves or is cut; only a cancellation from outside is raised."""
        try:
            with self.scope:
                async with trio.open_nursery() as self._nursery:
                    self._outbox.nursery = self._nursery
                    await self._serve()
                    self._nursery.cancel_scope.cancel()
        except* PeerGoneError:
            pass
        except* Exception as group:
            log_defect("a connection", group)  # whose fault must not take the server down
        finally:
            self._outbox.discard()
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def _serve(self) -> None:
        connection = self._connection
        while True:
            event = self._answer_what_is_ready()
            if isinstance(event, Broken):
                self._tally.broken += 1
                self._outbox.post(event.farewell)
            if event is not NEED_DATA:
                self.scope.deadline = _NEVER  # what it waits for now is ours to do
            if not self._outbox.is_empty:
                # The client does not read its answers: take no more requests from it until it does.
                self.scope.deadline = _NEVER
                await self._outbox.wait_emptied()
                if event is PAUSED:
                    continue  # what is in flight may all have been answered meanwhile
            if isinstance(event, Broken):
                return
            if event is PAUSED:
                await self._outbox.wait_posted()
            elif event is NEED_DATA:
                data = await self._receive()
                if not data:
                    await self._finish_unless_gone()
                    return
                connection.feed(data)
            else:
                await trio.lowlevel.checkpoint()  # others' turn

    def _answer_what_is_ready(self) -> object:
        """Answer requests until something must be waited for; return that, or None when its turn is over."""
        connection = self._connection
        replies: list[bytes] = []
        specs: list[str] = []
        answers: list[Labels] = []
        generation = self._stock.fence.number
        event: object
        try:
            for _ in range(_MESSAGES_PER_TURN):
                event = connection.next_event()
                if isinstance(event, Request):
                    begun = self._begin(event)
                    if begun is not None:
                        reply, spec, labels = begun
                        replies.append(reply)
                        answers.append(labels)
                        if spec:
                            specs.append(spec)
                elif event is NOTIFICATION:
                    self._dispatcher.notifications += 1
                else:
                    break
            else:
                event = None
        except BaseException:
            for spec in specs:
                self._stock.burn(spec, "request_failed")
            raise
        if replies:
            self._outbox.post(replies[0] if len(replies) == 1 else b"".join(replies), specs, generation)
            took_s = perf_counter() - self._received
            for labels in answers:
                self._tally.note(labels, took_s)
        return event

    def _begin(self, request: Request) -> tuple[bytes, str, Labels] | None:
        """The reply, the spec of the pair in it, which may be empty, and what it is counted as. None: what
        takes a while gets a task."""
        provider = NONE
        try:
            work = self._take_up(request, self._visitor)
            if not isinstance(work, PairOrder):
                if isinstance(work, Change):
                    self._nursery.start_soon(self._answer_change, request, work, self._received)
                    return None
                return self._connection.answer(request.msgid, work), "", answered(request.method, HIT)
            provider = KEYRING
            pair = self._dispatcher.take(work, self._who)
            if pair is None:
                # The place in the queue is taken here: tasks may start in any order.
                waiter = self._dispatcher.join_queue(work, self._who)
                self._nursery.start_soon(self._wait_and_answer, request, work, waiter, self._received)
                return None
            return self._fulfil(request, work, pair), work.spec, (request.method, work.spec, KEYRING, HIT)
        except Exception as error:
            reply, labels = self._refuse(request, error, provider)
            return reply, "", labels

    async def _wait_and_answer(
        self, request: Request, work: PairOrder, waiter: Waiter, received: float
    ) -> None:
        try:
            pair = await self._dispatcher.wait(waiter)
            reply = self._fulfil(request, work, pair)
        except Exception as error:
            reply, labels = self._refuse(request, error, KEYRING)
            self._outbox.post(reply)
        else:
            labels = request.method, work.spec, KEYRING, WAITED
            self._outbox.post(reply, [work.spec], pair.generation)
        self._tally.note(labels, perf_counter() - received)

    async def _answer_change(self, request: Request, change: Change, received: float) -> None:
        try:
            reply = self._connection.answer(request.msgid, await change.answer())
            labels = answered(request.method, WAITED)
        except Exception as error:
            reply, labels = self._refuse(request, error, NONE)
        self._outbox.post(reply)
        self._tally.note(labels, perf_counter() - received)

    def _fulfil(self, request: Request, work: PairOrder, pair: Pair) -> bytes:
        """The reply with this pair in it. Whatever fails, the pair is burnt."""
        result = self._dispatcher.build(work, pair)
        try:
            return self._connection.answer(request.msgid, result)
        except BaseException:
            self._stock.burn(work.spec, "request_failed")
            raise

    def _refuse(self, request: Request, error: Exception, provider: str) -> tuple[bytes, Labels]:
        """The reply, and what it is counted as; ``provider`` as for ``Tally.refused``."""
        if not isinstance(error, KpcacheError):
            log_defect(f"answering {request.method!r:.40}", error)
            error = KMSInternalException("an internal error; the daemon's log has the details")
        log.debug(
            "%.40r of uid %d is refused: %s, %s", request.method, self._who.uid, error.code, error.reason
        )
        return self._connection.refuse(request.msgid, error), self._tally.refused(request, error, provider)

    # --- bytes in

    async def _receive(self) -> bytes:
        """The next bytes; empty at the end of the stream.

        A message that has begun has one deadline for all of its bytes, however many reads they take.
        """
        sock, connection = self._sock, self._connection
        if not connection.is_mid_message:
            if self.scope.deadline != _NEVER:
                self.scope.deadline = _NEVER
        elif self.scope.deadline == _NEVER or self._timed_message != connection.messages:
            self._timed_message = connection.messages
            self.scope.deadline = trio.current_time() + self._limits.message_timeout_s
            self.user.note_incomplete(self)
        while True:
            await trio.lowlevel.wait_readable(sock)
            try:
                data = sock.recv(_READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return b""
            self._received = perf_counter()
            self.user.note_activity(self)
            return data

    async def _finish_unless_gone(self) -> None:
        """The client sends no more; if it still reads, answer what is in flight."""
        self.scope.deadline = _NEVER  # a message that was begun is over
        if not self.is_busy or is_gone(self._sock) or self.user.half_closed >= _MAX_HALF_CLOSED:
            return
        self.user.half_closed += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cut_when_gone)
                while self._connection.in_flight:
                    await self._outbox.wait_posted()
                if not self._outbox.is_empty:
                    await self._outbox.wait_emptied()
                nursery.cancel_scope.cancel()
        finally:
            self.user.half_closed -= 1

    async def _cut_when_gone(self) -> None:
        with suppress(OSError):  # no descriptor to watch it with: as good as gone
            await wait_gone(self._sock)
        self.scope.cancel()
