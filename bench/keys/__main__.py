"""``python -m bench.keys [flips] [outside] [--keys N] [--json FILE]``: judges of the keys that are served."""

import argparse
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench import machine, report
from bench.daemon import BenchError
from bench.keys import flips
from bench.nest import Nest, nest
from bench.progress import Display
from bench.report import Result
from kpcache.core.specs import MAKEABLE

_WIDTH = 140
_RSA = tuple(spec for spec in MAKEABLE if spec.startswith("RSA"))
# What 10,000 keys are for the outside judges: the larger a key, the dearer.
_OUTSIDE_MIX = {"RSA_2048": 0.97, "RSA_3072": 0.025, "RSA_4096": 0.005}
# Pairs of the other specs for each RSA pair of ``flips``: their check signs or encapsulates.
_OTHERS_SHARE = 0.05
_DEFAULT_KEYS = {"flips": 100, "outside": 10_000}


def _outside(home: Nest, wanted: Mapping[str, int], display: Display) -> tuple[Result, bool]:
    try:
        from bench.keys import outside
    except ModuleNotFoundError as error:  # what no product code needs
        raise BenchError(f"there is no {error.name} here: pip install -e '.[test]'") from error
    return outside.measure(home, wanted, display)


_PARTS: dict[str, Callable[[Nest, Mapping[str, int], Display], tuple[Result, bool]]] = {
    "flips": flips.measure,
    "outside": _outside,
}


def main() -> int:
    """Exit status: 0 every damage found and every key passed; 1 not so; 2 wrong usage; 3 could not judge;
    130 interrupted."""
    args = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    described, display = machine.describe(), Display()
    results: dict[str, Result] = {}
    good = True
    try:
        for part in args.parts:
            with nest() as home:
                results[part], passed = _PARTS[part](home, wanted(part, args.keys, args.spec), display)
                good &= passed
    except BenchError as error:
        print(f"bench.keys: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("bench.keys: interrupted; all that it started is ended", file=sys.stderr)
        return 130
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH  # nothing tells how wide a file is
    report.show(console, results, described)
    if args.json:
        settings = {"parts": args.parts, "keys": args.keys, "specs": args.spec}
        Path(args.json).write_text(report.as_json(results, described, settings) + "\n")
    return 0 if good else 1


def wanted(part: str, keys: int | None, specs: list[str]) -> dict[str, int]:
    """Pairs by spec: ``keys`` of each in ``specs`` if any are named, else the part's own mix."""
    keys = keys or _DEFAULT_KEYS[part]
    if specs:
        return {spec: keys for spec in specs if part == "flips" or spec in _RSA}
    if part == "outside":
        return {spec: max(round(keys * share), 1) for spec, share in _OUTSIDE_MIX.items()}
    return {spec: keys if spec in _RSA else max(round(keys * _OTHERS_SHARE), 1) for spec in MAKEABLE}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.keys", description="Judge the keys that a daemon serves, by their bytes alone."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(_PARTS)} (default: both)")
    parser.add_argument(
        "--keys",
        type=int,
        metavar="N",
        help="of each RSA size (100) and in all for the outside judges (10000)",
    )
    parser.add_argument(
        "--spec", action="append", default=[], metavar="SPEC", help="N of this spec; may repeat"
    )
    parser.add_argument("--json", metavar="FILE", help="also write all figures")
    args = parser.parse_args()
    for value, known in [
        *((part, tuple(_PARTS)) for part in args.parts),
        *((s, MAKEABLE) for s in args.spec),
    ]:
        if value not in known:
            parser.error(f"no {value}: choose from {', '.join(known)}")
    if args.keys is not None and args.keys < 1:
        parser.error("--keys: at least 1")
    args.parts = args.parts or list(_PARTS)
    if "outside" in args.parts and args.spec and not set(args.spec) & set(_RSA):
        parser.error("the outside judges know RSA keys only")
    return args


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
