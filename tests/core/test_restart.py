"""A worker that dies is started again: at once the first time, then later and later, and for ever."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.restart import (
    FAILED_AFTER,
    FIRST_DELAY_S,
    HEALTHY_LIFE_S,
    MAX_DELAY_S,
    Verdict,
    WorkSample,
    decide,
    is_hung,
)


def delays(lives: list[float]) -> list[float]:
    """The delay after each of these lives, in seconds."""
    verdict, result = Verdict(0.0, 0), []
    for lived_s in lives:
        verdict = decide(verdict.failures, lived_s)
        result.append(verdict.delay_s)
    return result


def test_the_first_death_is_answered_at_once_and_each_quick_one_after_it_later() -> None:
    assert delays([0.0] * 10) == [0, 0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_it_never_gives_up_and_never_waits_longer_than_the_most() -> None:
    assert delays([0.0] * 2000)[-1] == MAX_DELAY_S


def test_a_healthy_life_starts_a_new_count() -> None:
    assert delays([0, 0, 0, HEALTHY_LIFE_S, 0, 0]) == [0, 0.25, 0.5, 0, 0.25, 0.5]


@given(st.lists(st.floats(0, 2 * HEALTHY_LIFE_S), max_size=40))
def test_no_two_quick_deaths_in_a_row_are_both_answered_at_once(lives: list[float]) -> None:
    """Else a worker that can not start would be started in a busy loop."""
    for (_, before), (life, after) in pairwise(zip(lives, delays(lives), strict=True)):
        if life < HEALTHY_LIFE_S:
            assert after >= max(min(before * 2, MAX_DELAY_S), FIRST_DELAY_S)


def test_it_is_shown_as_failed_after_so_many_in_a_row() -> None:
    verdict, states = Verdict(0.0, 0), []
    for _ in range(FAILED_AFTER + 1):
        verdict = decide(verdict.failures, 0.0)
        states.append(verdict.state)
    assert states == ["backoff"] * (FAILED_AFTER - 1) + ["failed"] * 2
    assert decide(verdict.failures, HEALTHY_LIFE_S).state == "backoff"


@pytest.mark.parametrize(
    ("first", "last", "now", "hung"),
    [
        (("T", 2.0), ("T", 2.0), ("T", 2.0), True),  # stopped
        (("R", 1.0), ("T", 2.0), ("T", 2.0), True),  # stopped after some work
        (("S", 2.0), ("S", 2.0), ("S", 2.0), True),  # waits for what never comes
        (("R", 2.0), ("R", 2.0), ("R", 2.0), False),  # starved, but asks for a CPU
        (("R", 2.0), ("S", 2.0), ("R", 2.0), False),
        (("S", 2.0), ("S", 2.0), ("S", 2.1), False),  # works a little
        (("R", 2.0), ("R", 7.0), ("R", 12.0), False),  # a long key
        (("R", 2.0), ("R", 7.0), ("R", 12.1), True),  # no key is so long
    ],
)
def test_a_maker_is_hung_by_the_cpu_it_uses_not_by_the_clock(
    first: tuple[str, float], last: tuple[str, float], now: tuple[str, float], hung: bool
) -> None:
    one, two, three = (WorkSample((1, 4), *look) for look in (first, last, now))
    assert is_hung(one, two, three, limit_cpu_s=10.0) is hung


@pytest.mark.parametrize("progress", [(1, 3), (2, 4)], ids=["another pair", "another order"])
def test_a_maker_that_hands_over_pairs_is_not_hung(progress: tuple[int, int]) -> None:
    before = WorkSample((1, 4), "S", 2.0)
    assert not is_hung(before, before, WorkSample(progress, "S", 2.0), limit_cpu_s=10.0)
