"""How long prompts, chosen and rejected responses are, and how far the two responses differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safer_instruct.report.document import Figure, Section, Table
from safer_instruct.report.gather import RunView

_BINS = 24
_NAMES = {"prompt": "Prompts", "chosen": "Chosen responses", "rejected": "Rejected responses"}


def lengths(views: Sequence[RunView]) -> Section:
    """A histogram of each, in words, and one of the gap."""
    figures = [_figure(f"length-{name}", title, [view.words[name] for view in views], views, name) for name, title in _NAMES.items()]
    figures.append(_figure("length-gap", "Chosen minus rejected", [_gaps(view) for view in views], views, "gap"))
    intro = "In words, as white space separates them. A preference set whose chosen side is always longer teaches length."
    return Section("lengths", "Lengths", intro, tuple(figures))


def histogram(values: Sequence[Any], edges: Any) -> list[float]:
    """Percent of the values in each bin; what lies outside counts in the first and the last."""
    import numpy as np

    if not len(values):
        return [0.0] * (len(edges) - 1)
    counts, _ = np.histogram(np.clip(np.asarray(values, np.float64), edges[0], edges[-1]), edges)
    return [round(100 * float(n) / len(values), 3) for n in counts]


def spread(values: Sequence[Any]) -> tuple[float, float, float, float]:
    """10th percentile, median, mean, 90th percentile; zeros where there is nothing."""
    import numpy as np

    if not len(values):
        return 0.0, 0.0, 0.0, 0.0
    low, middle, high = np.percentile(np.asarray(values, np.float64), [10, 50, 90])
    return float(low), float(middle), float(np.mean(values)), float(high)


def _gaps(view: RunView) -> Any:
    import numpy as np

    return np.asarray(view.words["chosen"], np.int64) - np.asarray(view.words["rejected"], np.int64)


def _edges(columns: Sequence[Sequence[Any]]) -> list[int]:
    """Whole numbers, evenly apart, over all but the outermost of the values."""
    import numpy as np

    everything = np.concatenate([np.asarray(column, np.float64) for column in columns] or [np.zeros(1)])
    if not len(everything):
        return [0, 1]
    low, high = np.floor(np.percentile(everything, 0.5)), np.ceil(np.percentile(everything, 99.5)) + 1
    step = max(1, int(np.ceil((high - low) / _BINS)))
    return list(range(int(low), int(high) + step, step))


def _figure(id_: str, title: str, columns: Sequence[Sequence[Any]], views: Sequence[RunView], color: str) -> Figure:
    edges = _edges(columns)
    series = [{"name": view.name, "values": histogram(column, edges), "color": color} for view, column in zip(views, columns, strict=True)]
    told = [f"{view.name}: {_told(column, color)}" if len(views) > 1 else _told(column, color) for view, column in zip(views, columns, strict=True)]
    rows = [(f"{low} to {high - 1}" if high - low > 1 else str(low), *(s["values"][i] for s in series)) for i, (low, high) in enumerate(zip(edges, edges[1:], strict=False))]
    table = Table("", ("words", *(f"{view.name}, % of pairs" for view in views)), tuple(rows))
    data = {"edges": edges, "series": series, "x": "words", "y": "% of pairs", "marks": [{"at": 0, "name": "equal"}] if color == "gap" else []}
    return Figure(id_, title, " ".join(f"{sentence}." for sentence in told), "histogram", data, table)


def _told(values: Sequence[Any], color: str) -> str:
    low, middle, mean, high = spread(values)
    said = f"median {middle:,.0f} words, mean {mean:,.1f}, four fifths between {low:,.0f} and {high:,.0f}"
    if color == "gap" and len(values):
        said += f"; the chosen one is the longer in {sum(1 for v in values if v > 0) / len(values):.0%}"
    return said
