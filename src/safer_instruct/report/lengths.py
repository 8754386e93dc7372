"""How long prompts, chosen and rejected responses are, and how far the two responses differ."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from safer_instruct.report.bins import histogram, round_edges, spread
from safer_instruct.report.document import Figure, Section, Table
from safer_instruct.report.gather import RunView

_BINS = 24
_NAMES = {"prompt": "Prompts", "chosen": "Chosen responses", "rejected": "Rejected responses"}


def lengths(views: Sequence[RunView]) -> Section:
    """A histogram of each, in words, and one of the gap."""
    figures = [_figure(f"length-{name}", title, [view.words[name] for view in views], views, name) for name, title in _NAMES.items()]
    figures.append(_figure("length-gap", "Chosen minus rejected", [_gaps(view) for view in views], views, "gap"))
    intro = "In words; signs by themselves are none. A preference set whose chosen side is always longer teaches length."
    return Section("lengths", "Lengths", "Lengths", intro, tuple(figures))


def _gaps(view: RunView) -> Any:
    import numpy as np

    if len(view.words["chosen"]) != len(view.words["rejected"]):  # a dataset of others need not have both
        return np.zeros(0, np.int64)
    return np.asarray(view.words["chosen"], np.int64) - np.asarray(view.words["rejected"], np.int64)


def _figure(id_: str, title: str, columns: Sequence[Sequence[Any]], views: Sequence[RunView], color: str) -> Figure:
    views, columns = zip(*((view, column) for view, column in zip(views, columns, strict=True) if len(column) or view is views[0]), strict=True)
    edges = round_edges(columns, most=_BINS, whole=True)
    series: list[dict[str, Any]] = [
        {"name": view.name, "values": histogram(column, edges), "color": color, "beside": view is not views[0]}
        for view, column in zip(views, columns, strict=True)
    ]
    told = [
        f"{view.name}: {_told(column, color)}" if len(views) > 1 else _told(column, color).capitalize() for view, column in zip(views, columns, strict=True)
    ]
    rows = [(f"{low:g} to {high - 1:g}" if high - low > 1 else f"{low:g}", *(s["values"][i] for s in series)) for i, (low, high) in enumerate(pairwise(edges))]
    table = Table("", ("words", *(f"{view.name}, % of pairs" for view in views)), tuple(rows))
    data = {"edges": edges, "series": series, "x": "words", "y": "% of pairs", "marks": [{"at": 0, "name": "equal"}] if color == "gap" else []}
    return Figure(id_, title, " ".join(f"{sentence}." for sentence in told), "histogram", data, table)


def _told(values: Sequence[Any], color: str) -> str:
    low, middle, mean, high = spread(values)
    said = f"median {middle:,g} words, mean {mean:,.1f}, four fifths between {low:,.0f} and {high:,.0f}"
    if color == "gap" and len(values):
        said += f"; the chosen one is the longer in {sum(1 for v in values if v > 0) / len(values):.0%}"
    return said
