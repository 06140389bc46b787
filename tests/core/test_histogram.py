"""Every duration is in one bucket, that of the least edge which it does not exceed."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.histogram import MAX_S, Histogram, are_durations, edges

DURATIONS = st.floats(0.0, MAX_S)
BOUNDS = st.lists(DURATIONS, max_size=20, unique=True).map(sorted)


@given(BOUNDS, st.lists(DURATIONS))
def test_each_bucket_has_what_took_at_most_its_bound(bounds: list[float], values: list[float]) -> None:
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    shown = histogram.cumulative()
    assert [bound for bound, _ in shown] == [*bounds, math.inf]
    for bound, count in shown:
        assert count == sum(value <= bound for value in values)
    assert shown[-1][1] == histogram.count == sum(histogram.counts) == len(values)
    assert math.isclose(histogram.sum, float(sum(map(Fraction, values))), rel_tol=1e-9)


@given(BOUNDS.filter(bool), st.data())
def test_what_took_as_long_as_an_edge_is_within_it(bounds: list[float], data: st.DataObject) -> None:
    edge = data.draw(st.sampled_from(bounds))
    histogram = Histogram(bounds)
    histogram.observe(edge)
    assert dict(histogram.cumulative())[edge] == 1
    assert all(not count for bound, count in histogram.cumulative() if bound < edge)


@given(BOUNDS, st.lists(DURATIONS))
def test_no_number_of_it_ever_falls(bounds: list[float], values: list[float]) -> None:
    histogram = Histogram(bounds)
    before = ([0] * (len(bounds) + 1), 0.0)
    for value in values:
        histogram.observe(value)
        now = ([count for _, count in histogram.cumulative()], histogram.sum)
        assert all(a <= b for a, b in zip(before[0], now[0], strict=True))
        assert before[1] <= now[1]
        before = now


def test_edges_are_the_numbers_that_are_promised() -> None:
    assert edges(0.000025, 10.0) == (
        0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
        1.0, 2.5, 5.0, 10.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -1e-9, MAX_S * 1.01, 1, True, "1.0", None, b"", (0.5,)], ids=repr
)
def test_nothing_but_a_duration_is_taken_from_outside(value: object) -> None:
    assert are_durations([0.0, MAX_S, 0.5], 3)
    assert not are_durations([0.5, value], 2)
    assert not are_durations(value, 1)  # no list at all


def test_as_many_durations_as_were_told_of() -> None:
    assert are_durations([], 0)
    assert not are_durations([0.5], 2)
    assert not are_durations([0.5, 0.5], 1)
