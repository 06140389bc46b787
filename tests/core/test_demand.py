"""The demand seen: its rate of late, and its evenness over hours, from counts alone."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.demand import INTERVAL_S, LASTING_TAU_S, RATE_TAU_S, Demand


def fed(counts: list[int], every_s: float = INTERVAL_S) -> tuple[Demand, float]:
    """One count in the middle of each interval; the time of its end."""
    demand = Demand(0.0)
    for number, count in enumerate(counts):
        demand.note((number + 0.5) * every_s, count)
    return demand, len(counts) * every_s


def test_the_rate_rises_with_requests_and_is_forgotten() -> None:
    demand = Demand(0.0)
    assert demand.rate(5.0) == 0
    for second in range(1, 301):
        demand.note(float(second), 8)
    assert demand.rate(300.0) == pytest.approx(8, rel=0.05)
    assert demand.rate(300.0 + RATE_TAU_S) == pytest.approx(demand.rate(300.0) / math.e)
    assert demand.rate(300.0 + 60 * RATE_TAU_S) < 1e-6


def test_even_arrivals_have_the_mean_and_no_burstiness() -> None:
    demand, end = fed([40] * 500)
    lasting = demand.lasting(end)
    assert lasting.rate == pytest.approx(4.0)
    assert lasting.dispersion == 1.0


def test_bursts_of_a_hundred_are_about_a_hundred_times_as_uneven() -> None:
    """One burst in ten intervals: mean 10, mean of squares 1000, so variance over mean is 90."""
    demand, end = fed([100 if number % 10 == 0 else 0 for number in range(3000)])
    lasting = demand.lasting(end)
    assert lasting.rate == pytest.approx(1.0, rel=0.02)
    assert lasting.dispersion == pytest.approx(90, rel=0.02)


def test_independent_arrivals_are_about_one() -> None:
    rng = random.Random(1)
    counts = [sum(rng.random() < 0.01 for _ in range(500)) for _ in range(2000)]
    demand, end = fed(counts)
    assert demand.lasting(end).dispersion == pytest.approx(1.0, abs=0.25)


def test_a_first_burst_does_not_last() -> None:
    """Of 300 at once and nothing before, the mean over five minutes."""
    demand = Demand(0.0)
    demand.note(1.0, 300)
    assert (demand.lasting(1.0).rate, demand.lasting(1.0).dispersion) == (0.0, 1.0)
    assert demand.lasting(11.0).rate == pytest.approx(1.0)
    assert demand.rate(11.0) > 5


def test_what_was_long_ago_is_forgotten_whole() -> None:
    """Halved again and again, sums end as numbers that a float cannot halve."""
    demand = Demand(0.0)
    demand.note(1.0, 300)
    for step in range(1, 40 * 8640):
        demand.note(step * INTERVAL_S, 0)
    assert demand.state(40 * 86400.0)[1:] == (0.0, 0.0)
    assert demand.lasting(40 * 86400.0).rate == 0.0
    for step in range(1, 400):
        state = (5e-324 * step, 5e-324, 5e-324)
        again = Demand(0.0)
        again.resume(state, 0.0)
        assert again.lasting(INTERVAL_S).rate == 0.0


@given(st.lists(st.integers(0, 50), max_size=40), st.lists(st.integers(1, 400), min_size=1, max_size=5))
def test_how_often_it_is_told_makes_no_difference(counts: list[int], gaps: list[int]) -> None:
    """Intervals in which nothing was told are intervals in which nothing came."""
    often, seldom = Demand(0.0), Demand(0.0)
    now = 0.0
    for number, count in enumerate(counts):
        for _ in range(gaps[number % len(gaps)]):
            now += INTERVAL_S / 7
            often.note(now, 0)
        often.note(now, count)
        seldom.note(now, count)
    assert often.lasting(now).rate == pytest.approx(seldom.lasting(now).rate)
    assert often.lasting(now).dispersion == pytest.approx(seldom.lasting(now).dispersion)
    assert often.rate(now) == pytest.approx(seldom.rate(now))


def test_it_goes_on_where_an_earlier_life_ended_less_what_was_forgotten_meanwhile() -> None:
    demand, end = fed([40, 0] * 300)
    state = demand.state(end)
    again = Demand(7.0)
    again.resume(state, away_s=0.0)
    assert again.lasting(7.0) == demand.lasting(end)
    later = Demand(7.0)
    later.resume(state, away_s=LASTING_TAU_S)
    assert later.state(7.0) == pytest.approx([part / math.e for part in state])
    clock_set_back = Demand(7.0)
    clock_set_back.resume(state, away_s=-1e9)
    assert clock_set_back.state(7.0) == state


@pytest.mark.parametrize(
    "state",
    [(-1.0, 0, 0), (1e9, 1, 1), (10.0, 5, 4), (10.0, -1, 5), (10.0, 100, 999), (10.0, 1e18, 1e30),
     (float("nan"), 1, 1), (1, float("inf"), float("inf"))],
)  # fmt: skip
def test_sums_that_no_counts_have_are_refused(state: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="no sums"):
        Demand(0.0).resume(state, 0.0)
