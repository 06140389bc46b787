"""A tag seen twice is always told, within the memory that there is."""

import pytest

from kpcache.core.specs import MAKEABLE, SPECS
from kpcache.daemon import tags as tags_module
from kpcache.daemon.tags import TagBook, TagBooks


def tag(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_fresh_tags_are_fresh_once() -> None:
    book = TagBook(4)
    assert book.record([tag(1), tag(2)])
    assert book.record([tag(3), tag(4)])
    assert not book.record([tag(1), tag(2)])
    assert len(book) == 4


def test_one_shared_prime_is_enough() -> None:
    book = TagBook(4)
    assert book.record([tag(1), tag(2)])
    assert not book.record([tag(2), tag(3)])
    # What came with a duplicate is remembered as well: its twin may come next.
    assert not book.record([tag(3), tag(4)])


def test_two_equal_primes_in_one_pair_are_a_duplicate() -> None:
    assert not TagBook(4).record([tag(1), tag(1)])


def test_the_newest_are_always_known_and_what_is_forgotten_is_counted() -> None:
    book = TagBook(4, generation_tags=25)
    for number in range(1000):
        assert book.record([tag(number)])
        assert min(number + 1, 75) <= len(book) <= 100
        assert book.forgotten == number + 1 - len(book)
    for number in range(925, 1000):
        assert not book.record([tag(number)])


def test_little_is_forgotten_or_moved_in_one_go() -> None:
    """A set of a million takes the loop 10 to 20 ms to grow or to drop."""
    book = TagBook(2)
    before, steps = 0, set()
    for number in range(50_000):
        book.record([tag(number)])
        steps.add(book.forgotten - before)
        before = book.forgotten
    assert steps == {0, 16_384}


def test_quick_pairs_never_displace_the_primes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any client can have thousands of quick pairs made in a second."""
    monkeypatch.setattr(tags_module, "RSA_GENERATIONS", 2)
    monkeypatch.setattr(tags_module, "OTHER_GENERATIONS", 2)
    books = TagBooks()
    books.record("RSA_2048", [tag(1), tag(2)])
    books.record("RSA_4096", [tag(3), tag(4)])
    for number in range(100, 100 + 3 * tags_module.GENERATION_TAGS):
        assert books.record("ECC_NIST_P256", [tag(number)])
    assert not books.record("RSA_3072", [tag(4), tag(5)])
    assert not books.record("RSA_2048", [tag(1), tag(6)])
    assert books.status()["rsa"] == {"known": 6, "forgotten": 0}
    assert books.status()["other"]["forgotten"] == 16_384


@pytest.mark.parametrize("spec", MAKEABLE)
def test_each_spec_is_compared_with_its_kind(spec: str) -> None:
    books = TagBooks()
    assert books.record(spec, [tag(1)])
    assert not books.record(spec, [tag(1)])
    kind = "rsa" if SPECS[spec].family == "rsa" else "other"
    assert {name: book["known"] for name, book in books.status().items() if book["known"]} == {kind: 1}
