"""``python -m bench [PART ...] [--quick] [--json FILE]``."""

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench import (
    fairness,
    guards,
    hit,
    hogs,
    machine,
    overhead,
    predict,
    refill,
    refusals,
    report,
    rest,
    wiping,
)
from bench.daemon import BenchError
from bench.progress import Display
from bench.report import Result
from bench.run import Run

_WIDTH = 140
_QUIET_LOAD = 0.5
_PARTS: dict[str, Callable[[Run], Result]] = {
    "hit": hit.measure,
    "guards": guards.measure,
    "overhead": overhead.measure,
    "refill": refill.measure,
    "hogs": hogs.measure,
    "fairness": fairness.measure,
    "predict": predict.measure,
    "rest": rest.measure,
    "refusals": refusals.measure,
    "wiping": wiping.measure,
}


def main() -> int:
    """Exit status: 0 measured, whatever the verdicts; 1 could not measure; 2 wrong usage; 130 interrupted."""
    args = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    seed = args.seed if args.seed is not None else time.time_ns() % 2**32
    settings = {"parts": args.parts, "quick": args.quick, "seed": seed}
    described = machine.describe()  # now: the load of before
    if os.getloadavg()[0] > _QUIET_LOAD:
        print("bench: this machine is not at rest; figures will be of its other work, too", file=sys.stderr)
    run = Run(random.Random(seed), Display(), args.quick)
    results: dict[str, Result] = {}
    try:
        for part in args.parts:
            results[part] = _PARTS[part](run)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; all that it started is ended", file=sys.stderr)
        return 130
    to_stdout = args.json == "-"
    console = Console(stderr=to_stdout)
    if not console.is_terminal:
        console.width = _WIDTH  # nothing tells how wide a file is
    report.show(console, results, described)
    if args.json:
        text = report.as_json(results, described, settings) + "\n"
        if to_stdout:
            sys.stdout.write(text)
        else:
            Path(args.json).write_text(text)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure kpcache on this machine.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(_PARTS)} (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="a short form, under a minute: does it all work?"
    )
    parser.add_argument("--json", metavar="FILE", help="also write all figures; - for stdout")
    parser.add_argument("--seed", type=int, help="of what is random here: orders, pauses, resampling")
    args = parser.parse_args()
    unknown = [part for part in args.parts if part not in _PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]}: choose from {', '.join(_PARTS)}")
    args.parts = args.parts or list(_PARTS)
    return args


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
