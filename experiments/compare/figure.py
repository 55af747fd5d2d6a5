"""The rows of a comparison as a figure: balanced accuracy with its interval over lesions."""

from __future__ import annotations

from html import escape

from callbacks.console import decimals
from experiments.compare.comparison import Comparison
from experiments.compare.rows import Row

LEFT, PLOT, RIGHT = 150, 420, 60  # pixels of names, plot and numbers
ROW, TOP, BOTTOM = 22, 12, 44
STYLE = """
text { font: 13px sans-serif; fill: #333 } .tick { font-size: 11px; fill: #777 }
.grid { stroke: #ddd } .baseline { stroke: #777; stroke-dasharray: 4 3 }
.interval { stroke: #00897b; stroke-width: 3 } circle { fill: #00695c }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .tick { fill: #aaa } .grid { stroke: #444 } circle { fill: #4db6ac }
}
"""


def figure(comparison: Comparison) -> str:
    """SVG of the rows, best first, with a dashed line at the baseline.

    Each row has a point at its mean over the seeds and a line for its 95 % interval over lesions.
    """
    rows = comparison.rows
    height = TOP + ROW * len(rows)
    ticks = [tenth / 10 for tenth in range(0, 11, 2)]
    parts = [_tick(tick, height) for tick in ticks]
    if base := next((row for row in rows if row.name == comparison.baseline), None):
        parts.append(_vertical("baseline", _mean(base), height))
    parts += [_row(row, TOP + ROW * (i + 0.5)) for i, row in enumerate(rows)]
    title = (
        f'<text x="{_x(0.5):.0f}" y="{height + 36}" text-anchor="middle">balanced accuracy</text>'
    )
    width = LEFT + PLOT + RIGHT
    view = f'viewBox="0 0 {width} {height + BOTTOM}" width="{width}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {view}>',
            f"<style>{STYLE}</style>",
            *parts,
            title,
            "</svg>\n",
        ]
    )


def _row(row: Row, y: float) -> str:
    mean, interval = _mean(row), row.metrics["balanced_accuracy"].lesions
    low, high = interval or (mean, mean)
    return (
        f'<text x="{LEFT - 10}" y="{y + 4:.0f}" text-anchor="end">{escape(row.name)}</text>'
        f'<line class="interval" x1="{_x(low):.1f}" x2="{_x(high):.1f}" y1="{y:.0f}" y2="{y:.0f}"/>'
        f'<circle cx="{_x(mean):.1f}" cy="{y:.0f}" r="4.5"/>'
        f'<text x="{LEFT + PLOT + 10}" y="{y + 4:.0f}">{decimals(mean)}</text>'
    )


def _tick(value: float, height: int) -> str:
    label = f'<text class="tick" x="{_x(value):.0f}" y="{height + 16}" text-anchor="middle">'
    return _vertical("grid", value, height) + f"{label}{decimals(value, 1)}</text>"


def _vertical(kind: str, value: float, height: int) -> str:
    x = f"{_x(value):.1f}"
    return f'<line class="{kind}" x1="{x}" x2="{x}" y1="{TOP}" y2="{height}"/>'


def _x(value: float) -> float:
    return LEFT + PLOT * value


def _mean(row: Row) -> float:
    return row.metrics["balanced_accuracy"].mean
