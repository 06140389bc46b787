"""What "ready" means: how full every pool must be. One rule for the status, ``kpcache wait`` and probes.

It is a level and no stage of the start: a daemon serves, and says so to systemd, before its pools are full.
"""

from collections.abc import Iterable
from typing import NamedTuple

LOW_WATER = "low_water"
FULL = "full"


class Fill(NamedTuple):
    """One pool; counts are pairs."""

    available: int
    low_water: int
    target: int


def is_level(text: str) -> bool:
    """Whether ``text`` names a level: "low_water", "full", or a percentage of the target, "1%" to "100%"."""
    number = text.removesuffix("%")
    return text in (LOW_WATER, FULL) or (
        number != text and number.isascii() and number.isdigit() and 1 <= int(number) <= 100
    )


def required(level: str, fill: Fill) -> int:
    """The pairs that a pool must have at this level."""
    if level == LOW_WATER:
        return fill.low_water
    percent = 100 if level == FULL else int(level.removesuffix("%"))
    return -(-fill.target * percent // 100)


def is_reached(level: str, pools: Iterable[Fill]) -> bool:
    return all(pool.available >= required(level, pool) for pool in pools)
