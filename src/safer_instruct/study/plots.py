"""Estimates with their error bars as one SVG picture that needs nothing else, as `training/curves.py` draws curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from safer_instruct.analysis.bootstrap import Interval
from safer_instruct.training.curves import ticks

_WIDTH, _ROW, _LEFT, _TOP, _GAP = 380, 26, 150, 58, 36
_POINT, _EVEN, _SEED = "#1f5fa8", "#b3452c", "#9aa5b1"


@dataclass(frozen=True, slots=True)
class Bar:
    """One estimate: its name, its interval, and what each seed gives, as small points behind it."""

    name: str
    value: Interval
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture's part: what is shown, and where a line says that nothing is better than anything."""

    title: str
    bars: tuple[Bar, ...]
    even: float | None = None


def draw(title: str, panels: Sequence[Panel], note: str) -> str:
    """An SVG of `panels` beside each other; `note` stands below."""
    rows = max((len(panel.bars) for panel in panels), default=0)
    width, height = len(panels) * (_LEFT + _WIDTH + _GAP) + _GAP, _TOP + rows * _ROW + 64
    body = "".join(_panel(panel, _GAP + at * (_LEFT + _WIDTH + _GAP)) for at, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12" fill="#333"><title>{escape(title)}</title><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{_GAP}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>{body}'
        f'<text x="{_GAP}" y="{height - 12}" fill="#666">{escape(note)}</text></svg>\n'
    )


def _panel(panel: Panel, x: int) -> str:
    known = [v for bar in panel.bars for v in (bar.value.low, bar.value.high, *bar.seeds)] + ([panel.even] if panel.even is not None else [])
    low, high = min(known, default=0.0), max(known, default=1.0)
    spare = (high - low or 1.0) * 0.05
    low, high = low - spare, high + spare
    bottom = _TOP + len(panel.bars) * _ROW

    def place(value: float) -> float:
        return x + _LEFT + (value - low) / (high - low) * _WIDTH

    parts = [f'<text x="{x + _LEFT}" y="{_TOP - 14}" font-weight="bold">{escape(panel.title)}</text>']
    for value in ticks(low, high, 5):
        parts.append(f'<path d="M{place(value):.1f} {_TOP}V{bottom}" stroke="#e4e7eb"/>')
        parts.append(f'<text x="{place(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:.3g}</text>')
    if panel.even is not None:
        parts.append(f'<path d="M{place(panel.even):.1f} {_TOP}V{bottom}" stroke="{_EVEN}" stroke-dasharray="4 3"/>')
    for at, bar in enumerate(panel.bars):
        y = _TOP + at * _ROW + _ROW // 2
        parts.append(f'<text x="{x + _LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(bar.name)}</text>')
        parts += [f'<circle cx="{place(value):.1f}" cy="{y + 6}" r="2" fill="{_SEED}"/>' for value in bar.seeds if len(bar.seeds) > 1]
        parts.append(f'<path d="M{place(bar.value.low):.1f} {y}H{place(bar.value.high):.1f}" stroke="{_POINT}" stroke-width="2"/>')
        parts.append(f'<circle cx="{place(bar.value.estimate):.1f}" cy="{y}" r="4" fill="{_POINT}"/>')
    return "".join(parts)
