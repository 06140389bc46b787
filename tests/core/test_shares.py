"""Who may take the last of a pool while others are about, and how new pairs pay off what was taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.shares import ABOUT_S, Shares

TARGET = 100


class PoolOf:
    """A pool of some target, full at first; users take from it by the rule."""

    def __init__(self, kept: float = 20, target: int = TARGET) -> None:
        self.shares = Shares(kept)
        self.target = self.available = target

    def take(self, uid: int, now: float = 0.0) -> bool:
        self.shares.asked(uid, now)
        may = self.available > self.shares.kept(self.target) or self.shares.may_take_the_last(uid, now)
        if may and self.available:
            self.available -= 1
            self.shares.took(uid)
            return True
        return False

    def take_all(self, uid: int, now: float = 0.0) -> int:
        count = 0
        while self.take(uid, now):
            count += 1
        return count

    def make(self, count: int) -> None:
        new = min(count, self.target - self.available)
        self.available += new
        self.shares.repaid(new)
        self.shares.settle(self.target - self.available)


def test_a_lone_user_gets_the_whole_pool() -> None:
    assert PoolOf().take_all(1) == TARGET


def test_while_another_one_is_about_a_share_is_left_for_it_whoever_took_the_rest() -> None:
    pool = PoolOf()
    pool.shares.asked(2, 0.0)
    assert pool.take_all(1) == 80
    assert [pool.take(2) for _ in range(20)] == [True] * 20
    pool = PoolOf()
    for uid in (2, 3, 4):
        assert pool.take(uid)
    assert pool.take_all(1) == 77
    assert pool.available == 20


def test_users_who_take_alike_take_the_last_alike() -> None:
    pool = PoolOf()
    pool.shares.asked(2, 0.0)
    got = {1: 0, 2: 0}
    for _ in range(TARGET):
        for uid in got:
            got[uid] += pool.take(uid)
    assert (got, pool.available) == ({1: 50, 2: 50}, 0)


def test_an_hour_after_the_other_one_was_last_heard_of_nothing_is_kept_for_it() -> None:
    pool = PoolOf()
    pool.shares.asked(2, 0.0)
    assert pool.take_all(1, ABOUT_S - 1) == 80
    assert pool.take_all(1, ABOUT_S) == 20


def test_whoever_is_third_counts_as_another_one_too() -> None:
    pool = PoolOf()
    for uid, now in ((3, 0.0), (2, 5.0)):
        pool.shares.asked(uid, now)
    assert pool.take_all(1, 10.0) == 80
    assert not pool.take(1, 5.0 + ABOUT_S - 1)
    assert pool.take(1, 5.0 + ABOUT_S)
    pool.shares.asked(2, 7000.0)
    assert not pool.take(1, 7000.0)


def test_nothing_kept_back_is_no_limit() -> None:
    pool = PoolOf(0)
    pool.shares.asked(2, 0.0)
    assert pool.take_all(1) == TARGET


@pytest.mark.parametrize("target", [1, 2, 4])
def test_a_pool_of_few_pairs_is_never_locked(target: int) -> None:
    pool = PoolOf(50, target)
    for turn in range(50):
        took = pool.take(1 + turn % 2, turn)
        assert took
        pool.make(1)


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


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=400), st.integers(1, 90))
def test_the_kept_share_goes_to_nobody_who_owes_much_more_than_the_average(
    steps: list[tuple[int, bool]], kept: int
) -> None:
    """``True`` is a request, ``False`` so many new pairs."""
    pool = PoolOf(kept)
    pool.shares.asked(1, 0.0)
    pool.shares.asked(2, 0.0)
    for number, is_request in steps:
        if not is_request:
            pool.make(number)
            continue
        before = [pool.shares.owes(uid) for uid in range(1, 6)]
        was_left = pool.available
        if pool.take(number) and was_left <= pool.shares.kept(TARGET):
            users = max(sum(debt > 0 for debt in before), 2)
            assert before[number - 1] <= 1.25 * sum(before) / users + 2 + 1e-6
        owed = sum(pool.shares.owes(uid) for uid in range(1, 6))
        assert owed == pytest.approx(TARGET - pool.available, abs=1e-6)


def test_under_steady_load_the_modest_always_find_pairs_and_the_greedy_gets_the_rest() -> None:
    """Each second 10 new pairs; four users ask for one, a fifth for a hundred."""
    pool = PoolOf()
    pool.shares.asked(1, 0.0)
    got = dict.fromkeys(range(5), 0)
    for second in range(600):
        for uid in [0] * 100 + [1, 2, 3, 4]:
            got[uid] += pool.take(uid, second)
        pool.make(10)
    assert [got[uid] for uid in (1, 2, 3, 4)] == [600] * 4
    assert got[0] == pytest.approx(6 * 600, rel=0.05)


def test_very_many_different_debts_are_paid_off_in_few_passes() -> None:
    shares = Shares(20)
    for uid in range(1000):
        for _ in range(uid % 97 + 1):
            shares.took(uid)
    before = sum(shares.owes(uid) for uid in range(1000))
    shares.repaid(before / 2)
    assert sum(shares.owes(uid) for uid in range(1000)) == pytest.approx(before / 2)
    shares.settle(0)
    assert all(shares.owes(uid) == 0 for uid in range(1000))
