"""``python -m bench.simulate [LOAD ...]``: kpcache's rules against those of others, by a virtual clock.

Each load is run with several seeds, for every rule with the same arrivals. ``same twice`` is kpcache
again with other luck at key times: what differs between the two is noise. Nothing is started or measured on
this machine, so the figures are the same everywhere.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import plots
from bench.progress import Display
from bench.report import in_unit
from bench.run import CPUS
from bench.stats import Interval, Study
from kpcache.core.targets import Bounds
from kpcache.simulator import loads
from kpcache.simulator.baselines import MinMaxDelay, RefillOnTake
from kpcache.simulator.engine import Rules, run
from kpcache.simulator.loads import Load
from kpcache.simulator.policy import KpcacheRules, Settings
from kpcache.simulator.scores import Scores, score
from kpcache.simulator.world import World

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
_WIDTH = 150
_AUTO_MOST = 16  # times its default target
_REPEATS = 1000


@dataclass(frozen=True)
class Job:
    """One run. ``recorded``: a file instead of a made-up load, and for how many cores."""

    load: str
    arm: str
    seed: int
    quick: bool
    recorded: tuple[str, int] | None
    traced: bool


def main() -> int:
    """Exit status: 0 simulated, whatever the verdicts; 2 wrong usage."""
    args = _arguments()
    jobs = [
        Job(load, arm, args.seed + number, args.quick, args.recorded, bool(args.svg) and not number)
        for load in args.loads
        for arm in ARMS
        for number in range(args.seeds)
    ]
    scores: dict[Job, Scores] = {}
    traces: dict[tuple[str, str], plots.Trace] = {}
    for job, scored, trace in _all_done(jobs):
        scores[job] = scored
        if trace is not None:
            traces[job.load, job.arm] = trace
    by_arm = {
        load: {arm: [scores[job] for job in jobs if (job.load, job.arm) == (load, arm)] for arm in ARMS}
        for load in args.loads
    }
    verdicts = {load: _verdicts(arms, args.seed) for load, arms in by_arm.items()}
    words = {load: _load(load, args.quick, args.recorded).words for load in args.loads}
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    _show(console, words, by_arm, verdicts)
    if args.json:
        settings = {"seed": args.seed, "seeds": args.seeds, "quick": args.quick, "loads": words}
        Path(args.json).write_text(_as_json(settings, by_arm, verdicts))
    if args.svg:
        _draw(Path(args.svg), words, traces)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulate", description=(__doc__ or "").split(":")[1]
    )
    names = list(loads.made_up())
    parser.add_argument("loads", nargs="*", metavar="LOAD", help=f"{', '.join(names)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a fifth of each load, two seeds")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--json", metavar="FILE", help="also write all figures")
    parser.add_argument("--svg", metavar="DIR", help="also draw each load's first run")
    parser.add_argument("--recorded", metavar="FILE", help="a recorded load instead: CSV time_s,uid,spec")
    parser.add_argument("--cores", type=int, default=CPUS, help="for --recorded (those of this machine)")
    args = parser.parse_args()
    unknown = [load for load in args.loads if load not in names]
    if unknown:
        parser.error(f"no load {unknown[0]}: choose from {', '.join(names)}")
    if args.recorded and args.loads:
        parser.error("either LOAD or --recorded")
    if args.cores < 1:
        parser.error("--cores: at least 1")
    args.loads = args.loads or names
    args.recorded = (args.recorded, args.cores) if args.recorded else None
    args.seeds = 2 if args.quick else 5
    if args.recorded:
        args.loads = ["recorded"]
        try:
            _load("recorded", args.quick, args.recorded)
        except (OSError, ValueError) as error:
            parser.error(f"{args.recorded[0]}: {error}")
    return args


# --- the runs


def _all_done(jobs: Sequence[Job]) -> Iterator[tuple[Job, Scores, plots.Trace | None]]:
    """Each as soon as it is done, on all CPUs."""
    # Spawned: what a fork would copy of a terminal's progress display is nobody's business.
    with (
        ProcessPoolExecutor(CPUS, get_context("spawn")) as pool,
        Display().step("simulating", len(jobs)) as step,
    ):
        futures = {pool.submit(_one, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], *future.result()
            step.advance()


def _one(job: Job) -> tuple[Scores, plots.Trace | None]:
    load = _load(job.load, job.quick, job.recorded)
    # Two streams of luck: every rule sees the same arrivals, whatever it makes.
    luck = random.Random(f"{job.seed} {job.arm == AGAIN}")
    done = run(
        load,
        _rules(job.arm, load),
        load.arrivals(random.Random(job.seed)),
        luck,
        samples=plots.SAMPLES if job.traced else 0,
    )
    return score(done, load.machine.cost_s), plots.trace(load, done) if job.traced else None


def _load(name: str, quick: bool, recorded: tuple[str, int] | None) -> Load:
    if recorded is None:
        return loads.made_up(quick)[name]
    path, cores = recorded
    with Path(path).open(newline="") as file:
        return loads.recorded(loads.read(file), cores)


def _rules(arm: str, load: Load) -> Callable[[World], Rules]:
    if arm == "refill on take":
        return lambda world: RefillOnTake(world, load.pools)
    if arm == "min/max/delay":
        return lambda world: MinMaxDelay(world, load.pools)
    settings = Settings()
    if arm == AUTO:
        # No pool is smaller than in the other arms; what one pair takes in memory does not matter here.
        bounds = {spec: Bounds(size.target, size.target * _AUTO_MOST, 1) for spec, size in load.pools.items()}
        settings = Settings(adaptive=bounds)
    return lambda world: KpcacheRules(world, load.pools, settings)


# --- what follows from them


def _verdicts(arms: Mapping[str, Sequence[Scores]], seed: int) -> dict[str, dict[str, str]]:
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


def _show(
    console: Console,
    words: Mapping[str, str],
    by_arm: Mapping[str, Mapping[str, Sequence[Scores]]],
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


def _as_json(
    settings: Mapping[str, object],
    by_arm: Mapping[str, Mapping[str, Sequence[Scores]]],
    verdicts: Mapping[str, object],
) -> str:
    runs = {
        load: {arm: [asdict(each) for each in rounds] for arm, rounds in arms.items()}
        for load, arms in by_arm.items()
    }
    return json.dumps({"settings": settings, "runs": runs, "verdicts": verdicts}, indent=2) + "\n"


def _draw(folder: Path, words: Mapping[str, str], traces: Mapping[tuple[str, str], plots.Trace]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for load, told in words.items():
        arms = {arm: traces[load, arm] for arm in (KPCACHE, *BASELINES)}
        (folder / f"{load.replace(' ', '-')}.svg").write_text(plots.draw(f"{load}: {told}", arms))


if __name__ == "__main__":
    sys.exit(main())
