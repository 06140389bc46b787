"""One rule for what "ready" means."""

import pytest

from kpcache.core.readiness import FULL, LOW_WATER, Fill, is_level, is_reached, required


@pytest.mark.parametrize("level", ["low_water", "full", "1%", "50%", "100%"])
def test_levels(level: str) -> None:
    assert is_level(level)


@pytest.mark.parametrize("text", ["", "ready", "0%", "101%", "50", "%", "5.5%", "-5%", "५%", "FULL"])
def test_what_is_no_level(text: str) -> None:
    assert not is_level(text)


@pytest.mark.parametrize(
    ("level", "pairs"), [(LOW_WATER, 7), (FULL, 32), ("50%", 16), ("1%", 1), ("99%", 32)]
)
def test_the_pairs_that_a_pool_must_have(level: str, pairs: int) -> None:
    assert required(level, Fill(0, 7, 32)) == pairs
    assert is_reached(level, [Fill(pairs, 7, 32), Fill(0, 0, 0)])
    assert not is_reached(level, [Fill(pairs, 7, 32), Fill(pairs - 1, 7, 32)])
