"""``python -m bench.simulate [LOAD ...]``: kpcache's rules against those of others, by a virtual clock.

Each load is run with several seeds, for every rule with the same arrivals. ``same twice`` is kpcache
again with other luck at key times: what differs between the two is noise. Nothing is started or measured on
this machine, so the figures are the same everywhere.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console

from bench import plots
from bench.progress import Display
from bench.run import CPUS
from bench.scoreboard import AGAIN, ARMS, AUTO, BASELINES, KPCACHE, as_json, show, verdicts_of
from kpcache.core.targets import Bounds
from kpcache.simulator import loads
from kpcache.simulator.baselines import MinMaxDelay, RefillOnTake
from kpcache.simulator.engine import Rules, run
from kpcache.simulator.loads import Load
from kpcache.simulator.policy import KpcacheRules, Settings
from kpcache.simulator.scores import Scores, score
from kpcache.simulator.world import World

_WIDTH = 150
_AUTO_MOST = 16  # times its default target


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
    verdicts = {load: verdicts_of(arms, args.seed) for load, arms in by_arm.items()}
    words = {load: _load(load, args.quick, args.recorded).words for load in args.loads}
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    show(console, words, by_arm, verdicts)
    if args.json:
        settings = {"seed": args.seed, "seeds": args.seeds, "quick": args.quick, "loads": words}
        Path(args.json).write_text(as_json(settings, by_arm, verdicts))
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


def _draw(folder: Path, words: Mapping[str, str], traces: Mapping[tuple[str, str], plots.Trace]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for load, told in words.items():
        arms = {arm: traces[load, arm] for arm in (KPCACHE, *BASELINES)}
        (folder / f"{load.replace(' ', '-')}.svg").write_text(plots.draw(f"{load}: {told}", arms))


if __name__ == "__main__":
    sys.exit(main())
