"""MessagePack-RPC messages: bytes to requests and replies to bytes (github.com/msgpack-rpc/msgpack-rpc spec).

Two passes. ``Scanner`` walks the bytes of one message without building an object: it finds the
message's end, counts its size from its first byte, and bounds depth, lengths and types, so that a
hostile message costs no more memory than its own bytes. ``decode`` then builds the objects of a
message that the scanner has passed.

A decoder must never go on behind a broken message: it would read that message's payload as new
requests. So every error here is final for its connection (see ``core/connection.py``).
"""

from dataclasses import dataclass
from typing import Any, Final

import msgpack

from kpcache.core.limits import MAX_DEPTH, MAX_ITEMS, MAX_METHOD_CHARS, MAX_MSGID

REQUEST: Final = 0
RESPONSE: Final = 1
NOTIFICATION: Final = 2


class WireError(Exception):
    """The bytes are not a legal message; the text is meant for the client. See ``Scanner.address``."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call: ``data`` is KMS's input, ``options`` are kpcache's own (``wait_s``)."""

    msgid: int
    method: str
    data: object
    options: object


# How to step over an item, by its first byte (msgpack spec, "Formats"). _WHOLE: its whole length in
# bytes, or 0; _LENGTH: how many bytes of length follow; _ITEMS: items per counted entry of a container.
_WHOLE = [0] * 256
_LENGTH = [0] * 256
_ITEMS = [0] * 256
_COUNT = [0] * 256  # the entries of a fixmap or fixarray
for _byte in range(256):
    if _byte < 0x80 or _byte >= 0xE0 or _byte in (0xC0, 0xC2, 0xC3):
        _WHOLE[_byte] = 1
    elif _byte < 0xA0:
        _ITEMS[_byte] = 2 if _byte < 0x90 else 1
        _COUNT[_byte] = _byte & 0x0F
    elif _byte < 0xC0:
        _WHOLE[_byte] = 1 + (_byte & 0x1F)
for _byte, _size in {
    0xCA: 5, 0xCB: 9,  # floats
    0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,  # integers
}.items():  # fmt: skip
    _WHOLE[_byte] = _size
for _byte, _size in {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}.items():  # bin, str
    _LENGTH[_byte] = _size
for _byte, (_size, _per_entry) in {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}.items():
    _LENGTH[_byte] = _size
    _ITEMS[_byte] = _per_entry
# What is left with three zeros is forbidden here: 0xC1 (never used) and the extension types.


class Scanner:
    """Finds the end of one message in a buffer that begins with it, and may be called again as it grows.

    No byte is looked at twice, so a message that drips in costs no more than one that comes whole.
    """

    __slots__ = ("_head", "_max_bytes", "_need", "_open", "_pos")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pos = 0  # the first byte not yet stepped over
        self._need = 1  # a scan with fewer bytes than this can not get further
        self._open: list[int] = []  # items still missing in each open container, outermost first
        self._head: list[int] = []  # where the message's own items begin: type, msgid, method, params

    @property
    def is_waiting(self) -> bool:
        """Whether it has looked at a message's first bytes and found that more must come."""
        return self._need > 1

    def scan(self, buffer: bytearray) -> int | None:
        """The message's length in bytes, or None while it is incomplete. Raises ``WireError``."""
        if len(buffer) < self._need:
            return None
        pos, stack, size = self._pos, self._open, len(buffer)
        while pos < size:
            first = buffer[pos]
            items = 0
            if len(stack) == 1:
                self._note_item(pos)
            if whole := _WHOLE[first]:
                end = pos + whole
            elif _ITEMS[first] and not _LENGTH[first]:
                end, items = pos + 1, _COUNT[first] * _ITEMS[first]
            else:
                end, items = self._long_item(buffer, pos, first)
            if end > self._max_bytes:
                raise WireError(f"the message is over the limit of {self._max_bytes} bytes")
            if not stack:
                self._require_message(buffer, pos, first, items)
            if end > size:
                self._pos, self._need = pos, end
                return None
            pos = end
            if items:
                if len(stack) >= MAX_DEPTH:
                    raise WireError(f"the message is nested deeper than {MAX_DEPTH}")
                stack.append(items)
                continue
            while stack:
                stack[-1] -= 1
                if stack[-1]:
                    break
                stack.pop()
            else:
                return pos
        self._pos, self._need = pos, pos + 1
        return None

    def _long_item(self, buffer: bytearray, pos: int, first: int) -> tuple[int, int]:
        """The end and the item count of an item whose length stands in bytes of its own."""
        width = _LENGTH[first]
        if not width:
            raise WireError("the message holds an extension type or an unused byte")
        end = pos + 1 + width
        if end > len(buffer):
            return end, 0  # the length itself is incomplete: come back when it is there
        length = int.from_bytes(buffer[pos + 1 : end], "big")
        per_entry = _ITEMS[first]
        if not per_entry:
            return end + length, 0
        if length > MAX_ITEMS:
            raise WireError(f"the message holds an array or map of more than {MAX_ITEMS} entries")
        return end, length * per_entry

    def _note_item(self, pos: int) -> None:
        """Remember where one of the message's own items begins, also if that item turns out to be broken."""
        if not self._head or self._head[-1] != pos:
            self._head.append(pos)

    def _require_message(self, buffer: bytearray, pos: int, first: int, items: int) -> None:
        """Keep the rule of the message's own array."""
        if _ITEMS[first] != 1 or (items not in (3, 4) and pos + 1 + _LENGTH[first] <= len(buffer)):
            raise WireError("a message must be an array of 4 items (a request) or 3 (a notification)")

    def address(self, buffer: bytearray) -> int | None:
        """The msgid to which an error in this message can be addressed: that of a request whose first two
        items were whole. None otherwise, and then nobody can be answered."""
        head = self._head
        if len(head) < 3 or buffer[head[0]] != REQUEST:
            return None
        try:
            msgid = msgpack.unpackb(bytes(buffer[head[1] : head[2]]))
        except (ValueError, msgpack.UnpackException):
            return None
        return msgid if is_msgid(msgid) else None


def is_msgid(value: object) -> bool:
    """Whether a value may number a request: an integer (a bool is none) of 32 bits, unsigned."""
    return type(value) is int and 0 <= value <= MAX_MSGID


def decode(message: bytes) -> Request | None:
    """The request in a scanned message; None for a notification. Raises ``WireError``.

    A response is an error without an address: a client that sends it is never answered.
    """
    try:
        items = msgpack.unpackb(message, object_pairs_hook=_map_without_doubt, strict_map_key=False)
    except UnicodeDecodeError as error:
        raise WireError("a string is not UTF-8") from error
    except _DoubtfulMapError as error:
        raise WireError(str(error)) from error
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError("the message is not valid msgpack") from error
    kind = items[0]
    if type(kind) is int and kind == NOTIFICATION and len(items) == 3:
        return None
    if type(kind) is not int or kind != REQUEST or len(items) != 4:
        raise WireError("a client may send requests and notifications only")
    return _request(*items[1:])


def _request(msgid: Any, method: Any, params: Any) -> Request:
    if not is_msgid(msgid):
        raise WireError("a msgid must be an integer from 0 to 4294967295")
    if not isinstance(method, str) or len(method) > MAX_METHOD_CHARS:
        raise WireError(f"a method must be a string of at most {MAX_METHOD_CHARS} characters")
    if not isinstance(params, list) or len(params) > 2:
        raise WireError("params must be an array: [input] or [input, options]")
    return Request(
        msgid=msgid,
        method=method,
        data=params[0] if params else {},
        options=params[1] if len(params) == 2 else None,
    )


class _DoubtfulMapError(ValueError):
    """A map that two readers could read in two ways."""


def _map_without_doubt(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """A map with string keys, each once: of two equal keys one reader takes the first, another the last,
    and an encryption context with two readings is a security bug."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if type(key) is not str:
            raise _DoubtfulMapError("a map has a key that is not a string")
        result[key] = value
    if len(result) != len(pairs):
        raise _DoubtfulMapError("a map has the same key twice")
    return result


# A response with a pair of RSA_4096 fits. msgpack's own is 256 KiB, and where allocated and freed memory is
# overwritten (worker/wiping) that costs 4 µs a response.
_BUFFER_BYTES: Final = 8192


def encode_result(msgid: int, result: dict[str, Any]) -> bytes:
    """The response that carries a result: str is text, bytes are bin."""
    packed: bytes = msgpack.packb((RESPONSE, msgid, None, result), buf_size=_BUFFER_BYTES)
    return packed


def encode_error(msgid: int, error: dict[str, Any]) -> bytes:
    """The response that carries an error map (``KpcacheError.to_wire``)."""
    packed: bytes = msgpack.packb((RESPONSE, msgid, error, None), buf_size=_BUFFER_BYTES)
    return packed
