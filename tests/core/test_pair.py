"""A pair whose bytes changed anywhere after its checks is seen, and no pair shows its bytes."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.pair import Pair, handover_digest

parts = st.tuples(
    st.sampled_from(["RSA_2048", "RSA_204", ""]), st.integers(0, 2**64 - 1), st.binary(), st.binary()
)


def closed(spec: str, generation: int, private: bytes, public: bytes) -> Pair:
    return Pair(spec, generation, private, public, handover_digest(spec, generation, private, public))


@given(parts, parts)
def test_digests_are_equal_for_equal_pairs_only(
    one: tuple[str, int, bytes, bytes], other: tuple[str, int, bytes, bytes]
) -> None:
    assert (handover_digest(*one) == handover_digest(*other)) == (one == other)


def test_a_byte_cannot_move_from_one_part_to_the_next() -> None:
    assert handover_digest("S", 0, b"ab", b"c") != handover_digest("S", 0, b"a", b"bc")
    assert handover_digest("S", 0, b"", b"") != handover_digest("S\0", 0, b"", b"")


@pytest.mark.parametrize("field", ["private", "public", "digest"])
def test_every_flipped_bit_is_seen(field: str) -> None:
    pair = closed("ECC_NIST_P256", 3, bytes(range(40)), bytes(range(30)))
    assert pair.is_intact()
    value: bytes = getattr(pair, field)
    for bit in range(len(value) * 8):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        change: dict[str, Any] = {field: bytes(flipped)}
        assert not dataclasses.replace(pair, **change).is_intact()


def test_another_spec_or_generation_is_seen() -> None:
    pair = closed("ECC_NIST_P256", 3, b"private", b"public")
    assert not dataclasses.replace(pair, spec="ECC_NIST_P384").is_intact()
    assert not dataclasses.replace(pair, generation=4).is_intact()


def test_no_representation_shows_the_bytes() -> None:
    pair = closed("ECC_NIST_P256", 0, b"PRIVATE", b"PUBLIC")
    for text in (repr(pair), str(pair), f"{[pair]}"):
        assert "PRIVATE" not in text
        assert "PUBLIC" not in text
        assert pair.digest.hex() not in text
