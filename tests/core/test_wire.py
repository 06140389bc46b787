"""The scanner finds exactly the message that msgpack means, and stops at the first forbidden byte."""

import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.limits import MAX_DEPTH, MAX_ITEMS, MAX_METHOD_CHARS, MAX_MSGID
from kpcache.core.wire import (
    Request,
    Scanner,
    WireError,
    decode,
    encode_error,
    encode_result,
)

LIMIT = 65536

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
)
# Two levels below params: the deepest that is legal.
inputs = st.dictionaries(
    st.text(max_size=40),
    scalars | st.lists(scalars, max_size=20) | st.dictionaries(st.text(max_size=9), scalars, max_size=20),
    max_size=20,
)
msgids = st.integers(0, MAX_MSGID)
methods = st.text(max_size=MAX_METHOD_CHARS)
params = st.lists(inputs, max_size=2)
requests = st.tuples(st.just(0), msgids, methods, params)
notifications = st.tuples(st.just(2), methods, params)


def pack(value: object) -> bytes:
    return msgpack.packb(value)  # type: ignore[no-any-return]


def scan(data: bytes, limit: int = LIMIT) -> int | None:
    return Scanner(limit).scan(bytearray(data))


@given(requests | notifications, requests, st.data())
def test_a_message_ends_where_msgpack_says_however_it_is_cut(
    message: Any, following: Any, data: st.DataObject
) -> None:
    packed = pack(message)
    stream = packed + pack(following)
    scanner, buffer = Scanner(LIMIT), bytearray()
    for cut in sorted(data.draw(st.lists(st.integers(0, len(packed) - 1), max_size=6))):
        buffer += stream[len(buffer) : cut]
        assert scanner.scan(buffer) is None
    buffer += stream[len(buffer) :]
    assert scanner.scan(buffer) == len(packed)


@given(requests)
def test_a_request_comes_out_as_it_was_meant(message: Any) -> None:
    _, msgid, method, given_params = message
    data, options = (*given_params, {}, None)[:2] if not given_params else (*given_params, None)[:2]
    assert decode(pack(message)) == Request(msgid, method, data, options)


@given(notifications)
def test_a_notification_is_no_request(message: Any) -> None:
    assert decode(pack(message)) is None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_incomplete_or_scanned_or_refused(data: bytes) -> None:
    """Nothing but ``WireError`` ever comes out, and what is passed has msgpack's length."""
    try:
        end = scan(data)
        if end is None:
            return
        decode(data[:end])
    except WireError:
        return
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(data)
    unpacker.skip()
    assert unpacker.tell() == end


@pytest.mark.parametrize("first", range(256))
def test_every_first_byte_is_stepped_over_as_msgpack_does(first: int) -> None:
    """Each of the 256 kinds of item, as the only member of params."""
    body = bytes([first]) + (b"\x00" * 3 + b"\x01" if first in (0xC6, 0xDB, 0xDD, 0xDF) else b"\x00\x01")
    packed = pack([0, 1, "m", []])[:-1] + b"\x91" + body + b"\xc0" * 40
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(packed)
    if first == 0xC1 or first in range(0xC7, 0xCA) or first in range(0xD4, 0xD9):
        with pytest.raises(WireError, match="extension type or an unused byte"):
            scan(packed)
    else:
        unpacker.skip()
        assert scan(packed) == unpacker.tell()


# --- limits


def test_size_counts_from_the_messages_start() -> None:
    message = pack([0, 1, "m", [b"x" * 100]])
    assert scan(message, limit=len(message)) == len(message)
    with pytest.raises(WireError, match="over the limit"):
        scan(message, limit=len(message) - 1)
    # What has come before does not count, and what comes behind does not, either.
    assert scan(message + message, limit=len(message)) == len(message)


@pytest.mark.parametrize("kind", [b"\xc6", b"\xdb"])
def test_a_claimed_length_is_refused_before_its_bytes_are_awaited(kind: bytes) -> None:
    head = pack([0, 1, "m", []])[:-1] + b"\x91"
    room = LIMIT - len(head) - 5
    assert scan(head + kind + struct.pack(">I", room)) is None
    with pytest.raises(WireError, match="over the limit"):
        scan(head + kind + struct.pack(">I", room + 1))


def test_many_small_items_cannot_pass_the_limit_together() -> None:
    scanner, buffer = Scanner(1000), bytearray(pack([0, 1, "m", []])[:-1] + b"\xdc\x01\x00")
    while len(buffer) < 1000 - 10:
        buffer += b"\xa9ninebytes"
        assert scanner.scan(buffer) is None
    buffer += b"\xa9ninebytes"
    with pytest.raises(WireError, match="over the limit"):
        scanner.scan(buffer)


def nested(depth: int, kind: str) -> bytes:
    """A request that is ``depth`` deep, its innermost container not empty."""
    value: object = 1
    for _ in range(depth - 1):
        value = [value] if kind == "list" else {"k": value}
    return pack([0, 7, "m", value])


@pytest.mark.parametrize("kind", ["list", "map"])
def test_depth_is_bounded(kind: str) -> None:
    message = nested(MAX_DEPTH, kind)
    assert scan(message) == len(message)
    with pytest.raises(WireError, match="nested deeper"):
        scan(nested(MAX_DEPTH + 1, kind))


def test_a_very_deep_message_is_refused_at_the_first_level_too_many() -> None:
    with pytest.raises(WireError, match="nested deeper"):
        scan(b"\x94\x00\x01\xa1m" + b"\x91" * 60000)


@pytest.mark.parametrize("kind", [0xDC, 0xDD, 0xDE, 0xDF])
def test_a_claimed_count_is_refused_before_its_entries_are_awaited(kind: int) -> None:
    width = ">H" if kind in (0xDC, 0xDE) else ">I"
    head = pack([0, 1, "m", []])[:-1] + bytes([kind])
    assert scan(head + struct.pack(width, MAX_ITEMS)) is None
    with pytest.raises(WireError, match="more than 256 entries"):
        scan(head + struct.pack(width, MAX_ITEMS + 1))


@pytest.mark.parametrize(
    "data",
    [
        *(b"\x01", b"\xc0", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"\x80", b"\x90", b"\x84", b"\x95"),
        *(b"\x91\x00", b"\xdc\x00\x05", b"\xdd\x00\x00\x00\x02", b"\xde\x00\x02", b"\xa1x", b"\xcc\x00"),
    ],
)
def test_what_is_no_message_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(WireError):
        scan(data)


@pytest.mark.parametrize("head", [b"\xdc\x00\x04", b"\xdd\x00\x00\x00\x04"])
def test_any_encoding_of_the_messages_array_will_do(head: bytes) -> None:
    """The published format lets a writer use a longer form than it needs."""
    message = head + pack([0, 7, "m", []])[1:]
    assert scan(message) == len(message)
    scanner, buffer = Scanner(LIMIT), bytearray()
    for byte in message[:-1]:
        buffer.append(byte)
        assert scanner.scan(buffer) is None


class CountingBytes(bytearray):
    """Counts how often a byte is looked at."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        type(self).looks += len(range(*index.indices(len(self)))) if isinstance(index, slice) else 1
        return super().__getitem__(index)


@pytest.mark.parametrize(
    "packed",
    [
        pack([0, 1, "m", [[1] * 200, {f"key {n}": "v" * 90 for n in range(200)}]]),
        pack([0, 1, "m", [b"x" * 20000]]),
    ],
    ids=["many items", "one long item"],
)
def test_a_message_that_drips_in_costs_no_more_than_its_bytes(packed: bytes) -> None:
    """Counted in looks at bytes: a scan that began anew with each byte would take millions."""
    CountingBytes.looks = 0
    scanner, buffer = Scanner(LIMIT), CountingBytes()
    for byte in packed:
        assert scanner.scan(buffer) is None
        buffer.append(byte)
    assert scanner.scan(buffer) == len(packed)
    assert CountingBytes.looks <= 2 * len(packed)


# --- what has no second reading


@pytest.mark.parametrize(
    ("params_bytes", "reason"),
    [
        (b"\x91\x82\xa1a\x01\xa1a\x02", "same key twice"),
        (b"\x91\x81\xa1c\x82\xa1a\x01\xa1a\x02", "same key twice"),
        (b"\x91\x82\xa1a\x01\xd9\x01a\x02", "same key twice"),  # the same string in two encodings
        (b"\x91\x81\x01\x02", "key that is not a string"),
        (b"\x91\x81\xc4\x01a\x02", "key that is not a string"),
        (b"\x91\x81\xc0\x02", "key that is not a string"),
        (b"\x91\x81\x90\x02", "key that is not a string"),
        (b"\x91\xa2\xc3\x28", "not UTF-8"),
        (b"\x91\x81\xa1\xff\x01", "not UTF-8"),
        (b"\x91\xa3\xed\xa0\x80", "not UTF-8"),  # a lone surrogate
    ],
)
def test_doubtful_maps_and_strings_are_refused(params_bytes: bytes, reason: str) -> None:
    message = b"\x94\x00\x07\xa1m" + params_bytes
    assert scan(message) == len(message)
    with pytest.raises(WireError, match=reason):
        decode(message)


@pytest.mark.parametrize(
    "message",
    [
        [0, -1, "m", []],
        [0, MAX_MSGID + 1, "m", []],
        [0, True, "m", []],
        [0, 1.0, "m", []],
        [0, "1", "m", []],
        [0, None, "m", []],
        [0, 1, b"m", []],
        [0, 1, None, []],
        [0, 1, "m" * (MAX_METHOD_CHARS + 1), []],
        [0, 1, "m", {}],
        [0, 1, "m", None],
        [0, 1, "m", [1, 2, 3]],
        [1, 1, None, {}],
        [2, 1, "m", []],
        [3, 1, "m", []],
        [False, 1, "m", []],
        [0.0, 1, "m", []],
        [0, "m", []],
    ],
    ids=repr,
)
def test_wrong_parts_of_a_message_are_refused(message: list[Any]) -> None:
    packed = pack(message)
    assert scan(packed) == len(packed)
    with pytest.raises(WireError):
        decode(packed)


# --- to whom an error goes


def address(data: bytes) -> int | None:
    """Where the error in a broken message goes."""
    scanner, buffer = Scanner(LIMIT), bytearray(data)
    try:
        end = scanner.scan(buffer)
        assert end is not None
        decode(data[:end])
    except WireError:
        return scanner.address(buffer)
    raise AssertionError("the message was not broken")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x94\x00\x05\xa1m\x91\xc7\x01\x01x", 5),  # in params
        (b"\x94\x00\xcd\x01\x00\xa1m\xc1", 256),
        (b"\x94\x00\xce\xff\xff\xff\xff\xa1m\xc1", MAX_MSGID),
        (b"\x94\x00\x05\xc1", 5),  # at the method
        (b"\x94\x00\x05\xdb\xff\xff\xff\xff", 5),  # a method over the limit
        (b"\x94\x00\x05\xc0\x90", 5),
        (b"\x94\x00\xff\xa1m\xc1", None),  # -1 is no msgid
        (b"\x94\x00\xc3\xa1m\xc1", None),  # nor is true
        (b"\x94\x00\x91\x05\xa1m\xc1", None),
        (b"\x94\x00\xc1", None),  # at the msgid itself
        (b"\x94\x00\xdb\xff\xff\xff\xff", None),
        (b"\x94\x01\x05\xc0\x80", None),  # a response is never answered
        (b"\x94\x01\x05\xc0\xc1", None),
        (b"\x93\x02\xa1m\xc1", None),  # nor is a notification
        (b"\x95\x00\x05", None),
    ],
)
def test_an_error_is_addressed_to_the_msgid_if_that_was_whole(data: bytes, expected: int | None) -> None:
    assert address(data) == expected


@given(st.tuples(msgids, methods), st.data())
def test_an_error_in_params_is_addressed_however_the_message_was_cut(
    head: tuple[int, str], data: st.DataObject
) -> None:
    broken = b"\x94\x00" + pack(head[0]) + pack(head[1]) + b"\x91\xc1"
    scanner, buffer = Scanner(LIMIT), bytearray()
    for cut in sorted(data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=5))):
        buffer += broken[len(buffer) : cut]
        assert scanner.scan(buffer) is None
    buffer += broken[len(buffer) :]
    with pytest.raises(WireError):
        scanner.scan(buffer)
    assert scanner.address(buffer) == head[0]


# --- answers


def test_answers_are_what_the_published_format_says() -> None:
    result = {"PublicKey": b"\x00", "KeyId": "k", "n": 1.5}
    assert msgpack.unpackb(encode_result(7, result)) == [1, 7, None, result]
    assert encode_result(7, {"b": b""})[-2:] == b"\xc4\x00"  # bytes are bin, not str
    assert msgpack.unpackb(encode_error(7, {"Code": "C"})) == [1, 7, {"Code": "C"}, None]
