"""What the fuzzer holds the product against, and its packing: held against msgpack themselves."""

import random
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.fuzz.cases import Case, Maker
from bench.fuzz.inside import WrongError
from bench.fuzz.outside import _compare
from bench.fuzz.packing import Pairs, Raw, pack
from bench.fuzz.reference import Broken, More, Notification, Request, read
from bench.fuzz.seeds import PLANTED, SEEDS
from bench.fuzz.tally import Tally
from bench.fuzz.words import Words
from kpcache.core.connection import NEED_DATA, NOTIFICATION, Connection
from kpcache.core.connection import Broken as BrokenEvent
from kpcache.core.limits import Limits
from kpcache.core.wire import Request as RequestEvent

LIMIT = 65536
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=40,
)
inputs = st.dictionaries(
    st.text(max_size=40), scalars | st.dictionaries(st.text(max_size=9), scalars, max_size=20), max_size=20
)
messages = st.tuples(st.just(0), st.integers(0, 9), st.text(max_size=64), st.lists(inputs, max_size=2))
# What a client might send, then bytes changed in it: hostile input that begins like a message.
damaged = st.builds(
    lambda message, at, to: message[: at % len(message)] + to + message[at % len(message) + len(to) :],
    st.sampled_from(SEEDS) | messages.map(msgpack.packb),
    st.integers(0, 2**20),
    st.binary(max_size=3),
)


def outcomes(stream: bytes, limit: int = LIMIT) -> list[Any]:
    return list(read(stream, limit))


@given(values, st.randoms(use_true_random=False))
def test_what_is_packed_in_any_form_is_what_msgpack_reads(value: Any, rng: random.Random) -> None:
    assert msgpack.unpackb(pack(value, rng), strict_map_key=False) == value


def test_what_no_library_writes() -> None:
    rng = random.Random(1)
    assert pack(Raw(b"\xc1"), rng) == b"\xc1"
    assert {pack(Pairs([("a", 1), ("a", 1)]), rng)[0] for _ in range(50)} == {0x82, 0xDE, 0xDF}
    assert {pack("x", rng)[0] for _ in range(50)} == {0xA1, 0xD9, 0xDA, 0xDB}


@given(st.lists(messages, max_size=5), st.randoms(use_true_random=False))
def test_the_reference_reads_what_was_meant(sent: list[Any], rng: random.Random) -> None:
    *got, last = outcomes(b"".join(pack(message, rng) for message in sent))
    assert last == More(0)
    assert [(each.msgid, each.method) for each in got] == [(msgid, method) for _, msgid, method, _ in sent]
    assert [each.data for each in got] == [params[0] if params else {} for *_, params in sent]


def test_the_reference_knows_the_ends() -> None:
    assert outcomes(b"\x93\x02\xc0\xc0" + PLANTED[:-1]) == [Notification(), More(len(PLANTED) - 1)]
    assert outcomes(b"\x94\x00\x07\xa1m\x91\xc1" + PLANTED) == [Broken(7)]
    assert outcomes(b"\x94\x00\x07" + b"\xc1" + PLANTED) == [Broken(7)]
    assert outcomes(b"\x94\x00\xc1" + PLANTED) == [Broken(None)]
    assert outcomes(PLANTED, len(PLANTED) - 1) == [Broken(4242)]
    assert outcomes(b"\x94\x00\x07", 3) == [More(3)]
    assert outcomes(b"\x94\x00\x07\xa1", 4) == [Broken(7)]
    assert [type(each) for each in outcomes(PLANTED, len(PLANTED))] == [Request, More]


@given(st.lists(damaged | st.binary(max_size=40), max_size=4), st.integers(1, 60))
def test_the_product_and_the_reference_agree_however_bytes_come(parts: list[bytes], size: int) -> None:
    stream = b"".join(parts)
    link, got = Connection(Limits()), []
    for at in range(0, len(stream), size):
        link.feed(stream[at : at + size])
        while (event := link.next_event()) is not NEED_DATA:
            if isinstance(event, RequestEvent):
                got.append((event.msgid, event.method, repr(event.data), repr(event.options)))
                link.answer(event.msgid, {})
            elif event is not NOTIFICATION:
                break
    expected = outcomes(stream)
    assert got == [
        (each.msgid, each.method, repr(each.data), repr(each.options))
        for each in expected
        if isinstance(each, Request)
    ]
    last = link.next_event()
    if isinstance(expected[-1], Broken):
        assert isinstance(last, BrokenEvent)
        address = msgpack.unpackb(last.farewell)[1] if last.farewell else None
        assert address == expected[-1].address
    else:
        assert last is NEED_DATA


# --- answers over a socket

_ANSWER = msgpack.packb([1, 4242, None, {"PublicKey": b"public"}])
_REFUSAL = msgpack.packb([1, 4242, {"Code": "NotFoundException", "Message": ""}, None])
_INTERNAL = msgpack.packb([1, 4242, {"Code": "KMSInternalException", "Message": ""}, None])


def compared(stream: bytes, answered: bytes) -> Tally:
    tally = Tally()
    _compare(Case(1, [stream], Limits(), False, False, False), answered, tally)
    return tally


def test_answers_are_counted() -> None:
    assert compared(PLANTED, _ANSWER).answered == {"result": 1}
    assert compared(PLANTED, _REFUSAL).answered == {"NotFoundException": 1}
    assert len(compared(PLANTED, _ANSWER).public_keys) == 1
    ping = b"\x94\x00\x01\xackpcache.Ping\x90"
    broken = compared(PLANTED + ping + b"\xc1", msgpack.packb([1, 1, None, {}]))
    assert (broken.broken, broken.reached) == (1, 1)


@pytest.mark.parametrize(
    ("stream", "answered", "wrong"),
    [
        (PLANTED, b"", "not answered"),
        (PLANTED, _ANSWER * 2, "nobody asked for"),
        (b"\xc1" + PLANTED, _ANSWER, "nobody asked for"),
        (PLANTED[:-1], _ANSWER, "nobody asked for"),
        (PLANTED, _ANSWER[:-1], "part of an answer|what is no"),
        (PLANTED, b"\xc1", "no MessagePack"),
        (PLANTED, _INTERNAL, "internal error"),
        (PLANTED, msgpack.packb([1, 4242, {"Code": "Oops", "Message": ""}, None]), "internal error"),
        (PLANTED, msgpack.packb([1, 4242, None, None]), "that is none"),
        (b"\x94\x00\x01\xackpcache.Ping\x90\xc1", b"", "not answered"),
    ],
)
def test_wrong_answers_are_found(stream: bytes, answered: bytes, wrong: str) -> None:
    with pytest.raises(WrongError, match=wrong):
        compared(stream, answered)


def test_seeds_are_read_alike_and_some_are_sound() -> None:
    maker = Maker(1, Words((b"blob",)))
    assert maker.case(0).stream
    sound = [seed for seed in SEEDS if not isinstance(outcomes(seed)[0], Broken | More)]
    assert 10 < len(sound) < len(SEEDS) - 20
