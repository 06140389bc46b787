"""Token buckets of [[limits]]: the rate and the burst that a user may take, by user and spec."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core import buckets as buckets_module
from kpcache.core.buckets import Buckets, Rule

RSA, EC = "RSA_2048", "ECC_NIST_P256"


def burst(buckets: Buckets, uid: int, spec: str, now: float, most: int = 100) -> int:
    """How many are let through at once."""
    for number in range(most):
        if buckets.take(uid, spec, now):
            return number
    return most


def test_a_burst_then_the_rate() -> None:
    buckets = Buckets([Rule(None, None, 2.0, 5)])
    assert burst(buckets, 1, RSA, 10.0) == 5
    assert buckets.take(1, RSA, 10.0) == pytest.approx(0.5)
    assert buckets.take(1, RSA, 10.4) == pytest.approx(0.1)
    assert buckets.take(1, RSA, 10.5) == 0
    assert burst(buckets, 1, RSA, 1e6) == 5


def test_users_and_specs_are_counted_apart() -> None:
    buckets = Buckets([Rule(None, None, 1.0, 3)])
    assert [burst(buckets, uid, spec, 0.0) for uid in (1, 2) for spec in (RSA, EC)] == [3, 3, 3, 3]


def test_a_rule_is_for_its_user_and_spec_only() -> None:
    buckets = Buckets([Rule(1, RSA, 1.0, 3)])
    assert burst(buckets, 1, RSA, 0.0) == 3
    assert burst(buckets, 1, EC, 0.0) == burst(buckets, 2, RSA, 0.0) == 100


def test_a_request_must_fit_every_rule_and_one_that_does_not_uses_up_none() -> None:
    buckets = Buckets([Rule(None, None, 1.0, 10), Rule(1, RSA, 0.5, 2)])
    assert burst(buckets, 1, RSA, 0.0) == 2
    assert buckets.take(1, RSA, 0.0) == pytest.approx(2.0)
    assert burst(buckets, 1, EC, 0.0) == 10
    buckets.give_back(1, RSA, 0)
    assert burst(buckets, 1, RSA, 0.0) == 1
    for _ in range(20):
        buckets.give_back(1, RSA, 0)
    assert burst(buckets, 1, RSA, 0.0) == 2
    buckets.give_back(9, EC, 0)  # of a user whom no rule has seen


def test_of_very_many_users_the_one_with_the_fullest_bucket_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(buckets_module, "_MAX_BUCKETS", 2)
    buckets = Buckets([Rule(None, None, 0.001, 4)])
    assert [burst(buckets, uid, RSA, 0.0, most) for uid, most in ((1, 4), (2, 1))] == [4, 1]
    assert burst(buckets, 3, RSA, 0.0, 1) == 1
    assert buckets.take(1, RSA, 0.0) > 0


@given(st.lists(st.floats(0, 5), max_size=80), st.floats(0.1, 10), st.integers(1, 10))
def test_never_more_than_burst_and_rate_let_through(gaps: list[float], rate: float, size: int) -> None:
    buckets, now, passed = Buckets([Rule(None, None, rate, size)]), 0.0, []
    for gap in gaps:
        now += gap
        wait_s = buckets.take(1, RSA, now)
        if not wait_s:
            passed.append(now)
        else:
            assert 0 < wait_s <= 1 / rate + 1e-9
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= size + (passed[last] - passed[first]) * rate + 1e-6


# --- other rules while it runs

EACH, ONE = Rule(None, None, 0.001, 5), Rule(1, RSA, 0.001, 3)


def test_a_rule_that_stays_keeps_its_buckets_wherever_it_stands_and_a_new_one_is_full() -> None:
    buckets = Buckets([EACH, ONE])
    assert burst(buckets, 1, RSA, 0.0) == 3  # two are left of the five
    buckets.change([ONE, Rule(9, None, 1.0, 1), EACH])
    assert burst(buckets, 1, RSA, 0.0) == 0
    buckets.change([EACH])
    assert burst(buckets, 1, RSA, 0.0) == 2
    buckets.change([EACH, Rule(1, RSA, 0.001, 4)])
    assert burst(buckets, 1, RSA, 0.0) == 0
    buckets.change([Rule(None, None, 0.001, 6)])
    assert burst(buckets, 1, RSA, 0.0) == 6
    buckets.change([])
    assert burst(buckets, 1, RSA, 0.0) == 100
    buckets.change([EACH])
    assert burst(buckets, 1, RSA, 0.0) == 5


def test_of_two_equal_rules_each_keeps_its_own() -> None:
    buckets = Buckets([EACH, EACH])
    assert burst(buckets, 1, RSA, 0.0) == 5
    buckets.change([EACH, EACH, EACH])
    assert burst(buckets, 1, RSA, 0.0) == 0


def test_a_token_goes_back_to_the_rules_that_it_was_taken_from_and_to_no_newer_one() -> None:
    buckets = Buckets([ONE])
    assert burst(buckets, 1, RSA, 0.0) == 3
    era = buckets.era
    buckets.change([ONE, EACH])
    assert buckets.take(2, EC, 0.0) == 0
    buckets.give_back(1, RSA, era)
    assert burst(buckets, 1, RSA, 0.0) == 1  # of one bucket from before; the other has four now
    buckets.give_back(1, RSA, era)
    buckets.change([EACH])
    for _ in range(5):
        buckets.give_back(1, RSA, era)
    assert burst(buckets, 1, RSA, 0.0) == 4


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.floats(0, 2)),
            st.tuples(st.just("change"), st.lists(st.sampled_from([EACH, ONE]), max_size=3)),
        ),
        max_size=60,
    )
)
def test_a_rule_that_is_always_there_is_kept_to_whatever_else_changes(
    steps: list[tuple[str, object]],
) -> None:
    always = Rule(None, RSA, 0.5, 4)
    buckets, now, passed = Buckets([always]), 0.0, 0
    for _, what in steps:
        if isinstance(what, float):
            now += what
            passed += not buckets.take(1, RSA, now)
        else:
            assert isinstance(what, list)
            buckets.change([*what, always])
    assert passed <= 4 + now * 0.5 + 1e-6
