"""What follows from simulated runs: means, verdicts by run of the same seed, tables, JSON."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from bench.report import in_unit
from bench.stats import Interval, Study
from kpcache.simulator.scores import Scores

KPCACHE, AGAIN, AUTO = "kpcache", "same twice", "auto"
BASELINES = ("refill on take", "min/max/delay")
ARMS = (KPCACHE, AGAIN, AUTO, *BASELINES)
# By field of Scores: words, unit, whether more is better; None where that depends: who makes fewer pairs uses
# less CPU.
SCORES: dict[str, tuple[str, str, bool | None]] = {
    "dry_share": ("requests that found no pair", "%", False),
    "served_share": ("requests served in time", "%", True),
    "wait_p50_s": ("wait of the served, p50", "s", False),
    "wait_p99_s": ("wait of the served, p99", "s", False),
    "vain_s": ("waited in vain, for each request", "s", False),
    "cpu_s": ("CPU used", "CPU s", None),
    "cpu_per_pair_s": ("CPU for a pair given", "s", False),
    "fairness": ("fairness (Jain)", "", True),
    "least_share": ("the worst-off user got of its fair share", "%", True),
    "switch_share": ("orders that changed a maker's spec", "%", False),
}
_COLOURS = {"better": "green", "worse": "red", "undecided": "yellow"}
_REPEATS = 1000

Runs = Mapping[str, Mapping[str, Sequence[Scores]]]


def verdicts_of(arms: Mapping[str, Sequence[Scores]], seed: int) -> dict[str, dict[str, str]]:
    """By score and baseline: whether kpcache is better there, by the differences of runs of the same seed."""
    differences = {
        arm: [
            {name: getattr(other, name) - getattr(ours, name) for name in SCORES}
            for ours, other in zip(arms[KPCACHE], arms[arm], strict=True)
        ]
        for arm in (AGAIN, *BASELINES)
    }
    study = Study(differences, _means, random.Random(seed), _REPEATS)
    return {
        name: {
            arm: _verdict(study.estimate(arm, name), study.estimate(AGAIN, name), more) for arm in BASELINES
        }
        for name, (_, _, more) in SCORES.items()
    }


def _means(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(each[name] for each in rounds) / len(rounds) for name in SCORES}


def _verdict(difference: Interval, noise: Interval, more_is_better: bool | None) -> str:
    """Of a baseline's score less ours. As in ``bench.stats``: undecided when the interval holds 0, or when
    two runs of kpcache lie as far apart."""
    if more_is_better is None:
        return ""
    if not difference.low and not difference.high:
        return "equal"
    if difference.low <= 0 <= difference.high or abs(difference.value) <= max(
        abs(noise.low), abs(noise.high)
    ):
        return "undecided"
    return "better" if (difference.value < 0) == more_is_better else "worse"


def show(
    console: Console,
    words: Mapping[str, str],
    by_arm: Runs,
    verdicts: Mapping[str, Mapping[str, Mapping[str, str]]],
) -> None:
    """A table for each load, and where kpcache is worse in a list of its own."""
    for load, arms in by_arm.items():
        table = Table(
            title=f"{load}: {words[load]}", title_justify="left", header_style="bold", pad_edge=False
        )
        table.add_column("score")
        for arm in (KPCACHE, AGAIN, AUTO):
            table.add_column(arm, justify="right", no_wrap=True)
        for arm in BASELINES:
            table.add_column(arm, justify="right", no_wrap=True)
            table.add_column("kpcache is", no_wrap=True)
        means = {arm: _means([asdict(each) for each in rounds]) for arm, rounds in arms.items()}
        for name, (label, unit, _) in SCORES.items():
            cells = [_figure(means[arm][name], unit) for arm in (KPCACHE, AGAIN, AUTO)]
            for arm in BASELINES:
                verdict = verdicts[load][name][arm]
                colour = _COLOURS.get(verdict, "default")
                cells += [_figure(means[arm][name], unit), f"[{colour}]{verdict}[/]"]
            table.add_row(label, *cells)
        console.print(table)
    for arm in BASELINES:
        found = [
            (load, name, verdict[arm]) for load, each in verdicts.items() for name, verdict in each.items()
        ]
        counts = {word: sum(each[2] == word for each in found) for word in (*_COLOURS, "equal")}
        worse = [f"{load}: {SCORES[name][0]}" for load, name, verdict in found if verdict == "worse"]
        told = ", ".join(f"{word} {count}" for word, count in counts.items())
        console.print(f"against {arm}: {told}", highlight=False)
        console.print(f"worse than {arm} in: {'; '.join(worse) or 'nothing'}", highlight=False)


def _figure(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.2f} %"
    return in_unit(value, unit).strip() if unit else f"{value:.3f}"


def as_json(
    settings: Mapping[str, object],
    by_arm: Runs,
    verdicts: Mapping[str, object],
) -> str:
    runs = {
        load: {arm: [asdict(each) for each in rounds] for arm, rounds in arms.items()}
        for load, arms in by_arm.items()
    }
    return json.dumps({"settings": settings, "runs": runs, "verdicts": verdicts}, indent=2) + "\n"
