"""How full pools are, from a status."""

from collections.abc import Mapping
from typing import Any

from kpcache.core.readiness import Fill, required
from kpcache.core.specs import SPECS

Pools = Mapping[str, Mapping[str, Any]]


def at_hand(pool: Mapping[str, Any]) -> int:
    """Pairs that can be issued: those the daemon holds and those in the shards."""
    return int(pool["ready"]) + int(pool["held"])


def fill_fraction(pools: Pools) -> float:
    """0 to 1 of the work of filling, each pair weighed by what it costs to make: EC pools fill at once."""
    done = wanted = 0.0
    for spec, pool in pools.items():
        cost_s = SPECS[spec].keygen_cost_s if spec in SPECS else 0.0
        done += min(at_hand(pool), pool["target"]) * cost_s
        wanted += pool["target"] * cost_s
    return done / wanted if wanted else 1.0


def below(pools: Pools, level: str) -> dict[str, str]:
    """The pools that hold less than ``level`` (``core/readiness``) asks for, each with "held/required"."""
    found: dict[str, str] = {}
    for spec, pool in pools.items():
        held = at_hand(pool)
        needed = required(level, Fill(held, int(pool["low_water"]), int(pool["target"])))
        if held < needed:
            found[spec] = f"{held}/{needed}"
    return found
