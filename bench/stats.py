"""Quantiles, 95 % intervals, verdicts.

Rounds, not single calls, are what is drawn again in the bootstrap: calls of one round share the state of
the machine, so treating them as independent would give intervals far too narrow. All arms of a draw
share their rounds, since arms of one round were measured within the same second.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Round = TypeVar("Round")

# The label of a quantile, its share, and how many samples it takes to say anything about it.
QUANTILES = (("p50", 0.5, 20), ("p99", 0.99, 300), ("p99.9", 0.999, 4000))


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; a ratio has no unit."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3f}-{self.high:.3f}"


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest sample with at least ``share`` of all samples not above it (nearest rank)."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def quantiles(rounds: Sequence[Sequence[float]]) -> dict[str, float]:
    """The quantiles that the samples of all rounds together are enough for."""
    ordered: list[float] = []
    for samples in rounds:
        ordered += samples
    ordered.sort()  # sorted runs, if the rounds are sorted: a merge
    return {label: quantile(ordered, share) for label, share, least in QUANTILES if len(ordered) >= least}


class Study(Generic[Round]):
    """Several arms over the same rounds, and named figures of each arm: estimates and ratios."""

    def __init__(
        self,
        arms: Mapping[str, Sequence[Round]],
        figures: Callable[[Sequence[Round]], dict[str, float]],
        rng: random.Random,
        repeats: int,
    ) -> None:
        """``figures`` gives an arm's figures from any selection of its rounds."""
        count = min(len(rounds) for rounds in arms.values())
        self._estimates = {arm: figures(rounds) for arm, rounds in arms.items()}
        self._draws: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
        for _ in range(repeats):
            picks = rng.choices(range(count), k=count)
            for arm, rounds in arms.items():
                self._draws[arm].append(figures([rounds[pick] for pick in picks]))

    def labels(self, arm: str) -> list[str]:
        """The figures that an arm has."""
        return list(self._estimates[arm])

    def estimate(self, arm: str, label: str) -> Interval:
        """One arm's figure."""
        return _interval(self._estimates[arm][label], [draw[label] for draw in self._draws[arm]])

    def ratio(self, arm: str, base: str, label: str) -> Interval:
        """An arm's figure over that of another, round by round in the same draws."""
        return _interval(
            self._estimates[arm][label] / self._estimates[base][label],
            [
                mine[label] / theirs[label]
                for mine, theirs in zip(self._draws[arm], self._draws[base], strict=True)
            ],
        )


def _interval(value: float, draws: Sequence[float]) -> Interval:
    ordered = sorted(draws)
    return Interval(value, quantile(ordered, 0.025), quantile(ordered, 0.975))


def compare(ratio: Interval, control: Interval | None, more: str = "slower", less: str = "faster") -> str:
    """Whether a ratio differs from 1: ``more`` (it is above), ``less``, or "undecided".

    Undecided when its own interval holds 1, or when two identical things (the control) were found to
    differ by as much.
    """
    if ratio.low <= 1 <= ratio.high or abs(math.log(ratio.value)) <= _noise(control):
        return "undecided"
    return more if ratio.value > 1 else less


def judge(figure: Interval, limit: float, control: Interval | None = None, *, at_least: bool = False) -> str:
    """Whether a figure keeps its limit, by its whole interval: "met", "missed", or "undecided".

    Undecided also when two identical things were found to differ by as much as figure and limit do.
    """
    if figure.low <= limit <= figure.high:
        return "undecided"
    if figure.value > 0 and abs(math.log(figure.value / limit)) <= _noise(control):
        return "undecided"
    return "met" if (figure.value > limit) == at_least else "missed"


def _noise(control: Interval | None) -> float:
    """How far two identical things may lie apart by chance, as a logarithm."""
    return 0.0 if control is None else max(abs(math.log(control.low)), abs(math.log(control.high)))
