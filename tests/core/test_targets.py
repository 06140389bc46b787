"""Adaptive targets: large enough by the formula, within their bounds, quick to rise and slow to fall."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpcache.core.demand import Lasting
from kpcache.core.targets import (
    FALL_HALF_LIFE_S,
    Bounds,
    Seen,
    Targets,
    default_low_water,
    fit,
    needed,
)

CHANCE = 0.001
BOUNDS = Bounds(least=4, most=1000, bytes_per_pair=2000)


def seen(rate: float, *, dispersion: float = 1.0, pair_s: float = 0.065, of_late: float = 0.0) -> Seen:
    return Seen(Lasting(rate, dispersion), of_late, pair_s)


def targets(*, max_pairs: int = 10**6, max_bytes: int = 10**9, **bounds: Bounds) -> Targets:
    return Targets(
        bounds or {"RSA_2048": BOUNDS}, chance=CHANCE, max_pairs=max_pairs, max_bytes=max_bytes, now=0.0
    )


def test_the_formula_by_hand() -> None:
    """ln(1000) = 6.908; (1 + 0.5) / (2 × 0.5) × 6.908 = 10.36; 2 pairs and sqrt(2 × 6.908 × 2) = 5.26."""
    assert needed(10, 1.0, 0.5, 0.2, CHANCE) == math.ceil(2 + 5.257 + 10.36)
    assert needed(0, 50.0, 0.9, 1.0, CHANCE) == 0


@given(st.floats(0.001, 1000), st.floats(1, 1000), st.floats(0, 5), st.floats(0, 10), st.floats(1e-9, 0.5))
def test_more_of_anything_that_makes_a_pool_dry_never_needs_fewer_pairs(
    rate: float, dispersion: float, use: float, reaction_s: float, chance: float
) -> None:
    base = needed(rate, dispersion, use, reaction_s, chance)
    assert base >= 1
    assert needed(rate * 2, dispersion, use, reaction_s, chance) >= base
    assert needed(rate, dispersion * 2, use, reaction_s, chance) >= base
    assert needed(rate, dispersion, use + 0.1, reaction_s, chance) >= base
    assert needed(rate, dispersion, use, reaction_s + 1, chance) >= base
    assert needed(rate, dispersion, use, reaction_s, chance / 10) >= base


def test_a_pool_that_nobody_asks_for_has_its_least() -> None:
    assert targets().update({"RSA_2048": seen(0.0)}, 2, 10.0) == {"RSA_2048": 4}


def test_it_rises_at_once_and_falls_by_half_in_the_half_life() -> None:
    adaptive = targets()
    high = adaptive.update({"RSA_2048": seen(0.0, of_late=80.0)}, 2, 10.0)["RSA_2048"]
    # What comes of late counts until the makers can begin; how busy they are, by what lasts.
    assert high == needed(80.0, 1.0, 0.0, 0.05 + 0.065, CHANCE)
    for hour in range(1, 13):
        later = adaptive.update({"RSA_2048": seen(0.0)}, 2, 10.0 + hour * FALL_HALF_LIFE_S / 12)["RSA_2048"]
    assert later == pytest.approx(high / 2, abs=1)


def test_what_was_learned_before_a_restart_has_fallen_meanwhile() -> None:
    adaptive = targets()
    adaptive.resume({"RSA_2048": 200.0, "RSA_4096": 50.0}, away_s=FALL_HALF_LIFE_S)
    assert adaptive.update({"RSA_2048": seen(0.0)}, 2, 0.0) == {"RSA_2048": 100}


def test_makers_that_all_specs_keep_busy_leave_less_for_each() -> None:
    alone = targets().update({"RSA_2048": seen(5.0)}, 2, 10.0)
    beside = targets().update({"RSA_2048": seen(5.0), "RSA_4096": seen(2.0, pair_s=0.7)}, 2, 10.0)
    assert beside["RSA_2048"] > 2 * alone["RSA_2048"]


def test_a_single_maker_may_be_at_a_long_key_when_a_burst_comes() -> None:
    both = {"RSA_2048": seen(2.0), "RSA_4096": seen(0.1, pair_s=5.0)}
    one, two = (targets().update(both, makers, 10.0)["RSA_2048"] for makers in (1, 2))
    assert one >= two + 2.0 * 5.0


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.tuples(st.floats(0, 5000), st.integers(1, 50), st.integers(0, 500)),
        min_size=1,
    ),
    st.integers(1, 2000),
    st.integers(1, 2_000_000),
)  # fmt: skip
def test_all_targets_stay_within_their_bounds_and_together_within_pairs_and_memory(
    rows: dict[str, tuple[float, int, int]], max_pairs: int, max_bytes: int
) -> None:
    bounds = {spec: Bounds(least, least + more, 1000) for spec, (_, least, more) in rows.items()}
    chosen = fit({spec: wanted for spec, (wanted, _, _) in rows.items()}, bounds, max_pairs, max_bytes)
    assert all(bounds[spec].least <= count <= bounds[spec].most for spec, count in chosen.items())
    least = sum(each.least for each in bounds.values())
    assert sum(chosen.values()) <= max(max_pairs, least)
    assert sum(chosen.values()) * 1000 <= max(max_bytes, least * 1000)


def test_where_not_all_fit_each_gives_the_same_part_of_what_it_has_above_its_least() -> None:
    bounds = {"a": Bounds(10, 500, 1), "b": Bounds(10, 500, 1)}
    assert fit({"a": 410.0, "b": 110.0}, bounds, 270, 10**9) == {"a": 210, "b": 60}


def test_a_low_watermark_is_a_quarter_and_at_least_one() -> None:
    assert [default_low_water(target) for target in (0, 1, 3, 4, 10)] == [0, 1, 1, 1, 2]


def test_one_burst_of_one_spec_says_nothing_of_the_makers_time_for_another() -> None:
    calm = {"RSA_2048": seen(0.0), "RSA_3072": seen(0.1, pair_s=0.27)}
    burst = {**calm, "RSA_2048": seen(0.0, of_late=300.0)}
    assert targets(RSA_3072=BOUNDS).update(burst, 2, 10.0) == targets(RSA_3072=BOUNDS).update(calm, 2, 10.0)


def test_a_long_spec_has_to_outlast_the_longest_key_that_all_makers_may_be_at() -> None:
    long_key = targets(RSA_4096=BOUNDS).update({"RSA_4096": seen(0.5, pair_s=0.7)}, 4, 10.0)["RSA_4096"]
    assert long_key >= needed(0.5, 1.0, 0.35 / 4, 5 * 0.7, CHANCE)


def test_as_much_more_as_is_kept_back_from_one_user() -> None:
    some = {"RSA_2048": seen(10.0)}
    alone = targets().update(some, 2, 10.0)["RSA_2048"]
    kept = Targets(
        {"RSA_2048": BOUNDS}, chance=CHANCE, max_pairs=10**6, max_bytes=10**9, now=0.0, kept_percent=50
    )
    assert kept.update(some, 2, 10.0)["RSA_2048"] == 2 * alone
