"""When a waiting client can have its pair: by hand, and against makers that work it off."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.forecast import Busy, Forecast, forecast, not_before
from kpcache.core.targets import SERVICE_VARIATION


def served_s(ahead: int, pair_s: float, before_s: float, makers: list[Busy]) -> float:
    told = forecast(ahead, pair_s, before_s, makers)
    assert told is not None
    return told.served_s


def test_by_hand() -> None:
    idle = [Busy(), Busy()]
    assert served_s(0, 1.0, 0.0, idle) == 1.0
    assert served_s(9, 1.0, 0.0, idle) == 5.0
    assert served_s(9, 1.0, 4.0, idle) == 7.0
    # One is at a long key for 3 s more: the other makes 3 pairs meanwhile, then both the last two.
    assert served_s(4, 1.0, 0.0, [Busy(3.0), Busy()]) == 4.0
    # The pair is on order already, the second of two with one maker, or the second beside the first.
    assert served_s(1, 1.0, 0.0, [Busy(9.0, 2)]) == 2.0
    assert served_s(1, 1.0, 0.0, [Busy(9.0, 1), Busy(9.0, 1)]) == 1.0
    assert forecast(0, 1.0, 0.0, []) is None


def test_what_keeps_all_pairs_from_coming_is_the_least_that_is_told() -> None:
    told = Forecast(served_s=2.0, at_best_s=1.0)
    assert not_before(told, 0.0) is told
    assert not_before(told, 0.5) == told
    assert not_before(told, 1.5) == Forecast(2.0, 1.5)
    assert not_before(told, 9.0) == Forecast(9.0, 9.0)
    assert not_before(None, 9.0) == Forecast(9.0, 9.0)
    assert not_before(None, 0.0) is None


@given(
    st.integers(0, 50), st.floats(0.001, 5), st.floats(0, 50),
    st.lists(st.builds(Busy, st.floats(0, 20), st.integers(0, 3)), min_size=1, max_size=8),
)  # fmt: skip
def test_more_before_one_is_never_sooner_and_luck_never_later(
    ahead: int, pair_s: float, before_s: float, makers: list[Busy]
) -> None:
    told, behind = forecast(ahead, pair_s, before_s, makers), forecast(ahead + 8, pair_s, before_s, makers)
    assert told is not None
    assert behind is not None
    assert 0 <= told.at_best_s <= told.served_s
    assert told.served_s >= pair_s * 0.999
    assert behind.served_s >= told.served_s - 1e-9 or sum(maker.pairs for maker in makers) > ahead


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("ahead", [0, 1, 10, 60])
def test_hardly_anybody_who_is_turned_away_would_have_been_served(count: int, ahead: int) -> None:
    """Makers work off the queue with times as uneven as RSA's; two standard deviations of luck are rare."""
    rng = random.Random(ahead * 10 + count)
    told = forecast(ahead, 1.0, 0.0, [Busy()] * count)
    assert told is not None
    ends, early = [], 0
    for _ in range(1000):
        free = [0.0] * count
        for _ in range(ahead + 1):
            maker = min(range(count), key=free.__getitem__)
            spread = SERVICE_VARIATION**0.5
            free[maker] += 1 - spread + rng.expovariate(1 / spread)
            end = free[maker]
        ends.append(end)
        early += end < told.at_best_s
    assert early <= 30
    assert sum(ends) / len(ends) == pytest.approx(told.served_s, rel=0.25)
