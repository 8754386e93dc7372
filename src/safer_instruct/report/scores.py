"""What the scoring checks measured, where their bounds lie, and how well labels say they separate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from safer_instruct import rundir
from safer_instruct.calibration.calibrate import CALIBRATION
from safer_instruct.calibration.labels import Label, Scored, digest, joined, of_texts, read_examples, read_labels
from safer_instruct.report.bins import histogram, round_edges, spread
from safer_instruct.report.document import Figure, Section, Table
from safer_instruct.report.gather import RunView
from safer_instruct.report.reviewed import labels_of_review
from safer_instruct.thresholds import KEYS, Calibration, load_calibration

_MOST_BINS = 40
_SHOWN = 12
_POINTS = 400  # of a precision-recall curve
_ABOUT = {
    "consistency": "What the prompt adds to the log-probability of the response, nats per token",
    "likelihood": "Log-probability that the inducer gives the prompt, nats",
    "verify.acceptable": "How far the chosen response keeps to the guideline",
    "verify.better": "How much better the chosen response is than the rejected one",
}


def scores(views: Sequence[RunView], labels: Path | None = None) -> Section:
    """A histogram per score, passed and failed apart; precision over recall where the first run has labels."""
    names = [name for name in views[0].scores if _varies(views[0], name)]
    names.sort(key=lambda name: (name not in _ABOUT, name))
    parts: list[Figure | Table] = [_figure(number, name, views) for number, name in enumerate(names[:_SHOWN])]
    calibration = calibration_of(views[0])
    if calibration:
        parts.append(_calibrated(calibration, used=uses(views[0], calibration)))
    file = labels or _labels_beside(views[0].path, calibration)
    examples = read_examples(views[0].path) if file or (views[0].path / rundir.REVIEW).is_file() else []
    given = read_labels(file) if file else labels_of_review(views[0], examples)
    said, source = of_texts(examples, given), file or views[0].path / rundir.REVIEW
    parts += _curves(examples, views[0], said, source)
    legend = "The line is the bound that the run was made with; what lies left of it was dropped."
    intro = "Each example counts once, with the candidate and the draft that it ended with; under Checks all of them count."
    if given:
        rest = len(given) - len(said)
        replaced = f"; {rest:,} more were left out, as the run no longer holds the texts that were read, so what is left is no fair sample of it."
        intro += f" Labels: {len(said):,} of {source.name}" + (replaced if rest else ".")
        if calibration and not (file and _rests_on(calibration, file)):
            intro += f" The calibration rests on others: the {calibration.labels['used']} that were there when it was made."
    else:
        intro += " Without labels nobody knows whether a bound lies well: read a sample ('safer-instruct review DIR') and make the report anew."
    return Section("scores", "Scores", "Scores and thresholds", intro, tuple(parts), legend=legend)


def _edges(columns: Sequence[Any], at: float | None) -> list[float]:
    """Edges for about as many bins as the values bear; finer ones where that puts the bound on an edge."""
    whole = all(bool((column == column.round()).all()) for column in columns)
    most = bins_for(max(map(len, columns)))
    finer = (round_edges(columns, most=factor * most, whole=whole) for factor in (1, 2, 4))
    coarse, *others = finer
    if at is None:
        return coarse
    return next((edges for edges in (coarse, *others) if any(abs(edge - at) < 1e-9 for edge in edges)), coarse)


def bins_for(count: int) -> int:
    """As many as Rice's rule says, 2 * n ** (1/3), so that a few values are no fence of single ones; at most forty."""
    return max(8, min(_MOST_BINS, round(2.0 * math.cbrt(count))))


def bound(config: dict[str, Any], name: str) -> float | None:
    """The config's bound for a score, None where it has none."""
    at: Any = config
    for key in KEYS.get(name, "").split("."):
        at = at.get(key) if isinstance(at, dict) else None
    return float(at) if isinstance(at, int | float) else None


def _varies(view: RunView, name: str) -> bool:
    both = view.scores[name]
    values = [*both.passed[:1000], *both.failed[:1000]]
    return bool(values) and min(values) < max(values)


def _figure(number: int, name: str, views: Sequence[RunView]) -> Figure:
    import numpy as np

    view = views[0]
    both = view.scores[name]
    columns = [np.concatenate([v.scores[name].passed, v.scores[name].failed]) for v in views if name in v.scores]
    at = bound(view.config, name)
    edges = _edges(columns, at)
    if at is not None and edges[0] >= at:
        edges.insert(0, round(2 * edges[0] - edges[1], 10))  # room to the left of the bound
    total = len(both.passed) + len(both.failed)
    series: list[dict[str, Any]] = []
    for label, values, color in (("passed", both.passed, "chosen"), ("failed", both.failed, "rejected")):
        if not values:
            continue
        series.append({"name": label, "values": histogram(values, edges, total), "color": color})
    for other in views[1:]:
        if name in other.scores:
            series.append(
                {"name": other.name, "values": histogram([*other.scores[name].passed, *other.scores[name].failed], edges), "color": "gap", "beside": True}
            )
    _, middle, _, _ = spread([*both.passed, *both.failed])
    about = f"{_ABOUT[name]}. " if name in _ABOUT else ""
    says = f"{about}{total:,} values, median {middle:.3g}; {len(both.failed):,} did not pass{f' the bound of {at:g}' if at is not None else ''}."
    rows = [(f"{a:g} to {b:g}", *(s["values"][i] for s in series)) for i, (a, b) in enumerate(pairwise(edges))]
    data = {
        "edges": edges,
        "series": series,
        "x": "",
        "y": "%",
        "stacked": True,
        "marks": [] if at is None else [{"at": at, "name": "bound"}],
    }
    return Figure(f"score-{number}", name, says, "histogram", data, Table("", ("value", *(f"{s['name']}, %" for s in series)), tuple(rows)))


def calibration_of(view: RunView) -> Calibration | None:
    """What `calibrate` wrote into the run directory, whether the run uses it or not.

    Raises:
        ConfigError: It is not valid.
    """
    file = view.path / CALIBRATION
    return load_calibration(file) if file.is_file() else None


def uses(view: RunView, calibration: Calibration) -> bool:
    """Whether the run was made with that calibration, and not without any or with another."""
    return view.summary.get("thresholds") == calibration.described


def _calibrated(calibration: Calibration, *, used: bool) -> Table:
    rows = []
    for name, found in calibration.scores.items():
        figures = [_value(found.get(key)) for key in ("auc", "threshold", "precision", "recall")]
        rows.append((name, found.get("labels"), *figures))
    caption = f"Calibrated on {calibration.labels['used']} labels, for {calibration.aim}" + ("" if used else " (not used by this run)")
    return Table(caption, ("score", "labels", "AUC", "threshold", "precision", "recall"), tuple(rows))


def _value(found: Any) -> str | float | None:
    """A number, or one with its interval."""
    if isinstance(found, dict) and found.get("value") is not None:
        low, high = found.get("low"), found.get("high")
        return f"{found['value']:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else "")
    return float(found) if isinstance(found, int | float) else None


def _labels_beside(path: Path, calibration: Calibration | None) -> Path | None:
    """The file that the calibration rests on, where it lies as it was; or one of its name, or `labels.csv`, in the run directory."""
    named = str(calibration.labels.get("file", "")) if calibration else ""
    if calibration and named and (path / named).is_file() and _rests_on(calibration, path / named):
        return path / named
    return next((path / name for name in (Path(named).name, "labels.csv") if name and (path / name).is_file()), None)


def _rests_on(calibration: Calibration, labels: Path) -> bool:
    return digest(labels) == calibration.labels.get("sha256")


def _curves(examples: Sequence[Scored], view: RunView, labels: Sequence[Label], source: Path) -> list[Figure]:
    found = joined(examples, labels, source)
    figures = []
    for number, (name, rows) in enumerate(sorted(found.items())):
        good = sum(label for _, _, label in rows)
        if 0 < good < len(rows) and name in _ABOUT:
            figures.append(_curve(number, name, [(value, label) for _, value, label in rows], bound(view.config, name)))
    return figures


def _curve(number: int, name: str, rows: list[tuple[float, bool]], at: float | None) -> Figure:
    points = precision_recall(rows)
    good = sum(label for _, label in rows)
    here = next((point for point in reversed(points) if at is not None and point[2] >= at), None)
    says = f"{len(rows)} labelled examples, {good} of them good."
    if here:
        says += f" At the bound of {at:g} the precision is {here[1]:.0%} and the recall {here[0]:.0%}."
    step = max(1, len(points) // _POINTS)
    drawn = list(dict.fromkeys([*points[::step], points[-1]]))
    data = {"points": [[round(v, 4) for v in point] for point in drawn], "base": good / len(rows), "at": [round(v, 4) for v in here] if here else None}
    listed = dict.fromkeys([*drawn[:: max(1, len(drawn) // 20)], drawn[-1]])
    table = Table("", ("recall", "precision", "score of at least"), tuple(tuple(round(v, 3) for v in point) for point in listed))
    return Figure(f"curve-{number}", f"Precision and recall of {name}", says, "curve", data, table)


def precision_recall(rows: Sequence[tuple[float, bool]]) -> list[tuple[float, float, float]]:
    """(recall, precision, score) at each value as a bound, from the strictest to the loosest; equal scores stand or fall together."""
    ordered = sorted(rows, key=lambda row: -row[0])
    total = sum(good for _, good in ordered)
    found, hits = [], 0
    for i, (value, good) in enumerate(ordered, 1):
        hits += good
        if i == len(ordered) or ordered[i][0] != value:
            found.append((hits / total if total else 0.0, hits / i, value))
    return found
