"""``python -m bench.fuzz [--messages N] [--over-socket N] [--seed S] [--case N] [--json FILE]``."""

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench import machine, report
from bench.daemon import BenchError
from bench.fuzz import campaign, covered, inside, outside, results
from bench.fuzz.cases import Maker
from bench.fuzz.daemon import Fuzzed, Witness
from bench.fuzz.tally import Tally
from bench.nest import nest
from bench.progress import Display
from bench.report import Result
from bench.run import CPUS

_WIDTH = 140
# Coverage makes Python several times slower, and sees all it will see long before this.
_COVERED_MESSAGES = 50_000


def main() -> int:
    """Exit status: 0 nothing found; 1 something found, or a bound not kept; 2 wrong usage; 3 could not run;
    130 interrupted."""
    args = _arguments()
    if args.case is not None:
        return _again(args.seed, args.case)
    signal.signal(signal.SIGTERM, _interrupt)
    described, display = machine.describe(), Display()
    found: dict[str, Result] = {}
    try:
        if args.messages:
            found["inside"] = _inside(args.seed, args.messages, args.jobs, display)
        if args.over_socket:
            found["outside"] = _outside(args.seed, args.over_socket, args.jobs, display)
    except BenchError as error:
        print(f"bench.fuzz: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("bench.fuzz: interrupted; all that it started is ended", file=sys.stderr)
        return 130
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH  # nothing tells how wide a file is
    report.show(console, found, described)
    if args.json:
        settings = {"seed": args.seed, "jobs": args.jobs}
        Path(args.json).write_text(report.as_json(found, described, settings) + "\n")
    if all(results.is_clean(result) for result in found.values()):
        return 0
    print(f"again, one case: python -m bench.fuzz --seed {args.seed} --case N", file=sys.stderr)
    return 1


def _inside(seed: int, messages: int, jobs: int, display: Display) -> Result:
    with display.step("fuzz: branches"):
        seen_messages = min(messages, _COVERED_MESSAGES)
        seen = covered.measure(seed, seen_messages)
    with display.step("fuzz: in process", messages) as step:
        done = campaign.run(inside.work(seed), messages, jobs, step)
    return results.of_inside(done, seen, seen_messages)


def _outside(seed: int, messages: int, jobs: int, display: Display) -> Result:
    with nest() as home:
        with display.step("fuzz: starting a daemon"):
            fuzzed = Fuzzed(home)
        work = outside.work(fuzzed.daemon.socket, seed, fuzzed.words)
        with display.step("fuzz: over the socket", messages) as step, Witness(fuzzed) as witness:
            done = campaign.run(work, messages, jobs, step)
        result = results.of_outside(done, fuzzed, witness, fuzzed.complaints())
        fuzzed.daemon.stop()
    return result


def _again(seed: int, number: int) -> int:
    """One case in process, with its bytes and what is found."""
    target, tally = inside.Target(), Tally()
    maker = Maker(seed, target.words)
    for piece in maker.case(number).pieces:
        print(piece.hex())
    inside.run(target, maker, range(number, number + 1), tally)
    for finding in tally.findings:
        print(results.told(finding))
    return 1 if tally.found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fuzz",
        description="Fuzz the wire format, in process and over a daemon's socket.",
    )
    parser.add_argument("--messages", type=int, default=200_000, help="in process, 0 for none (200000)")
    parser.add_argument("--over-socket", type=int, default=50_000, help="to a daemon, 0 for none (50000)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="what cases are made from")
    parser.add_argument("--case", type=int, help="only this case of the seed, in process; shows its bytes")
    parser.add_argument("--jobs", type=int, default=CPUS, help=f"processes that send, 1 or 2 ({CPUS})")
    parser.add_argument("--json", metavar="FILE", help="also write all figures and findings")
    args = parser.parse_args()
    args.jobs = min(args.jobs, 2) if args.over_socket else args.jobs
    if min(args.messages, args.over_socket, args.seed, args.case or 0) < 0 or args.jobs < 1:
        parser.error("numbers are not negative, and somebody must send")
    if not (args.messages or args.over_socket) and args.case is None:
        parser.error("nothing to do: --messages, --over-socket or --case")
    return args


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
