"""A segment opens where it was sealed and nowhere else, and is judged before anything in it is read."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core import segment
from kpcache.core.segment import Header, Place, Row, SegmentError

SECRET = bytes(range(32))
PLACE = Place(b"b" * 16, b"m" * 16, 5)
HEADER = Header(b"n" * 16, PLACE, 7, 1, 2, 1, 9, b"o" * 12)
ROW = Row("RSA_2048", 5, b"private", b"public", b"digest", b"t" * 32, 4711.5)


def refusal(data: bytes) -> str:
    with pytest.raises(SegmentError) as caught:
        segment.unpack_header(data)
    return str(caught.value)


sixteen = st.binary(min_size=16, max_size=16)
headers = st.builds(
    Header,
    sixteen,
    st.builds(Place, sixteen, sixteen, st.integers(0, 2**64 - 1)),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=12, max_size=12),
)


@given(headers, st.binary(max_size=9))
def test_a_header_is_read_as_it_was_written(header: Header, behind: bytes) -> None:
    data = header.pack()
    assert len(data) == segment.HEADER_BYTES
    assert segment.unpack_header(data + behind) == header


@pytest.mark.parametrize("data", [b"", b"kpcseg", HEADER.pack()[:-1], b"x" + HEADER.pack()[1:]])
def test_bytes_of_no_format_that_is_known_are_no_segment(data: bytes) -> None:
    assert refusal(data) == "format"


def test_a_format_yet_to_come_is_not_read() -> None:
    assert refusal(b"kpcseg\x00\x02" + HEADER.pack()[8:]) == "format"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (HEADER, ""),
        (HEADER._replace(life=1), ""),
        (HEADER._replace(name=b"x" * 16), "format"),
        (HEADER._replace(place=PLACE._replace(boot=b"x" * 16)), "foreign_boot"),
        (HEADER._replace(place=PLACE._replace(machine=b"x" * 16)), "foreign_boot"),
        (HEADER._replace(place=PLACE._replace(generation=6)), "generation"),
        (HEADER._replace(life=8), "stale"),
        (HEADER._replace(life=9), "stale"),
        (HEADER._replace(life=0), "stale"),
    ],
)
def test_a_segment_is_opened_only_where_and_after_it_was_sealed(header: Header, reason: str) -> None:
    assert segment.why_not(header, segment.file_name(b"n" * 16), PLACE, range(1, 8)) == reason
    assert reason in {*segment.REASONS, ""}


def test_each_part_of_a_place_and_each_life_has_a_key_of_its_own() -> None:
    places = [
        PLACE,
        Place(b"x" * 16, b"m" * 16, 5),
        Place(b"b" * 16, b"x" * 16, 5),
        PLACE._replace(generation=6),
    ]
    keys = {
        segment.derive_key(secret, place, life)
        for secret in (SECRET, b"x" * 32)
        for place in places
        for life in (7, 8)
    }
    assert len(keys) == 16
    assert {len(key) for key in keys} == {32}
    assert segment.derive_key(SECRET, PLACE, 7) == segment.derive_key(SECRET, PLACE, 7)


def test_without_a_secret_there_is_no_key() -> None:
    with pytest.raises(ValueError, match="no secret"):
        segment.derive_key(b"", PLACE, 7)


def test_no_two_places_run_together_in_the_derivation() -> None:
    """Without the lengths, what moves from one part to the next would leave the key the same."""
    one, other = Place(b"b" * 15, b"b" + b"m" * 16, 5), Place(b"b" * 16, b"m" * 16, 5)
    assert segment.derive_key(SECRET, one, 7) != segment.derive_key(SECRET, other, 7)


def test_rows_are_read_as_they_were_written() -> None:
    assert segment.unpack_rows(segment.pack_rows([ROW]), HEADER) == [ROW]
    assert "private" not in repr(ROW)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": "RSA_1024"}, {"spec": 7}, {"generation": 6}, {"generation": "5"}, {"private": "text"},
        {"public": None}, {"digest": 1}, {"tags": b"t" * 31}, {"tags": b"t" * 16}, {"made_s": -1.0},
        {"made_s": 1}, {"made_s": None},
    ],
)  # fmt: skip
def test_a_row_out_of_order_condemns_the_segment(change: dict[str, Any]) -> None:
    with pytest.raises(SegmentError, match="damaged") as caught:
        segment.unpack_rows(segment.pack_rows([ROW._replace(**change)]), HEADER)
    assert "private" not in repr(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xc1", msgpack.packb({}), msgpack.packb([]), msgpack.packb([1])]
)
def test_what_is_no_list_of_as_many_rows_is_damaged(data: bytes) -> None:
    with pytest.raises(SegmentError, match="damaged"):
        segment.unpack_rows(data, HEADER)


def test_names_tell_segments_from_those_in_the_making_and_from_everything_else() -> None:
    name = bytes(range(16))
    assert segment.is_file_name(segment.file_name(name))
    assert segment.is_temporary_name(segment.temporary_name(name))
    for other in (
        "last-end.json",
        name.hex(),
        "X" * 32 + ".segment",
        segment.temporary_name(name),
        "../x.segment",
    ):
        assert not segment.is_file_name(other)
    assert not segment.is_temporary_name(segment.file_name(name))
