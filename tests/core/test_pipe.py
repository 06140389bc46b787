"""Frames come back whole and in order however the bytes are cut, and anything else is refused."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.pipe import MAX_FRAME_BYTES, FrameReader, PipeError, encode

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=20)
    | st.binary(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
messages = st.lists(
    st.builds(lambda name, rest: [name, *rest], st.text(max_size=8), st.lists(values, max_size=4))
)


@given(messages, st.data())
def test_messages_survive_any_cutting(sent: list[list[Any]], data: st.DataObject) -> None:
    stream = b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader()
    got: list[list[Any]] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[start:end])
    assert got == sent


def test_a_message_is_given_as_soon_as_its_last_byte_is_there() -> None:
    frame = encode(["draw", 1])
    reader = FrameReader()
    assert [reader.feed(bytes([byte])) for byte in frame[:-1]] == [[]] * (len(frame) - 1)
    assert reader.feed(frame[-1:]) == [["draw", 1]]


def test_a_frame_that_was_read_does_not_stay_in_the_buffer_of_the_next() -> None:
    """Private keys travel in frames; what was only cut off in front would lie in memory that is in use."""
    first, second = encode(["batch", bytes(2000)]), encode(["batch", bytes(4000)])
    reader = FrameReader()
    assert len(reader.feed(first + second[:3000])) == 1
    assert reader._buffer.__alloc__() < 3100
    assert reader.feed(second[3000:]) == [["batch", bytes(4000)]]


def test_a_claim_above_the_limit_is_refused_before_its_body_is_awaited() -> None:
    limit = MAX_FRAME_BYTES - 4  # the limit counts the length bytes, too
    assert FrameReader().feed(limit.to_bytes(4, "big")) == []
    with pytest.raises(PipeError):
        FrameReader().feed((limit + 1).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgpack.packb(["made"]) + b"\x00",
        msgpack.packb({"made": 1}),
        msgpack.packb([]),
        msgpack.packb([1, "made"]),
        b"\x91\xa1\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 2000,
    ],
    ids=[
        "empty",
        "no msgpack",
        "two values",
        "map",
        "empty list",
        "unnamed",
        "bad UTF-8",
        "huge list",
        "deep",
    ],
)
def test_a_frame_that_is_no_named_message_is_refused(body: bytes) -> None:
    with pytest.raises(PipeError):
        FrameReader().feed(len(body).to_bytes(4, "big") + body)


@given(st.binary(max_size=200))
def test_random_bytes_give_messages_or_a_pipe_error(data: bytes) -> None:
    try:
        got = FrameReader().feed(data)
    except PipeError:
        return
    assert all(isinstance(message[0], str) for message in got)
