"""Scores of a finished run beside what people said of its examples."""

from __future__ import annotations

import csv
import hashlib
import io
import random
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path

from safer_instruct import rundir, sheets, stored
from safer_instruct.conversation import as_messages, in_context, texts_digest
from safer_instruct.domain import Direction
from safer_instruct.errors import ConfigError
from safer_instruct.example import Example
from safer_instruct.oneline import no_formula
from safer_instruct.seeds import derive_seed
from safer_instruct.sources.records import advice
from safer_instruct.sources.tables import FilledRows
from safer_instruct.texts import direction_of, judged_texts
from safer_instruct.utf8 import not_utf8
from safer_instruct.visible import visible

TEXT_COLUMNS = ("prompt", "chosen", "rejected")
SHEET_COLUMNS = ("id", "label", "score", "category", "dropped_by", *TEXT_COLUMNS)
_GOOD, _BAD = {"1", "good", "yes", "true"}, {"0", "bad", "no", "false"}
_STRATA = 5  # quantiles of the score that a sheet is stratified by
_READ = ("id", "text", "category", "candidates", "prompt", "chosen", "rejected", "drafts", "history", "verdicts", "twin_of")


@dataclass(frozen=True, slots=True)
class Scored:
    """One example of a run, with its scores by the names of the verdicts that they belong to; `digest` is that of its texts."""

    id: str
    category: str
    prompt: str
    chosen: str
    rejected: str
    dropped_by: str
    scores: dict[str, float]
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """What a person said of an example.

    Attributes:
        id: The example.
        good: What was said.
        score: That of which it holds; empty where it holds for every score of the example.
        read: The texts that were read, by the names in `TEXT_COLUMNS`, where the file has them all.
        digest: Of the texts that were read, where the file has it in a column `texts`, as that of a review does.
    """

    id: str
    good: bool
    score: str = ""
    read: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def shows_texts(self) -> bool:
        """Whether the file tells what was read, as sheets and labels of a review do: then the id is one that a run had."""
        return bool(self.digest or self.read)

    def is_of(self, example: Scored) -> bool:
        """Whether the example still holds what was read, as far as the file tells."""
        return self.digest in ("", example.digest) and all(_as_read(_cell(example, name)) == cell for name, cell in self.read.items())


def read_examples(path: Path) -> list[Scored]:
    """The examples of the finished run in `path` that have a score.

    Raises:
        RunDirectoryError: There is no finished run, or its examples cannot be read.
    """
    direction = direction_of(rundir.read_summary(path))
    return [scored for example in stored.read_examples(path, _READ) if (scored := _scored(example, direction)).scores]


def read_labels(path: Path) -> list[Label]:
    """Labels from a CSV file with the columns `id`, `label` and, if wanted, `score`; rows without a label are passed over.

    Raises:
        ConfigError: The file is missing, lacks a column, or says something that is no label.
    """
    try:
        with io.StringIO(path.read_bytes().decode().removeprefix("\ufeff"), newline="") as file:
            reader = FilledRows(file)
            if missing := [name for name in ("id", "label") if name not in (reader.fieldnames or ())]:
                raise ConfigError(f"{path}: the column '{missing[0]}' is missing{_there_are(reader)}; a file of labels has id,label and, if wanted, score")
            return [label for row in reader if (label := _label(row, f"{path}:{reader.first_line}"))]
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file (looked in {path.absolute().parent})") from None
    except UnicodeDecodeError as exc:
        said = not_utf8(exc, 0, "file")
        raise ConfigError(f"{path}: cannot be read as a CSV file in UTF-8: {said}{advice(said)}") from exc
    except (OSError, csv.Error) as exc:
        raise ConfigError(f"{path}: cannot be read as a CSV file in UTF-8: {exc}") from exc


def count_rows(path: Path) -> int:
    """The rows of a CSV file that `read_labels` has read, with and without a label."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return sum(1 for _ in FilledRows(file))


def _there_are(reader: FilledRows) -> str:
    return f" among {', '.join(map(visible, reader.fieldnames))}" if reader.fieldnames else ""


def of_texts(examples: Sequence[Scored], labels: Sequence[Label]) -> list[Label]:
    """The labels, without those whose file shows that something was read which the run does not hold now, having replaced it since or needed fewer rows."""
    known = {example.id: example for example in examples}
    return [label for label in labels if (label.is_of(known[label.id]) if label.id in known else not label.shows_texts)]


def joined(examples: Sequence[Scored], labels: Sequence[Label], source: Path) -> dict[str, list[tuple[str, float, bool]]]:
    """For each score the (id, value, good) of every example that has both, one per id, in the order of the run.

    Raises:
        ConfigError: A label names no example of the run, or two labels of one example contradict each other.
    """
    known = {example.id: example for example in examples}
    said: dict[tuple[str, str], bool] = {}
    for label in labels:
        if label.id not in known:
            raise ConfigError(f"{source}: the run has no scored example with id '{label.id}'")
        if said.setdefault((label.id, label.score), label.good) != label.good:
            raise ConfigError(f"{source}: the labels of '{label.id}' contradict each other; keep one")
    found: dict[str, list[tuple[str, float, bool]]] = defaultdict(list)
    for example in examples:
        for name, value in example.scores.items():
            good = said.get((example.id, name), said.get((example.id, "")))
            if good is not None:
                found[name].append((example.id, value, good))
    return dict(found)


def write_sheet(examples: Sequence[Scored], path: Path, count: int, *, seed: int = 0, labels: Sequence[Label] = ()) -> tuple[int, int]:
    """Write a sheet for people to label: a sample in the proportions of the run, over categories, outcomes and scores.

    Every stratum gets its share, so that the sample stands for the run without weights (Cochran 1977, chapter 5). Which of its examples are
    taken follows from their ids alone: a sheet of the run that was made again asks mostly for the same, and has those of `labels` that still hold.

    Returns:
        How many rows it has, and how many of them are filled in.

    Raises:
        ConfigError: As `sheets.write_sheet`: the file holds labels, or is something else.
    """
    said = {label.id: label for label in of_texts(examples, labels)}
    chosen = _stratified(examples, count, seed)
    rows = ([example.id, *_filled_in(said.get(example.id)), *(_cell(example, name) for name in SHEET_COLUMNS[3:])] for example in chosen)
    given = {id_: _filled_in(label)[0] for id_, label in said.items()}
    return sheets.write_sheet(path, SHEET_COLUMNS, "label", rows, given), sum(example.id in said for example in chosen)


def _filled_in(label: Label | None) -> tuple[str, str]:
    """The cells of `label` and `score`."""
    return ("good" if label.good else "bad", no_formula(label.score)) if label else ("", "")


def _cell(example: Scored, name: str) -> str:
    return no_formula(str(getattr(example, name)))


def _stratified(examples: Sequence[Scored], count: int, seed: int) -> list[Scored]:
    """`count` examples: each stratum's share of them by systematic sampling, and within one those whose ids, hashed, come first."""
    if count >= len(examples):
        return list(examples)
    values: dict[str, list[float]] = defaultdict(list)
    for example in examples:
        name, value = _last(example)
        insort(values[name], value)

    def stratum(example: Scored) -> tuple[str, str, int]:
        name, value = _last(example)
        return example.category, example.dropped_by, _STRATA * bisect_left(values[name], value) // len(values[name])

    order = sorted(examples, key=lambda example: (stratum(example), derive_seed(seed, example.id)))
    start = random.Random(seed).random()
    shares = Counter(stratum(order[int((start + i) * len(order) / count)]) for i in range(count))
    return [example for at, those in groupby(order, stratum) for example in islice(those, shares[at])]


def _last(example: Scored) -> tuple[str, float]:
    """The score that was looked at last: it says the most about where the example ended."""
    return list(example.scores.items())[-1]


def _scored(example: Example, direction: Direction) -> Scored:
    own = "twins." if example.twin_of else ""  # what the verifier says of a twin is no evidence for the bounds of other pairs
    scores = {v.name: v.score for v in example.verdicts if v.score is not None and v.name.startswith(own)}
    texts = judged_texts(example, direction)
    dropped = example.dropped_by.name if example.dropped_by else ""
    shown = in_context(example.history, texts.prompt)
    digest_ = texts_digest(*texts, as_messages(example.history))
    return Scored(example.id, example.category, shown, texts.chosen, texts.rejected, dropped, scores, digest_)


def _label(row: dict[str, str | None], where: str) -> Label | None:
    word = (row["label"] or "").strip().lower()
    if not word:
        return None
    if word not in _GOOD | _BAD:
        raise ConfigError(f"{where}: label {word[:40]!r} is neither {', '.join(sorted(_GOOD))} nor {', '.join(sorted(_BAD))}")
    read = {name: _as_read(row[name] or "") for name in TEXT_COLUMNS} if set(TEXT_COLUMNS) <= row.keys() else {}  # a review's file counts under 'rejected'
    return Label((row["id"] or "").strip(), word in _GOOD, (row.get("score") or "").strip(), read, (row.get("texts") or "").strip())


def _as_read(text: str) -> str:
    """The words of a cell: spreadsheets write line breaks anew."""
    return " ".join(text.split())


def digest(path: Path) -> str:
    """First 16 hex digits of the file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
