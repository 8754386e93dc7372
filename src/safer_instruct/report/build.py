"""From one or two finished runs to the document, and from that to the two files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from safer_instruct import rundir
from safer_instruct.errors import RunDirectoryError
from safer_instruct.prices import show_usd
from safer_instruct.replacing import replace_own
from safer_instruct.report.beside import read_dataset
from safer_instruct.report.document import Document, Section
from safer_instruct.report.flow import categories, cost, funnel
from safer_instruct.report.gather import TEXTS_LOOKED_AT, RunView, read_run
from safer_instruct.report.language import diversity, embed_prompts, instructions
from safer_instruct.report.lengths import lengths
from safer_instruct.report.markdown import as_markdown
from safer_instruct.report.page import as_html
from safer_instruct.report.problems import find_problems
from safer_instruct.report.reviewed import reviewed
from safer_instruct.report.scores import scores
from safer_instruct.report.verdicts import samples, verdicts


def write_report(path: Path, compare: Path | None = None, out: Path | None = None, labels: Path | None = None) -> tuple[Path, Path]:
    """Write `report.html` and, beside it, `report.md`.

    Args:
        path: A finished run directory.
        compare: Another, to stand beside it; or a file with a dataset of others, for lengths, verbs and diversity.
        out: The HTML file; by default in `path`. The Markdown file has its name with the ending `.md`.
        labels: A CSV file of labels for precision and recall; by default the one that `calibration.yaml` rests on, or `labels.csv`,
            where it lies in `path`.

    Returns:
        Both files.

    Raises:
        RunDirectoryError: A directory holds no finished run, or a file cannot be replaced.
        ConfigError: The labels cannot be used, or something else stands where a file is to go.
    """
    document = describe(path, compare, labels)
    html = out or path / rundir.REPORT
    markdown = html.with_suffix(".md")
    html.parent.mkdir(parents=True, exist_ok=True)
    for file, text in ((html, as_html(document)), (markdown, as_markdown(document))):
        replace_own(file, text, of_run=html.name == rundir.REPORT)
    return html, markdown


def describe(path: Path, compare: Path | None = None, labels: Path | None = None) -> Document:
    """Read one or two finished runs into a document; arguments and errors are those of `write_report`."""
    if compare is not None and not compare.exists():
        raise RunDirectoryError(f"{compare} is missing; what is to stand beside the run is the folder of another, or a dataset: JSONL, CSV or Parquet")
    views = [read_run(path)]
    if compare is not None:
        views.append(read_dataset(compare) if compare.is_file() else read_run(compare))
    views = _named(views)
    runs = [view for view in views if view.summary]
    embedded = embed_prompts(views)
    sections = (
        *(_problems(number, view, runs) for number, view in enumerate(runs, 1)),
        funnel(runs),
        categories(runs),
        lengths(views),
        instructions(views),
        diversity(views, embedded),
        scores(runs, labels),
        *reviewed(runs),
        verdicts(runs),
        cost(runs),
        samples(runs),
    )
    first = views[0]
    domain = str(first.config.get("domain", "preference data"))
    beside = f", beside {views[1].name}" if len(views) > 1 else ""
    notes = [f"Made by Safer-Instruct {metadata.version('safer-instruct')}. Everything is in this file; it asks nothing of any network."]
    if len(first.prompts) > TEXTS_LOOKED_AT:
        notes.append(
            f"Verbs, variety and map rest on {TEXTS_LOOKED_AT:,} of the {len(first.prompts):,} pairs, drawn by their ids; counts, lengths and scores on all."
        )
    if embedded.note:
        notes.append(embedded.note)
    return Document(f"{first.name}: preference pairs", f"Domain {domain}{beside}", _tiles(first), sections, tuple(notes))


def _named(views: Sequence[RunView]) -> list[RunView]:
    """Two folders of one name are told apart by what leads to them from where their ways part."""
    if len(views) == 2 and views[0].name == views[1].name:
        paths = [view.path.resolve() for view in views]
        common = next((at for at, (one, other) in enumerate(zip(*(path.parts for path in paths), strict=False)) if one != other), 0)
        for view, path, number in zip(views, paths, (1, 2), strict=True):
            view.name = str(Path(*path.parts[common:])) if paths[0] != paths[1] else f"{view.name} ({number})"
            view.samples = [replace(sample, run=view.name) for sample in view.samples]
    return list(views)


def _problems(number: int, view: RunView, views: Sequence[RunView]) -> Section:
    title = f"What to look at: {view.name}" if len(views) > 1 else "What to look at"
    return Section(f"problems-{number}", f"Findings {number}" if len(views) > 1 else "Findings", title, problems=find_problems(view))


def _tiles(view: RunView) -> tuple[tuple[str, str, str], ...]:
    summary = view.summary
    rows, pairs = summary["rows"], summary["pairs"]
    tokens = summary["prompt_tokens"] + summary["completion_tokens"]
    timing = summary.get("timing", {})
    wall, known = timing.get("wall_s", 0.0), timing.get("calls_from_ledger", 0)
    took = f"{wall:,.0f} s" if wall < 600 else f"{wall / 60:,.0f} min" if wall < 36_000 else f"{wall / 3600:,.1f} h"
    twins = summary.get("twins")
    return (
        ("pairs", f"{pairs:,}", f"of {rows:,} source rows"),
        *([("contrast twins", f"{twins['out']:,}", f"of {twins['in']:,}; not among the pairs")] if twins else []),
        ("kept", f"{pairs / rows:.1%}" if rows else "0%", f"{summary['dropped']:,} dropped"),
        ("categories", f"{len(view.kept):,}", "with a pair"),
        ("model calls", f"{summary['calls']:,}", f"{tokens:,} tokens"),
        ("cost", "unknown" if summary["cost"] is None else f"${show_usd(summary['cost'])}", "US dollars"),
        ("time", took, f"of the last sitting before this report; {known:,} calls were in the ledger" if known else "by the clock"),
    )
