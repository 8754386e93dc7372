"""The curves of a training as one SVG picture that needs nothing else: no script, no font, no file beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from safer_instruct.training.log import series

Points = Sequence[tuple[float, float]]
_WIDTH, _HEIGHT, _GAP, _LEFT, _TOP = 330, 200, 28, 52, 40
_TRAINING, _HELD_OUT, _CHOSEN, _REJECTED = "#9aa5b1", "#1f5fa8", "#2a7f4f", "#b3452c"


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: its name in the legend, its colour, its points, and whether each point is marked."""

    name: str
    colour: str
    points: Points
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture's part: what it shows, and its curves."""

    title: str
    lines: tuple[Line, ...]


def panels(lines: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """What a training's log has to show: the loss, and for preferences margin, accuracy and how far the model has moved."""

    def both(name: str) -> tuple[Line, ...]:
        return Line("training", _TRAINING, series(lines, name, held_out=False)), Line("held out", _HELD_OUT, series(lines, name, held_out=True), True)

    def sides(figure: str) -> tuple[Line, ...]:
        names = (("chosen", _CHOSEN), ("rejected", _REJECTED))
        return tuple(Line(side, colour, series(lines, f"{side}_{figure}", held_out=True), True) for side, colour in names)

    found = [
        Panel("loss", both("loss")),
        Panel("reward margin", both("margin")),
        Panel("reward accuracy", both("accuracy")),
        Panel("drift: log p now - at start, nats per token", sides("drift")),
        Panel("KL from the start, nats per token", (Line("held out", _HELD_OUT, series(lines, "kl", held_out=True), True),)),
        Panel("held-out log p of a response, nats", sides("logp")),
        Panel("learning rate", (Line("training", _TRAINING, series(lines, "learning_rate", held_out=False)),)),
    ]
    kept = ((p.title, tuple(line for line in p.lines if line.points)) for p in found)
    return [Panel(title, drawn) for title, drawn in kept if drawn]


def draw(title: str, shown: Sequence[Panel], *, columns: int = 3) -> str:
    """An SVG of `shown`, in rows of `columns`; `title` says what was trained."""
    columns = min(columns, max(1, len(shown)))
    width, height = columns * (_WIDTH + _GAP) + _GAP, _TOP + math.ceil(len(shown) / columns) * (_HEIGHT + _GAP)
    body = "".join(_panel(p, _GAP + (i % columns) * (_WIDTH + _GAP), _TOP + (i // columns) * (_HEIGHT + _GAP)) for i, p in enumerate(shown))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="#333"><title>{escape(title)}</title><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{_GAP}" y="24" font-size="15" font-weight="bold">{escape(title)}</text>{body}</svg>\n'
    )


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _panel(panel: Panel, x: int, y: int) -> str:
    points = [(px, py) for line in panel.lines for px, py in line.points if math.isfinite(py)]
    if not points:
        return ""
    (x0, x1), (y0, y1) = _range([p[0] for p in points]), _range([p[1] for p in points])
    wide, high = _WIDTH - _LEFT - 6, _HEIGHT - 48

    def place(px: float, py: float) -> tuple[float, float]:
        return x + _LEFT + (px - x0) / (x1 - x0) * wide, y + 18 + high - (py - y0) / (y1 - y0) * high

    parts = [f'<text x="{x}" y="{y + 8}" font-weight="bold">{escape(panel.title)}</text>']
    for value in ticks(y0, y1):
        _, at = place(x0, value)
        parts.append(
            f'<path d="M{x + _LEFT} {at:.1f}h{wide}" stroke="#e4e7eb"/><text x="{x + _LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{value:.4g}</text>'
        )
    for value in ticks(x0, x1):
        at, _ = place(value, y0)
        parts.append(f'<text x="{at:.1f}" y="{y + high + 32}" text-anchor="middle">{value:.4g}</text>')
    for number, line in enumerate(panel.lines):
        parts.append(_curve(line, [place(px, py) for px, py in line.points if math.isfinite(py)]))
        if len(panel.lines) > 1:
            parts.append(f'<text x="{x + _LEFT + number * 70}" y="{y + _HEIGHT - 2}" fill="{line.colour}">{escape(line.name)}</text>')
    parts.append(f'<text x="{x + _WIDTH - 6}" y="{y + _HEIGHT - 2}" text-anchor="end">step</text>')
    return "".join(parts)


def _curve(line: Line, points: Sequence[tuple[float, float]]) -> str:
    path = f'<polyline points="{" ".join(f"{px:.1f},{py:.1f}" for px, py in points)}" fill="none" stroke="{line.colour}" stroke-width="1.5"/>'
    marks = "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.5" fill="{line.colour}"/>' for px, py in points)
    return path + (marks if line.marked or len(points) == 1 else "")


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Least and largest, apart by a little where they are the same."""
    low, high = min(values), max(values)
    spread = (high - low) or max(abs(high), 1.0) * 0.1
    return (low, high) if high > low else (low - spread / 2, high + spread / 2)
