"""One case against the product in process: the real connection, dispatcher, stock and keyring, no socket.

What is looked for: an exception that is not the caller's error, events that differ from the reference's
reading, an answer that is no answer, a request that runs behind a broken message, a pair that is not settled.
"""

import itertools
import traceback
from functools import cache, partial
from random import Random
from typing import Any

import msgpack

from bench.fuzz import reference
from bench.fuzz.campaign import Work
from bench.fuzz.cases import Case, Maker
from bench.fuzz.seeds import PLANTED
from bench.fuzz.tally import Finding, Tally
from bench.fuzz.words import CHEAP_SPEC, DYING, OFF, ON, Words
from kpcache.core.connection import NEED_DATA, NOTIFICATION, PAUSED, Broken, Connection
from kpcache.core.fair_queue import Identity
from kpcache.core.limits import Limits
from kpcache.core.pair import Pair, handover_digest
from kpcache.core.pool import State
from kpcache.core.specs import MAKEABLE
from kpcache.core.wire import Request
from kpcache.daemon.dispatcher import Dispatcher, Gate, PairOrder, draining
from kpcache.daemon.fence import Fence
from kpcache.daemon.pools import PoolPlan
from kpcache.daemon.stock import Stock
from kpcache.errors import WIRE_CLASSES, KpcacheError
from kpcache.keyring import Keyring, changes
from kpcache.worker.generation import Unknown

_WHO = Identity(1000, 1)
_TARGET = 16
_LONGEST_MESSAGE = 2500  # of an error: a KeyId is cut at 128, so only lists of members make it long


class WrongError(Exception):
    """The product did what it must not; the text says what."""


class Target:
    """A daemon's parts, without I/O. The keyring is the same in every process, so a case is, too."""

    def __init__(self) -> None:
        luck = Random(1)
        content = changes.first(ON, 0.0, luck.randbytes)
        for alias in (OFF, DYING):
            content = changes.create_key(content, description="", tags={}, now=0.0, urandom=luck.randbytes)
            content = changes.create_alias(content, alias, content.keys[-1].key_id)
        content = changes.disable(content, OFF)
        content = changes.schedule_deletion(content, DYING, 7, 0.0)
        self.keyring = Keyring(content, lambda: 0.0, luck.randbytes)
        key = self.keyring.resolve(ON)
        self.words = Words(
            tuple(self.keyring.encrypt(key, bytes(size), {}).blob for size in (1, 48, 1218, 4096))
        )
        self.gate = Gate()
        self._serials = itertools.count()
        self._draws: list[tuple[int, str, int]] = []
        self.stock = Stock(
            {spec: PoolPlan(_TARGET if spec == CHEAP_SPEC else 0, 0) for spec in MAKEABLE},
            lambda *draw: self._draws.append(draw),
            lambda *_burn: None,
            lambda: None,
            lambda _spec, _ahead: None,
            Fence(Unknown()),
            clock=lambda: 0.0,
        )

    def dispatcher(self, limits: Limits) -> Dispatcher:
        return Dispatcher(self.stock, self.keyring, limits, self.gate, lambda: {"status": "here"})

    def refill(self) -> None:
        """Have the cheap pool full again, as makers and shards would."""
        pool = self.stock.pools[CHEAP_SPEC]
        if missing := _TARGET - pool.at_hand:
            pool.book.make(missing)
            pool.book.move(State.MADE, State.CHECKED, missing)
            pool.book.move(State.CHECKED, State.RECORDED, missing)
            self.stock.hold(0, CHEAP_SPEC, missing)
        while self._draws:
            shard, spec, count = self._draws.pop()
            self.stock.receive(shard, spec, [self._pair(spec) for _ in range(count)])

    def _pair(self, spec: str) -> Pair:
        private, public = b"private %d" % next(self._serials), b"public %d" % next(self._serials)
        return Pair(spec, 0, private, public, handover_digest(spec, 0, private, public))

    def settle(self) -> None:
        """Refuse who still waits, and see that nobody has anything in hand and the books add up."""
        self.stock.dismiss_queues(draining)
        for spec, pool in self.stock.pools.items():
            book = pool.book
            parts = book.issued + book.discarded.total() + book.held + book.ready + book.in_hand
            if book.generated + book.restored != parts:
                raise WrongError(f"the books of {spec} do not add up")
            if book.in_hand:
                raise WrongError(f"a pair of {spec} is left in hand")


def work(seed: int) -> Work:
    """Runs cases of this seed."""
    return partial(_run, seed)


@cache
def _target() -> Target:
    """One in each process: to make its keyring takes longer than a chunk of cases."""
    return Target()


def _run(seed: int, numbers: range) -> Tally:
    target, tally = _target(), Tally()
    run(target, Maker(seed, target.words), numbers, tally)
    return tally


def run(target: Target, maker: Maker, numbers: range, tally: Tally) -> None:
    """These cases, one after the other."""
    for number in numbers:
        case = maker.case(number)
        tally.cases += 1
        tally.messages += case.messages
        target.refill()
        try:
            _Conversation(target, case, tally).hold()
        except WrongError as wrong:
            tally.find(Finding("wrong", str(wrong), number, case.stream.hex()))
        except Exception as error:
            # Whatever it is, a connection would have met it.
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {where.name}"
            tally.find(Finding(kind, f"line {where.lineno}", number, case.stream.hex()))


class _Conversation:
    def __init__(self, target: Target, case: Case, tally: Tally) -> None:
        self._target, self._case, self._tally = target, case, tally
        target.gate.draining, target.gate.alarm = case.draining, case.alarm
        self._dispatcher = target.dispatcher(case.limits)
        self._link = Connection(case.limits)
        self._expected = reference.read(case.stream, case.limits.max_message_bytes)
        self._in_flight: set[int] = set()
        self._late: list[Request] = []

    def hold(self) -> None:
        """Feed all pieces, answer what comes out, and compare all of it. Raises ``WrongError``."""
        for piece in self._case.pieces:
            self._link.feed(piece)
            broken = self._read(len(piece))
            if broken is not None:
                self._require_end(broken)
                break
        else:
            self._require_more()
        self._answer_late()
        if self._link.in_flight:
            raise WrongError("requests are in flight after all were answered")
        self._target.settle()

    def _read(self, fed: int) -> Broken | None:
        """All events up to the one that wants data or ends it all."""
        link = self._link
        for _ in range(2 * fed + len(self._case.stream) + 2):
            event = link.next_event()
            if event is NEED_DATA:
                return None
            if isinstance(event, Broken):
                return event
            if event is PAUSED:
                if link.in_flight < self._case.limits.max_in_flight_per_connection:
                    raise WrongError("paused below the limit of requests in flight")
                self._answer_late()
            elif event is NOTIFICATION:
                self._require_next(reference.Notification())
                self._tally.notifications += 1
            else:
                self._take(event)
        raise WrongError("events without an end")

    def _take(self, request: Request) -> None:
        got = reference.Request(request.msgid, request.method, request.data, request.options)
        self._require_next(got)
        if request.msgid in self._in_flight:
            raise WrongError("a msgid in flight was taken again")
        self._in_flight.add(request.msgid)
        self._tally.reached += 1
        if self._case.answered_late:
            self._late.append(request)
        else:
            self._answer(request)

    def _require_next(self, got: reference.Outcome) -> None:
        expected = self._next_expected()
        # As text: True is not 1 there, and a number that is none equals itself.
        if repr(expected) != repr(got):
            raise WrongError(f"read as {_told(got)}, by the reference as {_told(expected)}")

    def _next_expected(self) -> reference.Outcome:
        return next(self._expected, reference.More(0))

    def _require_more(self) -> None:
        expected = self._next_expected()
        if not isinstance(expected, reference.More):
            raise WrongError(f"wants more, by the reference {_told(expected)}")
        if self._link.is_mid_message != bool(expected.begun):
            raise WrongError("is wrong about whether a message has begun")

    def _require_end(self, broken: Broken) -> None:
        """Broken where it must be, told to whom it may be, and for good."""
        expected = self._next_expected()
        address: int | None = None
        if isinstance(expected, reference.Broken):
            address = expected.address if expected.address not in self._in_flight else None
        elif not (isinstance(expected, reference.Request) and expected.msgid in self._in_flight):
            raise WrongError(f"broken, by the reference {_told(expected)}")
        self._tally.broken += 1
        if address is None and broken.farewell:
            raise WrongError("a farewell to nobody")
        if address is not None:
            self._require_refusal(broken.farewell, address, {"ValidationException"})
        self._link.feed(PLANTED)
        if self._link.next_event() is not broken:
            raise WrongError("a broken connection goes on")

    # --- answers

    def _answer_late(self) -> None:
        late, self._late = self._late, []
        for request in late:
            self._answer(request)

    def _answer(self, request: Request) -> None:
        try:
            reply = self._link.answer(request.msgid, self._result(request))
        except KpcacheError as error:
            self._require_refusal(self._link.refuse(request.msgid, error), request.msgid, WIRE_CLASSES)
        else:
            answer = msgpack.unpackb(reply)
            if answer[:3] != [1, request.msgid, None] or type(answer[3]) is not dict:
                raise WrongError("an answer that is none")
            self._tally.answered["result"] += 1
        self._in_flight.remove(request.msgid)

    def _result(self, request: Request) -> dict[str, Any]:
        """As a session does it; who must wait is refused, as no time goes by here."""
        dispatcher, stock = self._dispatcher, self._target.stock
        work = dispatcher.begin(request)
        if not isinstance(work, PairOrder):
            return work
        pair = dispatcher.take(work, _WHO)
        if pair is None:
            waiter = dispatcher.join_queue(work, _WHO)
            stock.dismiss_queues(draining)
            if waiter.pair is None:
                raise waiter.refusal or waiter.late()
            pair = waiter.pair
        result = dispatcher.build(work, pair)
        stock.issue(work.spec)
        return result

    def _require_refusal(self, reply: bytes, msgid: int, codes: Any) -> None:
        answer = msgpack.unpackb(reply)
        if answer[:2] != [1, msgid] or answer[3] is not None or type(answer[2]) is not dict:
            raise WrongError("a refusal that is none")
        code, message = answer[2]["Code"], answer[2]["Message"]
        if code not in codes or code == "KMSInternalException":
            raise WrongError(f"refused with {code}")
        if len(message) > _LONGEST_MESSAGE or not (message.isascii() and message.isprintable()):
            raise WrongError("a refusal that cannot be shown")
        self._tally.answered[code] += 1


def _told(outcome: reference.Outcome) -> str:
    return type(outcome).__name__
