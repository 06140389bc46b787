"""What one user may take of a pool while others are about, and how new pairs pay off what was taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.shares import ABOUT_S, Shares

TARGET = 100


def greedy(shares: Shares, uid: int, now: float, most: int = 1000) -> int:
    """How many pairs this user gets, one after the other."""
    for number in range(most):
        shares.asked(uid, now)
        if not shares.may_take(uid, TARGET, now):
            return number
        shares.took(uid)
    return most


def test_a_lone_user_gets_the_whole_pool() -> None:
    assert greedy(Shares(20), 1, 0.0, TARGET) == TARGET


def test_while_another_one_is_about_a_share_is_kept_back_for_it() -> None:
    shares = Shares(20)
    shares.asked(2, 0.0)
    assert greedy(shares, 1, 1.0) == 80
    assert greedy(shares, 2, 1.0, 20) == 20
    assert not shares.may_take(1, TARGET, ABOUT_S - 1)


def test_an_hour_after_the_other_one_was_last_heard_of_nothing_is_kept_for_it() -> None:
    shares = Shares(20)
    shares.asked(2, 0.0)
    assert greedy(shares, 1, ABOUT_S - 1) == 80
    shares.asked(1, ABOUT_S + 1)
    assert shares.may_take(1, TARGET, ABOUT_S + 1)


def test_whoever_is_third_counts_as_another_one_too() -> None:
    shares = Shares(20)
    for uid, now in ((3, 0.0), (2, 5.0), (1, 10.0), (1, 20.0)):
        shares.asked(uid, now)
    assert not shares.is_alone(1, 5.0 + ABOUT_S - 1)
    assert shares.is_alone(1, 5.0 + ABOUT_S)
    assert not shares.is_alone(2, 20.0 + ABOUT_S - 1)


def test_nothing_kept_back_is_no_limit() -> None:
    shares = Shares(0)
    shares.asked(2, 0.0)
    assert greedy(shares, 1, 0.0, 500) == 500


def test_new_pairs_pay_off_debts_evenly_until_the_small_ones_are_paid() -> None:
    shares = Shares(20)
    for uid, pairs in ((1, 60), (2, 3), (3, 1)):
        for _ in range(pairs):
            shares.took(uid)
    shares.repaid(3)
    assert [shares.owes(uid) for uid in (1, 2, 3)] == [59, 2, 0]
    shares.repaid(10)
    assert [shares.owes(uid) for uid in (1, 2, 3)] == [pytest.approx(51), 0, 0]


def test_a_full_pool_is_owed_nothing() -> None:
    shares = Shares(20)
    for _ in range(50):
        shares.took(1)
    shares.settle(30)
    assert shares.owes(1) == pytest.approx(30)
    shares.settle(40)
    assert shares.owes(1) == pytest.approx(30)
    shares.settle(0)
    assert shares.owes(1) == 0


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=300),
    st.integers(1, 90),
)
def test_no_user_ever_owes_more_than_its_share_and_all_together_no_more_than_was_taken(
    steps: list[tuple[int, bool]], kept: int
) -> None:
    """``True`` is a request, ``False`` so many new pairs."""
    shares = Shares(kept)
    shares.asked(1, 0.0)
    shares.asked(2, 0.0)
    taken = made = 0
    for number, is_request in steps:
        if not is_request:
            shares.repaid(number)
            made += number
        else:
            shares.asked(number, 0.0)
            if shares.may_take(number, TARGET, 0.0):
                shares.took(number)
                taken += 1
        assert all(0 <= shares.owes(uid) <= TARGET * (1 - kept / 100) + 1e-6 for uid in range(1, 6))
        owed = sum(shares.owes(uid) for uid in range(1, 6))
        assert max(taken - made, 0) - 1e-6 <= owed <= taken + 1e-6


def test_under_steady_load_the_modest_never_meet_a_limit_and_the_greedy_gets_the_rest() -> None:
    """Each second 10 new pairs; four users ask for one, a fifth for a hundred."""
    shares = Shares(20)
    shares.asked(1, 0.0)
    available, got = TARGET, dict.fromkeys(range(5), 0)
    for second in range(600):
        for uid in [0] * 100 + [1, 2, 3, 4]:
            shares.asked(uid, second)
            if available and shares.may_take(uid, TARGET, second):
                available -= 1
                shares.took(uid)
                got[uid] += 1
        new = min(10, TARGET - available)
        available += new
        shares.repaid(new)
        shares.settle(TARGET - available)
    assert [got[uid] for uid in (1, 2, 3, 4)] == [600] * 4
    assert got[0] == pytest.approx(6 * 600, rel=0.05)
