"""What a run has found: figures, violations, and what makes it prove nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.abuse.records import Proof, Violation
from bench.report import in_unit


@dataclass(frozen=True, slots=True)
class Figure:
    """``limit``: what it must be below; None for one that is only told."""

    name: str
    value: float
    unit: str = ""
    limit: float | None = None

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        return "met" if self.value < self.limit else "missed"


@dataclass(slots=True)
class Outcome:
    """One run's. ``void``: why it proves nothing; ``not_run``: what could not be tried here, and why."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)

    def figure(self, name: str, value: float, unit: str = "", limit: float | None = None) -> None:
        self.figures.append(Figure(name, value, unit, limit))

    def require(self, condition: bool, rule: str, evidence: str) -> None:
        """A violation, if it does not hold."""
        if not condition:
            self.violations.append(Violation(rule, evidence))

    def add(self, proof: Proof) -> None:
        """What a trial proved."""
        self.violations += proof.violations
        self.figure("pairs given out", proof.issued)
        self.figure("of them opened again from their blobs", proof.opened)
        self.figure("refused", proof.refused.total())
        self.figure("pairs in the ledger", proof.recorded)
        self.figure("given out twice", sum(violation.rule == "twice" for violation in proof.violations))
        self.detail["refused"] = dict(proof.refused)


def exit_code(outcomes: Mapping[str, Outcome]) -> int:
    """0 all proved, 1 a violation, 3 void: what a run would have found it cannot find."""
    if any(outcome.violations for outcome in outcomes.values()):
        return 1
    return 3 if any(outcome.void for outcome in outcomes.values()) else 0


def show(console: Console, outcomes: Mapping[str, Outcome], machine: Mapping[str, str]) -> None:
    table = Table(title="kpcache abused", title_justify="left", header_style="bold", pad_edge=False)
    for heading in ("run", "figure", "value", "verdict"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for name, outcome in outcomes.items():
        for figure in outcome.figures:
            limit = "" if figure.limit is None else f" (below {in_unit(figure.limit, figure.unit)})"
            table.add_row(name, figure.name, _value(figure), f"{figure.verdict}{limit}")
        table.add_row(name, "[bold]proved[/]" if not _faults(outcome) else "[red]NOT PROVED[/]")
        table.add_section()
    console.print(table)
    for name, outcome in outcomes.items():
        for line in (*_faults(outcome), *(f"NOT RUN: {why}" for why in outcome.not_run)):
            console.print(f"{name}: {escape(line)}", highlight=False)
    console.print("machine: " + ", ".join(machine.values()), highlight=False)


def _value(figure: Figure) -> str:
    if not figure.unit:
        return f"{figure.value:,.0f}"
    return in_unit(figure.value, figure.unit) if figure.value >= 0 else f"{figure.value:.3g} {figure.unit}"


def _faults(outcome: Outcome) -> list[str]:
    return [
        *(f"VIOLATION, {violation.rule}: {violation.evidence}" for violation in outcome.violations),
        *(f"VOID: {why}" for why in outcome.void),
    ]


def as_dict(
    outcomes: Mapping[str, Outcome], machine: Mapping[str, str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures, by run; times in seconds."""
    return {
        name: {
            "proved": not (outcome.violations or outcome.void),
            "figures": [
                {"name": figure.name, "value": figure.value, "unit": figure.unit, "verdict": figure.verdict}
                | ({} if figure.limit is None else {"below": figure.limit})
                for figure in outcome.figures
            ],
            "violations": [violation._asdict() for violation in outcome.violations],
            "void": outcome.void,
            "not_run": outcome.not_run,
            "detail": outcome.detail,
            "machine": machine,
            "settings": settings,
        }
        for name, outcome in outcomes.items()
    }
