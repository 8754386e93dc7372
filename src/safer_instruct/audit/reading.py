"""Pairs to audit, wherever they are: a run directory, files of rows, or a folder that `datasets` saved."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from safer_instruct import rundir, stored, tables
from safer_instruct.audit.columns import Columns, Texts
from safer_instruct.errors import SourceError
from safer_instruct.notes import no_pair
from safer_instruct.settings.pairs import RowSource
from safer_instruct.sources import BadRow, SourceRow, excerpt
from safer_instruct.sources.records import RowRefused, advice
from safer_instruct.tuning.open import first_rows, open_rows

SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"), ("chosen_rating", "rejected_rating"), ("chosen-rating", "rejected-rating"))
MARGINS = ("margin", "score_margin")
WRITERS = (("chosen_model", "rejected_model"), ("chosen-model", "rejected-model"), ("model_chosen", "model_rejected"))
JUDGES = ("judge", "judge_model", "annotator", "annotator_model")
ORIGINS = (
    *("source", "source_file", "dataset", "origin", "url", "file", "subset"),
    *("license", "source_license", "model", "models", "generator", "annotator", "provenance"),
    *(name for pair in WRITERS for name in pair),
)
_BAD_KEPT = 1_000
_RUN_COLUMNS = (
    *("id", "text", "category", "file", "line", "prompt", "chosen", "rejected", "margin"),
    *(f"verdicts.list.element.{name}" for name in ("name", "passed", "reason", "flag")),
)


@dataclass(slots=True)
class PairSet:
    """A set of pairs in memory, a column per field: some 100,000 pairs of common length take a few hundred megabytes.

    Attributes:
        path: As it was given.
        prompts: [n] The prompts; '' where there is none.
        chosen: [n] Preferred responses.
        rejected: [n] The others.
        files: [n] Where each row stands.
        lines: [n] Its line or row there, from 1.
        margins: [n] Score of chosen less that of rejected; NaN where no column tells.
        writers: [n] Models that wrote the sides, where columns tell; else empty.
        judges: [n] Model that judged, where a column tells; else empty.
        origins: Column that says where rows come from -> rows that it says something of.
        bad: The first 1,000 rows that give no pair, with the reason.
        set_aside: How many there are.
        run: Whether it is a run directory of ours.
        split: The split that it is, where one was asked for.
    """

    path: Path
    prompts: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    lines: array[int] = field(default_factory=lambda: array("q"))
    margins: array[float] = field(default_factory=lambda: array("d"))
    writers: list[tuple[str, str]] = field(default_factory=list)
    judges: list[str] = field(default_factory=list)
    origins: dict[str, int] = field(default_factory=dict)
    bad: list[BadRow] = field(default_factory=list)
    set_aside: int = 0
    run: bool = False
    split: str | None = None

    def __len__(self) -> int:
        return len(self.chosen)

    def where(self, at: int) -> str:
        """File and line of the pair at a position."""
        return f"{self.files[at]}:{self.lines[at]}"

    def add(self, texts: Texts, file: str, line: int, margin: float | None) -> None:
        """Take one pair."""
        self.prompts.append(texts.prompt)
        self.chosen.append(texts.chosen)
        self.rejected.append(texts.rejected)
        self.files.append(file)
        self.lines.append(line)
        self.margins.append(math.nan if margin is None else margin)

    def set_aside_row(self, row: BadRow) -> None:
        """Count a row that gives no pair."""
        self.set_aside += 1
        if len(self.bad) < _BAD_KEPT:
            self.bad.append(row)


def read_set(path: Path | str, columns: Columns | None = None, *, split: str | None = None, limit: int | None = None) -> PairSet:
    """Read the pairs of `path`.

    Args:
        path: A finished run directory; a file, folder or glob of JSONL, JSON, CSV, TSV or Parquet; or a folder that `datasets` saved.
        columns: Which column is which; by default their names tell, those of the first hundred rows together.
        split: Of a folder: of a saved `DatasetDict`, by default `train`; or the files that are named after it, by default all.
        limit: Read only so many rows.

    Raises:
        SourceError: Nothing is there, a file cannot be read, no row is a pair, no column holds a side, there is no such split, columns are named of a
            run, it is a folder of runs, or the table of a run's examples.
        RunDirectoryError: The run is not finished, or damaged.
    """
    path = Path(path)
    is_run = (path / rundir.RUN).is_file() or (path / rundir.EXAMPLES).is_file()
    if split is not None and (is_run or path.is_file()):
        raise SourceError(f"{path}: only a folder of files that are named after splits, or one of save_to_disk, has splits; leave out --split")
    if is_run:
        _refuse_columns(path, columns or Columns())
        return _read_run(path, limit)
    if path.name == rundir.EXAMPLES and rundir.is_of_run(path):
        raise SourceError(f"{path} is a file of a run, and not the one of its pairs; give the folder: {path.parent}")
    pairs, known = PairSet(path, split=split), columns or Columns()
    source = RowSource(path=str(path)) if split is None else RowSource(path=str(path), split=split)
    rows = islice(open_rows(source, Path(), all_files=split is None), limit)
    first = first_rows(rows, pairs.set_aside_row)
    names = list(dict.fromkeys(name for row in first if isinstance(row, SourceRow) for name in row.fields))
    if first:
        known = known.found(names, first[0].file)
    extra = _Extra.of(names)
    for row in chain(first, rows):
        if isinstance(row, BadRow):
            pairs.set_aside_row(row)
            continue
        try:
            texts = _sound(known.read(row.fields))
        except RowRefused as exc:
            pairs.set_aside_row(BadRow(row.file, row.line, str(exc), excerpt(dict(row.fields))))
            continue
        pairs.add(texts, row.file, row.line, extra.margin(row.fields))
        extra.note(row.fields, pairs)
    if not len(pairs) and not pairs.set_aside:
        raise SourceError(f"{path}: holds no row")
    if not len(pairs):
        told = f"; the first: {pairs.bad[0].file}:{pairs.bad[0].line}: {pairs.bad[0].reason}" if pairs.bad else ""
        remedy = advice(told) if not first else "; say which columns hold them: --prompt, --chosen, --rejected"
        raise SourceError(f"{path}: none of {pairs.set_aside} rows is a pair{told}{remedy}")
    return pairs


def _refuse_columns(run: Path, columns: Columns) -> None:
    if given := [f"--{side}" for side in ("prompt", "chosen", "rejected") if getattr(columns, side) is not None]:
        raise SourceError(f"{run}: the columns of a run are known; leave out {' and '.join(given)}")


def _read_run(path: Path, limit: int | None) -> PairSet:
    """The pairs of a finished run, with where their source texts stand."""
    pairs = PairSet(path, run=True)
    living = (example for example in stored.read_examples(path, _RUN_COLUMNS) if example.alive)
    for example in islice(living, limit):
        row = tables.pair_row(example)
        pairs.add(Texts(row["prompt"], row["chosen"], row["rejected"]), example.file, example.line, example.margin)
    if not len(pairs):
        raise SourceError(no_pair(path, rundir.read_summary(path)))
    return pairs


def _sound(texts: Texts) -> Texts:
    for name, text in zip(Texts._fields, texts, strict=True):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RowRefused(f"{name} holds a lone surrogate, which is no character") from None
    return texts


@dataclass(frozen=True, slots=True)
class _Extra:
    """Columns beside the texts that say something of a pair."""

    scores: tuple[str, str] | None
    margin_: str | None
    writers: tuple[str, str] | None
    judge: str | None
    origins: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> _Extra:
        """Those that are among `names`."""

        def both(known: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
            return next((pair for pair in known if pair[0] in names and pair[1] in names), None)

        margin, judge = (next((name for name in known if name in names), None) for known in (MARGINS, JUDGES))
        return cls(both(SCORES), margin, both(WRITERS), judge, tuple(name for name in ORIGINS if name in names))

    def margin(self, fields: Mapping[str, object]) -> float | None:
        """Of chosen over rejected; None where the row does not tell."""
        if self.scores:
            left, right = (_number(fields.get(name)) for name in self.scores)
            return None if left is None or right is None else left - right
        return _number(fields.get(self.margin_)) if self.margin_ else None

    def note(self, fields: Mapping[str, object], pairs: PairSet) -> None:
        """Keep who wrote and who judged, and count what tells an origin."""
        if self.writers:
            pairs.writers.append((str(fields.get(self.writers[0]) or ""), str(fields.get(self.writers[1]) or "")))
        if self.judge:
            pairs.judges.append(str(fields.get(self.judge) or ""))
        for name in self.origins:
            pairs.origins[name] = pairs.origins.get(name, 0) + (fields.get(name) not in (None, "", [], {}))


def _number(value: Any) -> float | None:
    try:
        number = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number
