"""What every format is written from: a finished run's pairs as a stream of plain rows, and what may go with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from safer_instruct import rundir, tables
from safer_instruct.errors import RunDirectoryError
from safer_instruct.example import Example
from safer_instruct.export.splits import WHOLE, Assignment, assign
from safer_instruct.margins import kind_said
from safer_instruct.review.labels import Accepted, Missing
from safer_instruct.stored import read_examples
from safer_instruct.texts import direction_of

Row = dict[str, Any]
Kind = Literal["text", "integer", "real", "messages"]
PAIR: dict[str, Kind] = dict.fromkeys(tables.PAIR_COLUMNS, "text")
TWINS: dict[str, Kind] = {tables.TWIN_OF: "text"}
CONVERSATIONS: dict[str, Kind] = {tables.CONVERSATION: "text", "history": "messages"}
"""Columns of rows whose prompt is the last message of a conversation; `history` holds the messages before it."""
PROVENANCE: dict[str, Kind] = {
    "source_file": "text",
    "source_line": "integer",
    "source_place": "text",
    "source_license": "text",
    "models": "text",
    "templates": "text",
    "guideline": "text",
    "expert": "text",
    "margin": "real",
    "margin_kind": "text",
    "verdicts": "text",
}
"""Columns of `--provenance`. `models`, `templates` and `verdicts` are JSON, so that they fit into every format."""
CORRECTED: dict[str, Kind] = {"corrected": "text"}
"""Besides, of only accepted pairs: which of their texts a person corrected, as `prompt chosen`; empty for none."""
PERSON = "person"  # who wrote a response that a person corrected
_SIDES = ("prompt", "chosen", "rejected")
_VERDICT = tuple(f"verdicts.list.element.{n}" for n in ("name", "passed", "score", "reason", "flag"))
_TEXTS = (
    "id",
    "text",
    "category",
    "file",
    "line",
    "prompt",
    "chosen",
    "rejected",
    "twin_of",
    *(f"history.list.element.{n}" for n in ("role", "content")),
    *(f"verdicts.list.element.{n}" for n in ("name", "passed", "reason", "flag")),
)
"""Columns that make the row of a pair, and say whether an example is one."""
_READ = (
    *dict.fromkeys((*_TEXTS, *_VERDICT)),
    "margin",
    *(f"drafts.list.element.{n}" for n in ("text", "expert", "margin", *_VERDICT)),
    "license",
    "place",
)


@dataclass(frozen=True, slots=True)
class Options:
    """What leaves the run.

    Attributes:
        splits: Share of the pairs by name of a split, beside `train`, which gets the rest; empty for one undivided set.
        seed: Another one divides otherwise.
        near: How alike prompts or source texts must be to stay in one split; see `splits.assign`.
        provenance: Add the columns of `PROVENANCE`; with `reviewed` those of `CORRECTED` too.
        redact: Give digest and length of each rejected response instead of its text.
        gated: Ask for the reader's agreement before they get the files: granted at once (`auto`), or by the owner (`manual`).
        reviewed: Only the pairs that people accepted, with their corrections in place.
        selected: Only the pairs that `select` chose, in the run's order.
    """

    splits: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    near: float = 0.5
    provenance: bool = False
    redact: bool = False
    gated: str | None = None
    reviewed: bool = False
    selected: bool = False


class Finished:
    """The pairs of a finished run as the options want them, read anew on each pass."""

    def __init__(self, path: Path, options: Options) -> None:
        """Read the run's books; with splits, its pairs are gone through once.

        Raises:
            RunDirectoryError: The directory holds no finished run or cannot be read, or only accepted or selected pairs are wanted and there are none.
            ConfigError: A split would be empty.
        """
        self.path, self.options, self.summary = path, options, rundir.read_summary(path)
        self.conversations, self._twins = tables.holds_conversations(path), "twins" in self.summary
        beside = (CONVERSATIONS if self.conversations else {}) | (TWINS if self._twins else {})
        corrected = CORRECTED if options.reviewed else {}
        self.provenance: dict[str, Kind] = PROVENANCE | corrected if options.provenance else {}
        self.columns = PAIR | beside | self.provenance
        self._constant = _constant(path, self.described()) if options.provenance else {}
        self._accepted = Accepted(path) if options.reviewed else None
        self._selected = tables.selected_ids(path) if options.selected else None
        self._count, self.corrected = self._counted() if options.reviewed or options.selected else (tables.pairs_and_twins(self.summary), 0)
        if self._accepted and not self._count:
            of = f"the selection of {path}" if options.selected else str(path)
            left_out = f" (left out: {said})" if (said := self._accepted.left_out) else ""
            raise RunDirectoryError(f"nobody has accepted a pair of {of} as it stands now{left_out}; read some: safer-instruct review {path}")
        if not self._count and self._selected is not None:
            raise RunDirectoryError(f"the selection of {path} holds none of its pairs; make it anew: safer-instruct select {path}")
        self._assignment: Assignment | None = self._divided() if options.splits else None

    @property
    def counts(self) -> dict[str, int]:
        """Pairs by split; the one split of an undivided set is `train`."""
        return self._assignment.counts if self._assignment else {WHOLE: self._count}

    @property
    def missing(self) -> Missing:
        """Accepted ones that are not among the run's pairs as they stand now."""
        return self._accepted.missing if self._accepted else Missing()

    def described(self) -> dict[str, Any]:
        """The summary, with what it says of domain and licence.

        Raises:
            RunDirectoryError: It was written before summaries said that.
        """
        if "domain" not in self.summary:
            raise RunDirectoryError(f"{self.path} was finished by an older version; give its 'run' command again (no call is paid twice), then export")
        return self.summary

    @property
    def finished_on(self) -> str:
        """The day on which the run ended, in UTC."""
        return datetime.fromtimestamp((self.path / rundir.SUMMARY).stat().st_mtime, UTC).date().isoformat()

    def rows(self, split: str) -> Iterator[Row]:
        """The pairs of one split, in order; memory holds some hundred."""
        rows = self._with_provenance() if self.options.provenance else self._pairs()
        for number, row in enumerate(rows):
            if self._assignment is None or self._assignment.of(number) == split:
                yield self._redacted(row) if self.options.redact else row

    def _redacted(self, row: Row) -> Row:
        """The row without the rejected text, and without the assistant's earlier turns where they are of the rejected side too."""
        row = {**row, "rejected": _withheld(row["rejected"])}
        if self.conversations and direction_of(self.described()) == "rejected":
            withheld = [m if m["role"] == "user" else {**m, "content": _withheld(m["content"])} for m in row["history"]]
            return {**row, "history": withheld}
        return row

    def _pairs(self) -> Iterator[Row]:
        """All pairs, or those of the selection, or those that people accepted, as they corrected them."""
        for pair in tables.read_pairs(self.path):
            if (row := self._taken(pair)) is not None:
                yield row

    def _counted(self) -> tuple[int, int]:
        """How many pairs `_pairs` gives, and in how many of them a person corrected something."""
        taken = corrected = 0
        for pair in tables.read_pairs(self.path):
            if (row := self._taken(pair)) is not None:
                taken += 1
                corrected += bool(_corrected(row, pair))
        return taken, corrected

    def _divided(self) -> Assignment:
        """By prompt and source text; where the source text is no side of the pairs, it is read from the examples."""
        replaced = "rejected" in self.summary
        read, source = (self._with_source_texts, "text") if replaced else (self._pairs, direction_of(self.summary))
        return assign(read, self.options.splits, self.options.seed, self.options.near, source=source)

    def _taken(self, pair: Row) -> Row | None:
        row = self._accepted.take(pair) if self._accepted else pair
        return row if self._selected is None or pair["id"] in self._selected else None

    def _with_examples(self, columns: Sequence[str]) -> Iterator[tuple[Row, Example]]:
        """As `_pairs`, each with the example that it was, of which these columns are read."""
        as_row = tables.conversation_row if self.conversations else tables.pair_row
        for example in read_examples(self.path, columns):
            if example.alive and (row := self._taken(as_row(example, twins=self._twins))) is not None:
                yield row, example

    def _with_source_texts(self) -> Iterator[Row]:
        for row, example in self._with_examples(_TEXTS):
            yield {**row, "text": example.text}

    def _with_provenance(self) -> Iterator[Row]:
        guidelines = self._constant["guidelines"]
        for row, example in self._with_examples(_READ):
            corrected = _corrected(row, tables.pair_row(example))
            by_person = ("rejected" if example.source_is_chosen else "chosen") in corrected
            written = PERSON if by_person else accepted.expert if (accepted := example.accepted) else ""
            yield {
                **row,
                "source_file": example.file,
                "source_line": example.line,
                "source_place": example.place,
                **self._constant["columns"],
                **({"source_license": example.license} if example.license else {}),
                "guideline": guidelines.get(example.category, ""),
                "expert": written,
                "margin": None if corrected else example.margin,
                "verdicts": _verdicts(example, reasons=not self.options.redact),
                **({"corrected": " ".join(corrected)} if self.options.reviewed else {}),
            }


def _constant(path: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """What is the same for all rows: digests of guidelines, and columns that never change."""
    file = path / rundir.RUN
    try:
        resolved = yaml.safe_load(file.read_text(encoding="utf-8"))
        adapters = summary.get("adapters", {})
        models = {
            role: {"name": summary["models"].get(role, ""), "fingerprint": mark, **({"adapter_sha256": adapters[role]} if role in adapters else {})}
            for role, mark in resolved["models"].items()
        }
        templates = resolved["templates"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as exc:
        raise rundir.unreadable(file, exc) from exc
    columns = {"source_license": summary["source_license"], "margin_kind": kind_said(summary), "models": json.dumps(models), "templates": json.dumps(templates)}
    return {"columns": columns, "guidelines": summary["domain"]["guidelines"]}


def _corrected(row: Row, pair: Row) -> list[str]:
    """The texts of the row that are not those of the pair."""
    return [side for side in _SIDES if row[side] != pair[side]]


def _verdicts(example: Example, *, reasons: bool) -> str:
    """As JSON. Reasons may quote the text that they speak of, so they go where it goes."""
    said = ({"name": v.name, "passed": v.passed, "score": v.score, **({"reason": v.reason} if reasons and v.reason else {})} for v in example.verdicts)
    return json.dumps(list(said), ensure_ascii=False)


def _withheld(text: str) -> str:
    """Digest and length in place of a text: who has the sources can put it back, nobody else can read it."""
    return f"[withheld: {len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()}]"
