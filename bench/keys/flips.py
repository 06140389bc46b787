"""How many damages of served pairs kpcache's own check finds: all of them, or it is worth nothing."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from time import process_time

from bench.keys.damage import Damaged, flips, others, unbound_bits
from bench.keys.served import Served, pairs
from bench.nest import Nest
from bench.progress import Display
from bench.report import Result, Row
from bench.run import CPUS
from kpcache.core.specs import MAKEABLE
from kpcache.worker.checks import check
from kpcache.worker.generate import generate


@dataclass
class Found:
    """Of one pair or many. ``missed`` names encodings and bits; nothing here is of any key's bytes."""

    keys: int = 0
    flips: int = 0
    others: int = 0
    unbound_bits: int = 0
    cpu_s: float = 0.0
    refused_whole: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, more: "Found") -> None:
        self.keys += more.keys
        self.flips += more.flips
        self.others += more.others
        self.unbound_bits += more.unbound_bits
        self.cpu_s += more.cpu_s
        self.refused_whole += more.refused_whole
        self.missed += more.missed
        self.reasons += more.reasons

    def judge(self, spec: str, damaged: Damaged) -> None:
        """Have the check look at one damaged pair."""
        name, private, public = damaged
        if reason := check(spec, private, public):
            self.reasons[reason] += 1
        else:
            self.missed.append(name)


def study(pair: Served, foreign: Served, unlike: Served) -> Found:
    """Every damage of one pair; see ``damage.others`` for the two other pairs."""
    found, started = Found(keys=1, unbound_bits=unbound_bits(pair.spec)), process_time()
    if reason := check(*pair):
        found.refused_whole.append(reason)
    for damaged in flips(pair):
        found.judge(pair.spec, damaged)
        found.flips += 1
    for damaged in others(pair, foreign, unlike):
        found.judge(pair.spec, damaged)
        found.others += 1
    found.cpu_s = process_time() - started
    return found


def measure(home: Nest, wanted: Mapping[str, int], display: Display) -> tuple[Result, bool]:
    """The part, and whether everything was found. One pair more of each spec is taken: another's."""
    served: dict[str, list[Served]] = {spec: [] for spec in wanted}
    total = sum(wanted.values())
    with display.step("flips: taking pairs", total + len(wanted)) as step:
        for pair in pairs(home, {spec: count + 1 for spec, count in wanted.items()}):
            served[pair.spec].append(pair)
            step.advance()
    found = {spec: Found() for spec in wanted}
    with (
        ProcessPoolExecutor(CPUS, get_context("spawn")) as pool,
        display.step("flips: judging", total) as step,
    ):
        for spec, future in _submitted(pool, served):
            found[spec].add(future.result())
            step.advance()
    return _report(found), not any(each.missed or each.refused_whole for each in found.values())


def _submitted(
    pool: ProcessPoolExecutor, served: Mapping[str, list[Served]]
) -> list[tuple[str, "Future[Found]"]]:
    return [
        (spec, pool.submit(study, pair, foreign, unlike))
        for spec, (*judged, foreign) in served.items()
        for unlike in [_unlike(spec)]
        for pair in judged
    ]


def _unlike(spec: str) -> Served:
    """A pair of another spec, of the same family where there is one behind it in the table."""
    other = MAKEABLE[(MAKEABLE.index(spec) + 1) % len(MAKEABLE)]
    return Served(other, *generate(other))


def _report(found: Mapping[str, Found]) -> Result:
    result = Result()
    for spec, each in found.items():
        result.rows += (
            _row(f"{spec}: flipped bits", each.flips, "bit", each.missed),
            _row(f"{spec}: other damages", each.others, "bit", each.missed, but=True),
        )
        result.detail[spec] = {**vars(each), "reasons": dict(each.reasons)}
        if each.unbound_bits:
            result.notes.append(
                f"{spec}: {each.unbound_bits // each.keys} bits of each key are z of FIPS 203, of which "
                "every value is as sound; they are left out"
            )
        result.notes += [f"{spec}: a served pair was refused: {reason}" for reason in each.refused_whole]
        result.notes += [f"{spec}: NOT FOUND: {name}" for name in each.missed[:20]]
    return result


def _row(measure: str, tried: int, kind: str, missed: list[str], *, but: bool = False) -> Row:
    """How many were found, of how many that ``kind`` names (or, with ``but``, does not)."""
    count = sum((f" {kind} " in name) != but for name in missed)
    return Row(
        "flips", measure, tried - count, "found", "of", float(tried),
        limit="all", verdict="missed" if count else "met",
    )  # fmt: skip
