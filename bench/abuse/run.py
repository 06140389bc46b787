"""What a run is given: sizes, randomness, a display."""

import random
from dataclasses import dataclass

from bench.progress import Display


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each abuse. ``hits``: times that each failpoint fires; ``soak_s``: seconds."""

    worker_kills: int
    lone_kills: int
    daemon_kills: int
    hits: int
    connections: int
    soak_s: float
    ooms: int


FULL = Sizes(
    worker_kills=2000, lone_kills=200, daemon_kills=200, hits=20, connections=10_000, soak_s=600.0, ooms=20
)
QUICK = Sizes(worker_kills=40, lone_kills=8, daemon_kills=6, hits=2, connections=2000, soak_s=20.0, ooms=3)


@dataclass(frozen=True, slots=True)
class Run:
    """``no_mounts``: why nothing can be mounted here; empty if it can, in a namespace of our own."""

    rng: random.Random
    display: Display
    sizes: Sizes
    no_mounts: str = ""


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of all are not above; there must be some."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
