"""Rows: one comparison each, shown as one table for people and as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.stats import Interval

_COLOURS = {"met": "green", "missed": "red", "undecided": "yellow"}
_SCALES = ((1.0, "s"), (1e3, "ms"), (1e6, "µs"))


@dataclass(frozen=True)
class Row:
    """One line: what was measured, what it is held against, and what follows.

    ``value`` and ``other`` are in ``unit`` ("s" is shown as ms or µs). ``ratio`` is value over other with
    its 95 % interval, ``control`` the same for two identical things: the noise. ``limit`` says in words
    what the verdict "met" or "missed" is about.
    """

    part: str
    measure: str
    value: float
    unit: str
    against: str = ""
    other: float | None = None
    ratio: Interval | None = None
    control: Interval | None = None
    limit: str = ""
    verdict: str = ""


@dataclass
class Result:
    """What a part has found. ``detail`` goes to the JSON alone; ``notes`` are said below the table."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)


def show(console: Console, results: Mapping[str, Result], machine: Mapping[str, Any]) -> None:
    """The table, its notes, the machine."""
    table = Table(title="kpcache bench", title_justify="left", header_style="bold", pad_edge=False)
    for heading in ("measure", "kpcache", "against", "ratio", "95 %", "same twice", "verdict"):
        # Words may wrap; a figure that is cut short would be another figure.
        is_figure = heading in ("kpcache", "ratio", "95 %", "same twice")
        table.add_column(heading, justify="right" if is_figure else "left", no_wrap=is_figure)
    for result in results.values():
        for row in result.rows:
            table.add_row(*_cells(row))
        table.add_section()
    console.print(table)
    for part, result in results.items():
        for note in result.notes:
            console.print(f"{part}: {note}", highlight=False)
    console.print("machine: " + ", ".join(str(value) for value in machine.values()), highlight=False)


def _cells(row: Row) -> Sequence[str]:
    against = row.against
    if row.other is not None:
        against = f"{against} {in_unit(row.other, row.unit)}"
    verdict = f"{row.verdict} ({row.limit})" if row.limit else row.verdict
    colour = _COLOURS.get(row.verdict)
    return (
        row.measure.replace("ECC_NIST_", ""),  # half the table's width otherwise
        in_unit(row.value, row.unit),
        against.strip(),
        f"{row.ratio.value:.3f}" if row.ratio else "",
        str(row.ratio) if row.ratio else "",
        str(row.control) if row.control else "",
        f"[{colour}]{verdict}[/]" if colour else verdict,
    )


def in_unit(value: float, unit: str) -> str:
    """A figure with its unit and two or three digits; seconds at the scale that suits them."""
    if unit == "s":
        factor, unit = next((scale for scale in _SCALES if value * scale[0] >= 1), _SCALES[-1])
        value *= factor
    digits = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits if value >= 0.01 or not value else 'under 0.01'} {unit}"


def as_json(results: Mapping[str, Result], machine: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """All figures; times in seconds."""
    parts = {
        part: {
            "rows": [asdict(row) for row in result.rows],
            "notes": result.notes,
            "detail": result.detail,
        }
        for part, result in results.items()
    }
    return json.dumps({"machine": machine, "settings": settings, "parts": parts}, indent=2, default=asdict)
