"""A connection gives each request once, in order, and nothing that stands behind a broken message."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.connection import NEED_DATA, NOTIFICATION, PAUSED, Broken, Connection
from kpcache.core.limits import Limits
from kpcache.core.wire import Request
from kpcache.errors import NotFoundException

PLANTED = msgpack.packb([0, 99, "GenerateDataKeyPair", [{"KeyId": "planted", "KeyPairSpec": "RSA_2048"}]])


def request(msgid: int, *params: object) -> bytes:
    return msgpack.packb([0, msgid, "m", list(params)])  # type: ignore[no-any-return]


def connection(**limits: Any) -> Connection:
    return Connection(Limits(**limits))


def drain(link: Connection) -> list[Any]:
    """All events up to the first that is no message."""
    events: list[Any] = [link.next_event()]
    while isinstance(events[-1], Request) or events[-1] is NOTIFICATION:
        events.append(link.next_event())
    return events


def broken_event(link: Connection) -> Broken:
    event = link.next_event()
    assert isinstance(event, Broken)
    return event


def farewell(event: Broken) -> Any:
    return msgpack.unpackb(event.farewell) if event.farewell else None


@given(st.lists(st.integers(0, 200), max_size=12, unique=True), st.data())
def test_requests_come_out_once_and_in_order_however_the_bytes_are_cut(
    msgids: list[int], data: st.DataObject
) -> None:
    stream = b"".join(request(msgid, {"k": "v" * msgid}) for msgid in msgids)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    link, got = connection(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        link.feed(stream[start:end])
        *events, last = drain(link)
        assert last is NEED_DATA
        got += [event.msgid for event in events]
    assert got == msgids
    assert link.in_flight == link.messages == len(msgids)
    assert not link.is_mid_message


def test_it_is_mid_message_from_the_first_byte_to_the_last() -> None:
    link = connection()
    for byte in request(1)[:-1]:
        link.feed(bytes([byte]))
        assert link.next_event() is NEED_DATA
        assert link.is_mid_message
    link.feed(request(1)[-1:])
    assert isinstance(link.next_event(), Request)
    assert not link.is_mid_message


def test_each_notification_is_an_event_and_does_nothing() -> None:
    """One that was swallowed would cost its reader time that nobody counts: a read holds 16,384 of them."""
    link = connection()
    link.feed(msgpack.packb([2, "GenerateDataKeyPair", [{}]]) * 2 + b"\x93\x02\xc0\xc0" + request(1))
    assert [link.next_event() for _ in range(3)] == [NOTIFICATION] * 3
    assert (link.messages, link.in_flight) == (3, 0)
    event = link.next_event()
    assert isinstance(event, Request)
    assert event.msgid == 1


def test_whole_messages_that_wait_to_be_read_are_no_message_begun() -> None:
    """Nor is a part of one behind them: nobody has looked at it, for no fault of the client."""
    link = connection(max_in_flight_per_connection=1)
    link.feed(request(1) + request(2) + request(3)[:-1])
    assert [getattr(event, "msgid", event) for event in drain(link)] == [1, PAUSED]
    assert not link.is_mid_message
    link.answer(1, {})
    assert [getattr(event, "msgid", event) for event in drain(link)] == [2, PAUSED]
    assert not link.is_mid_message
    link.answer(2, {})
    assert link.next_event() is NEED_DATA
    assert link.is_mid_message


# --- in flight


def test_at_the_limit_nothing_more_is_read_until_one_is_answered() -> None:
    link = connection(max_in_flight_per_connection=2)
    link.feed(b"".join(map(request, range(4))))
    assert [getattr(event, "msgid", event) for event in drain(link)] == [0, 1, PAUSED]
    assert link.next_event() is PAUSED
    link.answer(1, {})
    assert [getattr(event, "msgid", event) for event in drain(link)] == [2, PAUSED]
    link.refuse(0, NotFoundException("no"))
    link.answer(2, {})
    assert [getattr(event, "msgid", event) for event in drain(link)] == [3, NEED_DATA]


def test_a_msgid_in_flight_used_again_ends_the_connection_without_a_word() -> None:
    """A farewell with that msgid would be taken for the answer to the first request."""
    link = connection()
    link.feed(request(5) + request(5) + PLANTED)
    assert isinstance(link.next_event(), Request)
    assert broken_event(link).farewell == b""


def test_a_broken_message_does_not_answer_for_a_request_in_flight() -> None:
    link = connection()
    link.feed(request(5) + b"\x94\x00\x05\xa1m\xc1")
    assert isinstance(link.next_event(), Request)
    assert broken_event(link).farewell == b""


def test_a_msgid_may_be_used_again_after_its_answer() -> None:
    link = connection()
    for _ in range(2):
        link.feed(request(5))
        assert isinstance(link.next_event(), Request)
        link.answer(5, {})
        link.feed(request(5))
        assert isinstance(link.next_event(), Request)
        link.refuse(5, NotFoundException())
    assert link.in_flight == 0


def test_an_answer_nobody_asked_for_is_a_defect_of_ours() -> None:
    link = connection()
    with pytest.raises(KeyError):
        link.answer(1, {})
    with pytest.raises(KeyError):
        link.refuse(1, NotFoundException())


def test_answers_bear_the_msgid_and_the_error() -> None:
    link = connection()
    link.feed(request(1) + request(2))
    drain(link)
    assert msgpack.unpackb(link.answer(1, {"a": b"b"})) == [1, 1, None, {"a": b"b"}]
    error = NotFoundException("no such key")
    assert msgpack.unpackb(link.refuse(2, error)) == [1, 2, error.to_wire(), None]


# --- the end

BROKEN = {
    "unused byte": (b"\x94\x00\x07\xa1m\x91\xc1", 7),
    "extension type": (b"\x94\x00\x07\xa1m\x91\xd4\x01\x01", 7),
    "timestamp": (b"\x94\x00\x07\xa1m\x91" + msgpack.packb(msgpack.Timestamp(1)), 7),
    "duplicate key": (b"\x94\x00\x07\xa1m\x91\x82\xa1a\x01\xa1a\x02", 7),
    "key that is no string": (b"\x94\x00\x07\xa1m\x91\x81\x01\x02", 7),
    "bad UTF-8 in params": (b"\x94\x00\x07\xa1m\x91\xa1\xff", 7),
    "bad UTF-8 in the method": (b"\x94\x00\x07\xa1\xff\x90", 7),
    "too deep": (b"\x94\x00\x07\xa1m" + b"\x91" * 6, 7),
    "too many entries": (b"\x94\x00\x07\xa1m\xdc\x10\x00", 7),
    "too large by one item": (b"\x94\x00\x07\xa1m\x91\xc6\x7f\xff\xff\xff", 7),
    "too large by its sum": (b"\x94\x00\x07\xa1m\x98" + (b"\xc5\x30\x00" + b"x" * 0x3000) * 6, 7),
    "wrong type of method": (b"\x94\x00\x07\xc0\x90", 7),
    "params no array": (b"\x94\x00\x07\xa1m\x80", 7),
    "msgid too large": (b"\x94\x00\xcf" + b"\xff" * 8 + b"\xa1m\x90", None),
    "response": (b"\x94\x01\x07\xc0\x80", None),
    "broken notification": (b"\x93\x02\xa1m\x91\xc1", None),
    "wrong number of items": (b"\x95\x00\x07\xa1m\x90\x90", None),
    "no array": (b"\xc4\x40", None),
    "another protocol": (b"GET / HTTP/1.1\r\n\r\n", None),
}


@pytest.mark.parametrize(("bad", "msgid"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("cut", [None, 1, 7])
def test_a_request_planted_behind_a_broken_message_never_comes_out(
    bad: bytes, msgid: int | None, cut: int | None
) -> None:
    """Nor one planted inside it. The bytes may come at once or in pieces."""
    stream = request(1) + bad + PLANTED * 3
    link = connection()
    events: list[Any] = []
    pieces = [stream] if cut is None else [stream[at : at + cut] for at in range(0, len(stream), cut)]
    for piece in pieces:
        link.feed(piece)
        events += [event for event in drain(link) if event is not NEED_DATA]
    first, *rest = events
    assert isinstance(first, Request)
    assert first.msgid == 1
    assert rest
    assert all(event is rest[0] for event in rest)
    assert isinstance(rest[0], Broken)
    answer = farewell(rest[0])
    if msgid is None:
        assert answer is None
    else:
        assert answer[:2] == [1, msgid]
        assert answer[2]["Code"] == "ValidationException"
        assert answer[2]["Message"]


def test_every_broken_message_is_refused_only_once_and_keeps_no_bytes() -> None:
    link = connection()
    link.feed(b"\x94\x00\x07\xa1m\x91\xc1" + b"x" * 1000)
    event = link.next_event()
    link.feed(PLANTED)
    assert link.next_event() is event
    assert not link.is_mid_message


@given(st.binary(max_size=120), st.integers(1, 40))
def test_after_any_garbage_the_events_end_in_data_wanted_or_broken_for_good(data: bytes, size: int) -> None:
    link = connection(max_message_bytes=64)
    for at in range(0, len(data), size):
        link.feed(data[at : at + size])
        last = drain(link)[-1]
        assert last is NEED_DATA or isinstance(last, Broken)
        if isinstance(last, Broken):
            link.feed(PLANTED)
            assert link.next_event() is last


def test_buffered_bytes_are_bounded_by_one_message_and_one_read() -> None:
    link = connection(max_message_bytes=100)
    link.feed(b"\x94\x00\x07\xa1m\x91\xc4\x50" + b"x" * 0x4F)
    assert link.next_event() is NEED_DATA
    link.feed(b"x")
    assert isinstance(link.next_event(), Request)
    link.feed(b"\x94\x00\x08\xa1m\x91\xc4\x60")
    assert isinstance(link.next_event(), Broken)
