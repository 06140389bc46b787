"""Another reading of a stream of messages: by recursion, item after item, without the product's code.

It is written after the MessagePack and MessagePack-RPC specs and kpcache's own rules, to be held against
``core.wire`` and ``core.connection``, which walk tables and never look at a byte twice. Where the two differ,
one of them is wrong.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_DEPTH, _ITEMS, _METHOD_CHARS, _MSGIDS = 5, 256, 64, 2**32


@dataclass(frozen=True, slots=True)
class Request:
    """A request, with what stands for input and options where it has none."""

    msgid: int
    method: str
    data: object
    options: object


@dataclass(frozen=True, slots=True)
class Notification:
    """A whole message that asks for nothing."""


@dataclass(frozen=True, slots=True)
class More:
    """The stream ends within a message, or between two: the bytes of one that has begun, or 0."""

    begun: int


@dataclass(frozen=True, slots=True)
class Broken:
    """No message: nothing behind it may be read. ``address``: the request that can be told, or None."""

    address: int | None


Outcome = Request | Notification | More | Broken


class _FaultError(Exception):
    """Broken here and now."""


class _EndError(Exception):
    """The bytes end."""


class _Bad:
    """In place of a value that makes its message broken once it is whole."""


_BAD = _Bad()
_INTEGERS = {
    0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
    0xCA: ">f", 0xCB: ">d",
}  # fmt: skip
_STRINGS, _BLOBS = {0xD9: 1, 0xDA: 2, 0xDB: 4}, {0xC4: 1, 0xC5: 2, 0xC6: 4}
_ARRAYS, _MAPS = {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}


def read(stream: bytes, max_bytes: int) -> Iterator[Outcome]:
    """What a connection must make of these bytes; the last is ``More`` or ``Broken``.

    A msgid that is in flight still is for the caller to see: here nothing is ever answered.
    """
    start = 0
    while start < len(stream):
        message = _Message(stream, start, max_bytes)
        try:
            outcome = message.outcome()
        except _EndError:
            yield More(len(stream) - start)
            return
        except _FaultError:
            yield Broken(message.address())
            return
        yield outcome
        start = message.pos
    yield More(0)


class _Message:
    def __init__(self, stream: bytes, start: int, max_bytes: int) -> None:
        self.pos = start
        self._stream = stream
        self._limit = start + max_bytes
        self._sound = True  # so far, by what only a whole message can be refused for
        self._type_byte = -1
        self._items: list[Any] = []
        self._begun = 0  # of the message's own items

    def outcome(self) -> Request | Notification:
        size = self._head_size()
        for _ in range(size):
            self._begun += self.pos < len(self._stream)
            if not self._items and self.pos < len(self._stream):
                self._type_byte = self._stream[self.pos]
            self._items.append(self._item(1))
        kind = self._items[0]
        if not self._sound:
            raise _FaultError
        if type(kind) is int and kind == 2 and size == 3:
            return Notification()
        if type(kind) is not int or kind != 0 or size != 4:
            raise _FaultError
        _, msgid, method, params = self._items
        if type(msgid) is not int or not 0 <= msgid < _MSGIDS:
            raise _FaultError
        if type(method) is not str or len(method) > _METHOD_CHARS:
            raise _FaultError
        if type(params) is not list or len(params) > 2:
            raise _FaultError
        data, options = [*params, None, None][:2]
        return Request(msgid, method, data if params else {}, options)

    def address(self) -> int | None:
        if self._begun < 3 or self._type_byte != 0:
            return None
        msgid = self._items[1]
        return msgid if type(msgid) is int and 0 <= msgid < _MSGIDS else None

    def _head_size(self) -> int:
        first = self._first_byte()
        if first & 0xF0 == 0x90:
            size = first & 0x0F
        elif first in _ARRAYS:
            size = self._length(_ARRAYS[first])
        else:
            raise _FaultError
        if size not in (3, 4):
            raise _FaultError
        return size

    def _item(self, depth: int) -> Any:
        """The next item; ``depth`` is how many containers are open around it."""
        first = self._first_byte()
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 256
        if first in _INTEGERS:
            code = _INTEGERS[first]
            return struct.unpack(code, self._take(struct.calcsize(code)))[0]
        if first & 0xE0 == 0xA0 or first in _STRINGS:
            return self._text(first & 0x1F if first < 0xC0 else self._length(_STRINGS[first]))
        if first in _BLOBS:
            return self._take(self._length(_BLOBS[first]))
        if first & 0xF0 == 0x90 or first in _ARRAYS:
            return self._array(self._entries(first, _ARRAYS), depth)
        if first & 0xF0 == 0x80 or first in _MAPS:
            return self._map(self._entries(first, _MAPS), depth)
        if first in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[first]
        raise _FaultError

    def _first_byte(self) -> int:
        """Nothing is said of an item of which nothing is there, though the limit may be reached already."""
        if self.pos == len(self._stream):
            raise _EndError
        return self._take(1)[0]

    def _take(self, size: int) -> bytes:
        end = self.pos + size
        if end > self._limit:
            raise _FaultError
        if end > len(self._stream):
            raise _EndError
        taken = self._stream[self.pos : end]
        self.pos = end
        return taken

    def _length(self, width: int) -> int:
        return int.from_bytes(self._take(width), "big")

    def _entries(self, first: int, long: dict[int, int]) -> int:
        count = first & 0x0F if first < 0xA0 else self._length(long[first])
        if count > _ITEMS:
            raise _FaultError
        return count

    def _text(self, size: int) -> Any:
        try:
            return self._take(size).decode()
        except UnicodeDecodeError:
            self._sound = False
            return _BAD

    def _array(self, size: int, depth: int) -> Any:
        self._require_depth(size, depth)
        return [self._item(depth + 1) for _ in range(size)]

    def _map(self, size: int, depth: int) -> Any:
        self._require_depth(size, depth)
        entries: dict[str, Any] = {}
        for _ in range(size):
            key, value = self._item(depth + 1), self._item(depth + 1)
            if type(key) is not str or key in entries:
                self._sound = False
            else:
                entries[key] = value
        return entries

    def _require_depth(self, size: int, depth: int) -> None:
        """An empty container holds nothing that could lie deeper."""
        if size and depth >= _DEPTH:
            raise _FaultError
