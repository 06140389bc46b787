"""A picture of a simulated load, as SVG text: for each rule how full the pools were, and who waited.

Colours follow the reader's light or dark setting where the picture is shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from kpcache.simulator.engine import Run
from kpcache.simulator.loads import Load
from kpcache.simulator.world import Ending

SAMPLES = 300  # levels noted in a run
_MOST_DOTS = 1500
_WIDTH, _LEFT, _RIGHT, _TOP = 900, 60, 20, 50
_LEVEL_HEIGHT, _WAIT_HEIGHT, _GAP = 110, 80, 34
_STYLE = """
svg { background: #ffffff; font: 12px sans-serif; }
text { fill: #24292f; } .axis { stroke: #8c959f; } .unserved { fill: #cf222e; } .waited { fill: #57606a; }
.s0 { stroke: #0969da; } .s1 { stroke: #bf8700; } .s2 { stroke: #8250df; } .s3 { stroke: #1a7f37; }
polyline { fill: none; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; } text { fill: #e6edf3; } .axis { stroke: #6e7681; }
.unserved { fill: #ff7b72; } .waited { fill: #9da7b3; }
.s0 { stroke: #58a6ff; } .s1 { stroke: #d29922; } .s2 { stroke: #bc8cff; } .s3 { stroke: #3fb950; }
}
"""


@dataclass(frozen=True)
class Trace:
    """``levels``: by spec its pairs at hand as a part of its target, at even times. ``waits``: when somebody
    asked who was not given a pair at once, for how long it waited, and whether in vain."""

    duration_s: float
    levels: Mapping[str, Sequence[float]]
    waits: Sequence[tuple[float, float, bool]]


def trace(load: Load, run: Run) -> Trace:
    """What there is to draw of a run, thinned to what can be seen."""
    waits = [
        (each.at_s, each.ended_s - each.at_s, each.ending is not Ending.GIVEN)
        for each in run.requests
        if not each.found
    ]
    levels = {
        spec: [counts[place] / max(size.target, 1) for _, counts in run.levels]
        for place, (spec, size) in enumerate(load.pools.items())
    }
    return Trace(load.duration_s, levels, waits[:: -(-len(waits) // _MOST_DOTS) or 1])


def draw(title: str, arms: Mapping[str, Trace]) -> str:
    """The picture."""
    each = _LEVEL_HEIGHT + _WAIT_HEIGHT + 2 * _GAP
    height = _TOP + each * len(arms) + 10
    longest = max((wait for arm in arms.values() for _, wait, _ in arm.waits), default=0.0) or 1.0
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
        *_legend(next(iter(arms.values()))),
    ]
    for number, (arm, traced) in enumerate(arms.items()):
        lines += _panels(arm, traced, _TOP + number * each + _GAP, longest)
    return "\n".join([*lines, "</svg>\n"])


def _legend(traced: Trace) -> Iterator[str]:
    x = _LEFT
    for number, spec in enumerate(traced.levels):
        yield f'<line class="s{number}" x1="{x}" x2="{x + 18}" y1="38" y2="38" stroke-width="2"/>'
        yield f'<text x="{x + 24}" y="42">{escape(spec)}</text>'
        x += 140
    yield f'<circle class="waited" cx="{x}" cy="38" r="2"/><text x="{x + 8}" y="42">waited</text>'
    yield f'<circle class="unserved" cx="{x + 80}" cy="38" r="2"/><text x="{x + 88}" y="42">in vain</text>'


def _panels(arm: str, traced: Trace, top: int, longest: float) -> Iterator[str]:
    """Levels above, waits below, over the same time."""
    bottom = top + _LEVEL_HEIGHT
    yield f'<text x="{_LEFT}" y="{top - 8}">{escape(arm)}: pairs at hand, of target</text>'
    yield from _axes(top, _LEVEL_HEIGHT, "100 %", "0")
    for number, values in enumerate(traced.levels.values()):
        points = " ".join(
            f"{_x(place / max(len(values), 1)):.1f},{bottom - _LEVEL_HEIGHT * min(value, 1.0):.1f}"
            for place, value in enumerate(values)
        )
        yield f'<polyline class="s{number}" points="{points}"/>'
    top, bottom = bottom + _GAP, bottom + _GAP + _WAIT_HEIGHT
    yield f'<text x="{_LEFT}" y="{top - 8}">waits</text>'
    yield from _axes(top, _WAIT_HEIGHT, f"{longest:.3g} s", "0")
    for at_s, wait_s, in_vain in traced.waits:
        kind = "unserved" if in_vain else "waited"
        y = bottom - _WAIT_HEIGHT * wait_s / longest
        yield f'<circle class="{kind}" cx="{_x(at_s / traced.duration_s):.1f}" cy="{y:.1f}" r="1.2"/>'


def _axes(top: int, height: int, highest: str, lowest: str) -> Iterator[str]:
    right, bottom = _WIDTH - _RIGHT, top + height
    yield f'<path class="axis" fill="none" d="M{_LEFT} {top}V{bottom}H{right}"/>'
    for text, y in ((highest, top + 4), (lowest, bottom + 4)):
        yield f'<text x="{_LEFT - 6}" y="{y}" text-anchor="end">{text}</text>'


def _x(part: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * part
