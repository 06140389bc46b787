"""``python -m bench.abuse [RUN ...]``: see the package."""

import argparse
import dataclasses
import json
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench import machine
from bench.abuse import clock, crowd, disk, guards, kills, oom, outcome, points, soak, sweep, switched
from bench.abuse.outcome import Outcome
from bench.abuse.planting import PlantError
from bench.abuse.run import FULL, QUICK, Run
from bench.daemon import BenchError
from bench.progress import Display

_WIDTH = 120
_RUNS: dict[str, Callable[[Run], Outcome]] = {
    "guards": switched.switched,
    "workers": kills.workers,
    "lone": kills.lone,
    "daemon": kills.daemon,
    "failpoints": sweep.sweep,
    "full": disk.full,
    "failing": disk.failing,
    "stalls": disk.stalled,
    "descriptors": crowd.descriptors,
    "slow": crowd.slow,
    "clock": clock.jumps,
    "oom": oom.killed,
    "soak": soak.soak,
}


def main() -> int:
    """Exit status: 0 all proved, 1 a violation was found, 2 wrong usage, 3 void: a fault that was planted to
    be found was not; 130 interrupted."""
    args = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    no_mounts = disk.enter_own_mounts() if "full" in args.runs else ""
    described = machine.describe()
    run = Run(random.Random(args.seed), Display(), args.sizes, no_mounts)
    outcomes: dict[str, Outcome] = {}
    try:
        points.require_all()
        guards.require_all()
        for name in args.runs:
            started_s = time.monotonic()
            outcomes[name] = _RUNS[name](run)
            outcomes[name].figure("it took", time.monotonic() - started_s, "s")
    except PlantError as error:
        print(f"abuse: void: {error}", file=sys.stderr)
        return 3
    except BenchError as error:
        print(f"abuse: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("abuse: interrupted; all that it started is ended", file=sys.stderr)
        return 130
    console = Console(stderr=args.json == "-")
    if not console.is_terminal:
        console.width = _WIDTH
    outcome.show(console, outcomes, described)
    if args.json:
        settings = {"seed": args.seed, **dataclasses.asdict(args.sizes)}
        told = outcome.as_dict(outcomes, described, settings)
        if args.json == "-":
            print(json.dumps(told, indent=1))
        else:
            file = Path(args.json)
            earlier = json.loads(file.read_text()) if file.exists() else {}
            file.write_text(json.dumps(earlier | told, indent=1) + "\n")
    return outcome.exit_code(outcomes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.abuse", description="Abuse kpcache, and prove from logs that it held."
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"{', '.join(_RUNS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a short form, some minutes: does it all work?")
    for field in dataclasses.fields(FULL):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=type(getattr(FULL, field.name)), metavar="N")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="also write all figures, beside those of other runs there; - for stdout",
    )
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="of what is random here")
    args = parser.parse_args()
    unknown = [name for name in args.runs if name not in _RUNS]
    if unknown:
        parser.error(f"no run {unknown[0]}: choose from {', '.join(_RUNS)}")
    args.runs = args.runs or list(_RUNS)
    asked = {field.name: getattr(args, field.name) for field in dataclasses.fields(FULL)}
    asked = {name: value for name, value in asked.items() if value is not None}
    if any(value <= 0 for value in asked.values()):
        parser.error("sizes are above 0")
    args.sizes = dataclasses.replace(QUICK if args.quick else FULL, **asked)
    return args


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
