"""A pair makes legal moves only, and the books add up after every one of them."""

import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kpcache.core.pool import IN_HAND, MOVES, REASONS, IllegalMoveError, PoolBook, State

# The life of a pair in its order; sealed stands aside.
LIFE = [
    State.ORDERED, State.MADE, State.CHECKED, State.RECORDED, State.HELD, State.DRAWN, State.READY,
    State.TAKEN, State.ISSUED,
]  # fmt: skip
FORWARD = list(itertools.pairwise(LIFE))
PLACES = [state for state in State if state not in (State.ORDERED, State.SEALED, State.DISCARDED)]
REASON = "worker_lost"


def book_with_pair_in(state: State, count: int = 1) -> PoolBook:
    """A book whose ``count`` pairs have come to ``state`` by legal moves."""
    book = PoolBook()
    book.make(count)
    for source, target in FORWARD[1:]:
        if source is state:
            break
        book.move(source, target, count)
    return book


def total(book: PoolBook) -> int:
    return book.issued + book.discarded.total() + book.held + book.ready + book.in_hand


def snapshot(book: PoolBook) -> tuple[object, ...]:
    return tuple(book._counts), book.generated, book.restored, dict(book.discarded)


@pytest.mark.parametrize(("source", "target"), FORWARD[1:], ids=lambda state: state.name)
def test_every_legal_move_is_made(source: State, target: State) -> None:
    book = book_with_pair_in(source)
    book.move(source, target)
    assert book.generated == total(book) == 1
    with pytest.raises(IllegalMoveError):
        book.move(source, target)  # it has left


@pytest.mark.parametrize(
    ("source", "target"),
    [move for move in itertools.product(PLACES, State) if move not in FORWARD],
    ids=lambda state: state.name,
)
def test_every_other_move_is_refused_and_changes_nothing(source: State, target: State) -> None:
    """Also into "discarded", which needs a reason, and so has a method of its own."""
    book = book_with_pair_in(source)
    before = snapshot(book)
    with pytest.raises(IllegalMoveError):
        book.move(source, target)
    assert snapshot(book) == before


def test_nothing_taken_out_ever_comes_back() -> None:
    """By way of any sequence of moves in the table: what has left the ready set can not reach it again."""
    for start in (State.TAKEN, State.ISSUED, State.DISCARDED):
        reached, todo = set[State](), [start]
        while todo:
            for target in MOVES[todo.pop()] - reached:
                reached.add(target)
                todo.append(target)
        assert reached <= {State.ISSUED, State.DISCARDED}


def test_issued_and_discarded_are_ends_and_all_else_can_be_burnt() -> None:
    assert MOVES[State.ISSUED] == MOVES[State.DISCARDED] == frozenset()
    for state in set(State) - {State.ORDERED, State.ISSUED, State.DISCARDED}:
        assert State.DISCARDED in MOVES[state]


@pytest.mark.parametrize("state", PLACES, ids=lambda state: state.name)
def test_a_pair_is_burnt_where_it_is_with_a_known_reason(state: State) -> None:
    book = book_with_pair_in(state)
    before = snapshot(book)
    with pytest.raises(IllegalMoveError):
        book.discard(state, "a reason of my own")
    if state is State.ISSUED:
        with pytest.raises(IllegalMoveError):
            book.discard(state, REASON)
        assert snapshot(book) == before
    else:
        book.discard(state, REASON)
        assert book.discarded == {REASON: 1}
        assert book.generated == total(book) == 1


def test_more_than_there_are_neither_move_nor_burn() -> None:
    book = book_with_pair_in(State.HELD, 3)
    with pytest.raises(IllegalMoveError):
        book.move(State.HELD, State.DRAWN, 4)
    with pytest.raises(IllegalMoveError):
        book.discard(State.HELD, REASON, 4)
    book.move(State.HELD, State.DRAWN, 2)
    book.discard(State.HELD, REASON, 1)
    assert (book.held, book.in_hand, book.discarded.total()) == (0, 2, 1)


@pytest.mark.parametrize("state", PLACES, ids=lambda state: state.name)
def test_available_is_what_can_still_reach_a_client(state: State) -> None:
    expected = state in (State.CHECKED, State.RECORDED, State.HELD, State.DRAWN, State.READY)
    assert book_with_pair_in(state).available == expected
    assert book_with_pair_in(state).in_hand == (state in IN_HAND)


class Books(RuleBasedStateMachine):
    """Any sequence of moves, legal or not."""

    def __init__(self) -> None:
        super().__init__()
        self.book = PoolBook()
        self.largest_end = (0, 0)

    @rule(count=st.integers(1, 5))
    def make(self, count: int) -> None:
        self.book.make(count)

    @rule(move=st.sampled_from(FORWARD[1:]), count=st.integers(1, 3))
    def step(self, move: tuple[State, State], count: int) -> None:
        source, target = move
        if self.book._counts[source] >= count:
            self.book.move(source, target, count)
        else:
            with pytest.raises(IllegalMoveError):
                self.book.move(source, target, count)

    @precondition(lambda self: self.book.generated)
    @rule(
        state=st.sampled_from(PLACES[:-1]), reason=st.sampled_from(sorted(REASONS)), count=st.integers(1, 3)
    )
    def burn(self, state: State, reason: str, count: int) -> None:
        if state is not State.ISSUED and self.book._counts[state] >= count:
            self.book.discard(state, reason, count)

    @rule(move=st.sampled_from([move for move in itertools.product(State, State) if move not in FORWARD]))
    def try_what_is_illegal(self, move: tuple[State, State]) -> None:
        with pytest.raises(IllegalMoveError):
            self.book.move(*move)

    @invariant()
    def the_books_add_up(self) -> None:
        book = self.book
        assert book.generated + book.restored == total(book)
        assert min(book._counts) >= 0

    @invariant()
    def what_has_ended_stays_ended(self) -> None:
        ends = (self.book.issued, self.book.discarded.total())
        assert ends[0] >= self.largest_end[0]
        assert ends[1] >= self.largest_end[1]
        self.largest_end = ends


TestBooks = Books.TestCase
