"""Tell what pools and how many cores a load needs."""

import argparse
import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kpcache.cli.output import UsageError, as_json, complain, to_stdout
from kpcache.core.specs import MAKEABLE, SPECS
from kpcache.errors import KpcacheError
from kpcache.simulator.planner import (
    HIGHEST_USE,
    MOST_CORES,
    MOST_PAIRS,
    USUAL_USE,
    Need,
    Plan,
    Trial,
    cores_for,
    settled,
    size_pools,
)

_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0}
_SEED = 1  # the same question gets the same answer
# Keys of one spec are made for so long, and so many at least: their times vary by three quarters.
_MEASURE_S, _MEASURE_KEYS = 2.0, 8


class PlanError(KpcacheError):
    """The machine in question is too small; the message says what would do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate", action="append", default=[], metavar="SPEC=N/s",
        help="requests for a spec on average: N/s, N/min or N/h; give it once for each spec",
    )  # fmt: skip
    parser.add_argument(
        "--burst", action="append", default=[], metavar="SPEC=N",
        help="requests for a spec that come at once now and then; give it once for each spec",
    )  # fmt: skip
    parser.add_argument("--cores", type=_cores, metavar="N", help="plan for so many cores")
    parser.add_argument(
        "--chance", type=_chance, default=0.001, metavar="P",
        help="how likely a request may find no pair (0.001)",
    )  # fmt: skip
    parser.add_argument(
        "--measure", action="store_true", help="measure here what a pair costs, some seconds for each spec"
    )
    parser.add_argument("--json", action="store_true", help="everything, for programs")


def run(args: argparse.Namespace) -> int:
    needs = parse_needs(args.rate, args.burst)
    cost_s = {spec: _measured(spec) if args.measure else SPECS[spec].keygen_cost_s for spec in needs}
    plan = size_pools(needs, cost_s, _choose_cores(needs, cost_s, args.cores), args.chance)
    plan, trial = settled(plan, cost_s, args.chance, random.Random(_SEED))  # noqa: S311 - nothing secret
    for spec, pool in plan.pools.items():
        if pool.size.target > MOST_PAIRS:
            raise PlanError(f"{spec} needs a pool of {pool.size.target} pairs, and {MOST_PAIRS} is the most")
    _show(plan, trial, cost_s, args)
    if exceeded := trial.exceeds(args.chance):
        raise PlanError(
            f"tried out in a simulation, {', '.join(exceeded)} found no pair more often than "
            f"{args.chance:g}: plan for more cores"
        )
    return 0


# --- arguments


def parse_needs(rates: Sequence[str], bursts: Sequence[str]) -> dict[str, Need]:
    """By spec, in the order of the arguments. Raises ``UsageError``."""
    by_rate = {spec: _rate(text) for spec, text in _by_spec("--rate", rates).items()}
    by_burst = {spec: _burst(text) for spec, text in _by_spec("--burst", bursts).items()}
    needs = {spec: Need(by_rate.get(spec, 0.0), by_burst.get(spec, 0)) for spec in by_rate | by_burst}
    if not needs:
        raise UsageError("say what will be asked for: --rate SPEC=N/s, --burst SPEC=N")
    return needs


def _by_spec(option: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        spec, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{option} {text}: must be SPEC=N")
        if spec not in MAKEABLE:
            raise UsageError(f"{option} {text}: SPEC must be one of {', '.join(MAKEABLE)}")
        if spec in found:
            raise UsageError(f"{option} {spec}=...: the spec is given twice")
        found[spec] = value
    return found


def _rate(text: str) -> float:
    number, slash, unit = text.partition("/")
    try:
        rate = float(number) / _UNITS_S[unit]
    except (ValueError, KeyError):
        rate = 0.0
    if not slash or not 0 < rate < float("inf"):
        raise UsageError(f"--rate {text}: must be a number above 0 with /s, /min or /h, as in 5/s")
    return rate


def _burst(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_PAIRS):
        raise UsageError(f"--burst {text}: must be a number of requests from 1 to {MOST_PAIRS}")
    return int(text)


def _cores(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_CORES):
        raise argparse.ArgumentTypeError(f"must be from 1 to {MOST_CORES}")
    return int(text)


def _chance(text: str) -> float:
    value = float(text)
    if not 1e-9 <= value <= 0.5:
        raise argparse.ArgumentTypeError("must be from 1e-9 to 0.5")
    return value


# --- the answer


def _choose_cores(needs: Mapping[str, Need], cost_s: Mapping[str, float], given: int | None) -> int:
    usual = cores_for(needs, cost_s)
    if given is None:
        if usual > MOST_CORES:
            raise PlanError(f"this needs {usual} cores: no machine of up to {MOST_CORES} will do")
        return usual
    least = cores_for(needs, cost_s, HIGHEST_USE)
    if given < least:
        raise PlanError(
            f"{_number(given, 'core')} cannot keep up, whatever the pools hold: it takes {least} at least, "
            f"better {usual}"
        )
    return given


def _measured(spec: str) -> float:
    """CPU seconds for a pair of this spec, made and checked here."""
    from kpcache.worker.checks import check
    from kpcache.worker.generate import generate, reseeder

    complain(f"measuring {spec}")
    reseed, count, begun = reseeder(), 0, time.process_time()
    while count < _MEASURE_KEYS or time.process_time() - begun < _MEASURE_S:
        if reseed is not None:
            reseed()
        check(spec, *generate(spec))
        count += 1
    return (time.process_time() - begun) / count


def _show(plan: Plan, trial: Trial, cost_s: Mapping[str, float], args: argparse.Namespace) -> None:
    with to_stdout():
        if args.json:
            print(as_json(_as_mapping(plan, trial, cost_s, args.chance)))
            return
        from kpcache.cli.tables import console_for

        console = console_for(sys.stdout)
        console.print(_headline(plan))
        console.print(_table(plan, trial))
        print()
        print(toml(plan), end="")


def _headline(plan: Plan) -> str:
    cores = _number(plan.cores, "core")
    line = f"{cores}: the rates take {100 * plan.use:.0f} % of their time"
    if plan.use > USUAL_USE:
        line += ", which leaves little"
    if plan.again_s:
        line += f"; full again {_span(plan.again_s)} after a burst"
    return line


def _table(plan: Plan, trial: Trial) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("POOL")
    for name in ("RATE", "BURST", "TARGET", "LOW WATER", "MEMORY", "TO FILL", "DRY WHEN SIMULATED"):
        table.add_column(name, justify="right")
    for spec, pool in plan.pools.items():
        table.add_row(
            spec,
            f"{pool.need.rate:g}/s",
            str(pool.need.burst),
            str(pool.size.target),
            str(pool.size.low_water),
            f"{-(-pool.memory_bytes // 1024)} KiB",
            _span(pool.fill_s),
            f"{trial.dry[spec]} of {trial.asked[spec]}",
        )
    return table


def toml(plan: Plan) -> str:
    """The pools' tables for the configuration."""
    return "\n".join(
        f"[pools.{spec}]\ntarget = {pool.size.target}\nlow_water = {pool.size.low_water}\n"
        for spec, pool in plan.pools.items()
    )


def _as_mapping(plan: Plan, trial: Trial, cost_s: Mapping[str, float], chance: float) -> dict[str, Any]:
    return {
        "cores": plan.cores,
        "use": plan.use,
        "chance": chance,
        "full_again_s": plan.again_s,
        "pools": {
            spec: {
                "rate_per_s": pool.need.rate,
                "burst": pool.need.burst,
                "cost_s": cost_s[spec],
                "target": pool.size.target,
                "low_water": pool.size.low_water,
                "memory_bytes": pool.memory_bytes,
                "fill_s": pool.fill_s,
                "simulated": {"requests": trial.asked[spec], "dry": trial.dry[spec]},
            }
            for spec, pool in plan.pools.items()
        },
    }


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _span(seconds: float) -> str:
    from kpcache.cli.tables import duration

    return duration(seconds) if seconds >= 1 else f"{seconds:.2g} s"
