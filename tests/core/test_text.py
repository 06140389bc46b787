"""What is shown to people is one line, cannot act on a terminal, and is not endless."""

from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.text import printable


@given(st.text(max_size=300))
def test_what_is_printable_stays_and_the_rest_cannot_act(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_what_acts_is_escaped_and_what_is_harmless_is_kept() -> None:
    assert printable("schön, 5 µs") == "schön, 5 µs"
    assert printable("a\nb\x1b[2J\u202e") == "a\\nb\\x1b[2J\\u202e"


def test_it_is_cut_with_a_sign_that_it_was() -> None:
    assert printable("x" * 300) == "x" * 300
    assert printable("x" * 301) == "x" * 299 + "…"
    assert printable("x" * 1000, 7) == "xxxxxx…"
