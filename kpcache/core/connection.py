"""One client's connection as a state machine without I/O: bytes in, events out.

    connection.feed(data)
    event = connection.next_event()     # Request, NOTIFICATION, NEED_DATA, PAUSED or Broken

The shell answers each ``Request`` with ``answer`` or ``refuse`` and sends the bytes they return, in any
order; replies are matched by msgid. States: open until the first broken message, broken for ever
after. Nothing behind a broken message is ever read: the buffer goes with the decoder.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from kpcache.core.limits import Limits
from kpcache.core.wire import Request, Scanner, WireError, decode, encode_error, encode_result
from kpcache.errors import KpcacheError, ValidationException


class Signal(Enum):
    """What ``next_event`` returns where there is no request."""

    NOTIFICATION = "notification"  # one whole message, for which there is nothing to do
    NEED_DATA = "need data"  # feed more
    PAUSED = "paused"  # too many requests in flight: answer some, read nothing till then


NOTIFICATION: Final = Signal.NOTIFICATION
NEED_DATA: Final = Signal.NEED_DATA
PAUSED: Final = Signal.PAUSED


@dataclass(frozen=True, slots=True)
class Broken:
    """A connection's last event: send ``farewell`` (may be empty), then close."""

    farewell: bytes


class Connection:
    """The protocol state of one connection. Not thread-safe; the shell that owns it calls it."""

    __slots__ = ("_broken", "_buffer", "_in_flight", "_limits", "_scanner", "messages")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._scanner = Scanner(limits.max_message_bytes)
        self._in_flight: set[int] = set()
        self._broken: Broken | None = None
        self.messages = 0  # read whole so far

    @property
    def in_flight(self) -> int:
        """Requests read and not yet answered."""
        return len(self._in_flight)

    @property
    def is_mid_message(self) -> bool:
        """Whether a message has begun whose rest is not there yet: while so, its one deadline runs.

        Bytes not looked at yet, because too much is in flight, are not known to be such a message.
        """
        return self._scanner.is_waiting and bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take received bytes. At most one read's worth beyond one message is ever kept."""
        if self._broken is None:
            self._buffer += data

    def next_event(self) -> Request | Signal | Broken:
        """The next thing to act on. After ``Broken`` it returns the same ``Broken`` for ever."""
        if self._broken is not None:
            return self._broken
        if len(self._in_flight) >= self._limits.max_in_flight_per_connection:
            return PAUSED
        try:
            return self._next_message()
        except WireError as error:
            return self._break(error)

    def _next_message(self) -> Request | Signal:
        buffer = self._buffer
        end = self._scanner.scan(buffer)
        if end is None:
            return NEED_DATA
        request = decode(bytes(buffer[:end]))
        if request is not None:
            if request.msgid in self._in_flight:
                # Two answers with one msgid could not be told apart, so the connection ends here.
                raise WireError("a msgid in flight was used again")
            self._in_flight.add(request.msgid)
        del buffer[:end]
        self.messages += 1
        self._scanner = Scanner(self._limits.max_message_bytes)
        return NOTIFICATION if request is None else request

    def _break(self, error: WireError) -> Broken:
        farewell = b""
        address = self._scanner.address(self._buffer)
        # An address already in flight belongs to the earlier request: its caller must not be misled.
        if address is not None and address not in self._in_flight:
            farewell = encode_error(address, ValidationException(str(error)).to_wire())
        self._broken = Broken(farewell)
        self._buffer = bytearray()
        return self._broken

    def answer(self, msgid: int, result: dict[str, Any]) -> bytes:
        """The bytes of a successful response; the msgid may be used again after this."""
        data = encode_result(msgid, result)  # if this fails, the request can still be refused
        self._in_flight.remove(msgid)
        return data

    def refuse(self, msgid: int, error: KpcacheError) -> bytes:
        """The bytes of an error response; the msgid may be used again after this."""
        self._in_flight.remove(msgid)
        return encode_error(msgid, error.to_wire())
