"""The scores, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.simulator.engine import Run
from kpcache.simulator.scores import fair_parts, jain, max_min, quantile, score
from kpcache.simulator.world import Ending, Request

SPEC, OTHER = "RSA_2048", "RSA_4096"
COST_S = {SPEC: 1.0, OTHER: 10.0}


def request(uid: int, ending: Ending, waited_s: float = 0.0, spec: str = SPEC) -> Request:
    found = ending is Ending.GIVEN and not waited_s
    return Request(100.0, uid, spec, 5.0, found, ending, 100.0 + waited_s)


def test_scores_of_four_requests() -> None:
    requests = [
        request(1, Ending.GIVEN),
        request(1, Ending.GIVEN, 2.0),
        request(2, Ending.REFUSED),
        request(2, Ending.TIMED_OUT, 5.0),
    ]
    run = Run(requests, 7.0, start={SPEC: 4}, left={SPEC: 3}, orders=4, switches=1)
    scores = score(run, COST_S)
    assert scores.dry_share == 0.75
    assert scores.served_share == 0.5
    assert (scores.wait_p50_s, scores.wait_p99_s) == (0.0, 2.0)
    assert scores.vain_s == 5.0 / 4
    # 7 s were used, and a pair more than was made given out of the stock.
    assert (scores.cpu_s, scores.cpu_per_pair_s) == (7.0, 4.0)
    # Each had one pair coming; one got it, the other nothing.
    assert (scores.fairness, scores.least_share) == (0.5, 0.0)
    assert scores.switch_share == 0.25


def test_a_run_without_requests_has_scores() -> None:
    scores = score(Run(), COST_S)
    assert (scores.dry_share, scores.fairness, scores.least_share) == (0.0, 1.0, 1.0)


def test_max_min_serves_small_askers_first() -> None:
    assert max_min({1: 100.0, 2: 1.0, 3: 4.0}, 9.0) == {2: 1.0, 3: 4.0, 1: 4.0}
    assert max_min({1: 2.0, 2: 3.0}, 5.0) == {1: 2.0, 2: 3.0}


@given(st.dictionaries(st.integers(0, 9), st.floats(0.1, 100), min_size=1), st.floats(0, 1))
def test_max_min_deals_out_all_and_nobody_gets_more_than_asked(asked: dict[int, float], part: float) -> None:
    total = part * sum(asked.values())
    shares = max_min(asked, total)
    assert sum(shares.values()) == pytest.approx(total)
    assert all(shares[uid] <= asked[uid] + 1e-9 for uid in asked)
    cut = [shares[uid] for uid in asked if shares[uid] < asked[uid] - 1e-6]
    assert not cut or min(cut) >= max(shares.values()) - 1e-6


def test_fair_parts_weigh_pairs_by_their_cost() -> None:
    # Eleven seconds' worth were given: user 2's RSA_4096 took its fair 5.5 and more, user 1 got 1 of 2.
    requests = [
        request(1, Ending.GIVEN),
        request(1, Ending.REFUSED),
        request(2, Ending.GIVEN, spec=OTHER),
    ]
    assert fair_parts(requests, COST_S) == {1: 0.5, 2: 1.0}


def test_jains_index_has_its_known_values() -> None:
    assert jain([1, 1, 1, 1]) == 1.0
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([0, 0]) == jain([]) == 1.0


def test_quantiles_are_of_the_nearest_rank() -> None:
    assert [quantile([1, 2, 3, 4], share) for share in (0.5, 0.51, 0.99)] == [2, 3, 4]
    assert quantile([], 0.5) == 0.0
