"""A tag seen twice is always told, within the memory that there is."""

from kpcache.daemon.tags import TagBook


def tag(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_fresh_tags_are_fresh_once() -> None:
    book = TagBook()
    assert book.record([tag(1), tag(2)])
    assert book.record([tag(3), tag(4)])
    assert not book.record([tag(1), tag(2)])
    assert len(book) == 4


def test_one_shared_prime_is_enough() -> None:
    book = TagBook()
    assert book.record([tag(1), tag(2)])
    assert not book.record([tag(2), tag(3)])
    # What came with a duplicate is remembered as well: its twin may come next.
    assert not book.record([tag(3), tag(4)])


def test_two_equal_primes_in_one_pair_are_a_duplicate() -> None:
    assert not TagBook().record([tag(1), tag(1)])


def test_the_newer_half_is_always_known_and_what_is_forgotten_is_counted() -> None:
    book = TagBook(max_tags=100)
    for number in range(1000):
        assert book.record([tag(number)])
        assert len(book) <= 100
    assert book.forgotten == 1000 - len(book)
    for number in range(950, 1000):
        assert not book.record([tag(number)])
