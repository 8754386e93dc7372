"""One run on the table, and everybody who reads it: what a page asks for and what it may say, in plain data."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from safer_instruct import rundir, stored, tables
from safer_instruct.conversation import as_messages
from safer_instruct.example import Example
from safer_instruct.review import figures, queue
from safer_instruct.review.index import ensure_index
from safer_instruct.review.queue import Filters, Item
from safer_instruct.review.store import Label, Store
from safer_instruct.seeds import derive_seed
from safer_instruct.settings.review import ReviewConfig
from safer_instruct.texts import direction_of, judged_texts
from safer_instruct.yamlfile import Strict

Short = Annotated[str, Field(max_length=40)]
Long = Annotated[str, Field(max_length=200_000)]
_LISTED = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """How a review is done.

    Attributes:
        config: Questions, tags and what is veiled, from the domain.
        guidelines: Definition and guideline by category, to read beside the pair.
        blind: Hide which side is which, and shuffle them.
        overlap: Share of examples that two annotators read.
        seed: Of the order of blind sides.
    """

    config: ReviewConfig
    guidelines: dict[str, dict[str, str]]
    blind: bool = False
    overlap: float = 0.1
    seed: int = 0


class Change(Strict):
    """What a click says; fields that are not given stay as they are."""

    key: Annotated[str, Field(min_length=8, max_length=64)]
    digest: Annotated[str, Field(max_length=16)]
    seconds: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    decision: Literal["accept", "reject", "skip"] | None = None
    prefer: Literal["left", "right"] | None = None
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=40)]], Field(max_length=20)] | None = None
    comment: Annotated[str, Field(max_length=10_000)] | None = None
    answers: Annotated[dict[Short, bool], Field(max_length=9)] | None = None
    edit: dict[Literal["prompt", "chosen", "rejected"], Long] | None = None

    @field_validator("tags", "comment", "answers", "edit")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """Half of a surrogate pair is no text: it could not be written."""
        str(value).encode("utf-8")
        return value


class Stale(Exception):
    """What a page shows is not of the run as it stands any more; raised and answered within the app."""


class UnusableCorrection(Exception):
    """A correction leaves nothing to read of a text, or two sides that are the same; raised and answered within the app."""


class Desk:
    """A finished run with its index and what people say of it; `made` tells it from another run that takes its place."""

    def __init__(self, path: Path, plan: Plan, store: Store) -> None:
        self.path, self.plan, self.store = path, plan, store
        self.made = made_mark(path)  # first: where the run is made again from here on, it is another one's
        self._direction = direction_of(rundir.read_summary(path))
        store.attach(ensure_index(path))
        self._files = ExitStack()
        self._parquet = self._files.enter_context(tables.opened(path, rundir.EXAMPLES))
        self._reading = threading.Lock()  # a ParquetFile is not for two threads at once

    def close(self) -> None:
        """Close the run's file."""
        self._files.close()

    def about(self, annotator: int, name: str) -> dict[str, Any]:
        """What the page needs to know once."""
        config = self.plan.config
        return {
            "annotator": name,
            "run": self.path.absolute().name,
            "made": self.made,
            "questions": [q.model_dump() for q in config.questions if not self.plan.blind or q.of == "prompt"],
            "tags": list(config.tags),
            "veil": list(config.veil),
            "guidelines": self.plan.guidelines,
            "blind": self.plan.blind,
            "overlap": self.plan.overlap,
            "facets": [{"category": c, "outcome": o, "count": n} for c, o, n in queue.facets(self.store)],
            "progress": self._progress(annotator),
        }

    def step(self, annotator: int, filters: Filters, after: str | None, *, back: bool) -> dict[str, Any]:
        """The example next to `after`, in either direction; `item` is None where there is none."""
        stand = queue.find_item(self.store, after) if after else None
        found = queue.step(self.store, annotator, filters, self.plan.overlap, after=stand, back=back)
        if found and filters.state == "open":
            self.store.claim(annotator, found.id, time.time() + queue.CLAIM_S)
        return {"item": self._shown(annotator, found) if found else None}

    def item(self, annotator: int, id_: str) -> dict[str, Any] | None:
        """One example by its id."""
        found = queue.find_item(self.store, id_)
        return self._shown(annotator, found) if found else None

    def listed(self, annotator: int, filters: Filters, after: str | None) -> dict[str, Any]:
        """Some examples in a few words each, and how many there are."""
        stand = queue.find_item(self.store, after) if after else None
        found = queue.select(self.store, annotator, filters, self.plan.overlap, after=stand, limit=_LISTED)
        total = queue.count(self.store, annotator, filters, self.plan.overlap)
        return {"items": [self._excerpt(annotator, item) for item in found], "total": min(total, queue.COUNTED_TO), "more": total > queue.COUNTED_TO}

    def say(self, annotator: int, id_: str, change: Change) -> dict[str, Any] | None:
        """Write down a click; returns once it is on the disk. None where the run has no such example.

        Raises:
            Stale: The run has other texts under that id than those that were read.
            UnusableCorrection: Of a corrected text nothing is left to read, or both sides would be the same; nothing is written down.
        """
        found = queue.find_item(self.store, id_)
        if found is None:
            return None
        if found.digest != change.digest:
            raise Stale
        fields: dict[str, Any] = change.model_dump(include=change.model_fields_set - {"key", "digest", "seconds", "prefer"})
        if "tags" in fields:
            fields["tags"] = tuple(dict.fromkeys(fields["tags"] or ()))
        fields = {name: _EMPTY.get(name) if value is None else value for name, value in fields.items()}
        if change.prefer is not None:
            preferred = self._sides(annotator, id_)[change.prefer == "right"]
            fields |= {"preferred": preferred, "decision": "accept" if preferred == "chosen" else "reject"}
        if "edit" in fields:
            fields["edit"] = self._corrections(found, fields["edit"])
        label = self.store.change(annotator, id_, found.digest, fields, key=change.key, seconds=change.seconds)
        return {"label": self._said(annotator, id_, label), "progress": self._progress(annotator)}

    def undo(self, annotator: int, key: str) -> dict[str, Any]:
        """Take back the reader's last click and show its example; `item` is None where there is none."""
        id_ = self.store.undo(annotator, key=key)
        return {"item": self.item(annotator, id_) if id_ else None, "progress": self._progress(annotator)}

    def agreement(self) -> dict[str, Any]:
        """See `figures.agreement`; where sides are blind without who said what, which would tell which side is the chosen one."""
        found = figures.agreement(self.store)
        return found | {"disagreements": [{"id": one["id"], "said": {}} for one in found["disagreements"]]} if self.plan.blind else found

    def _progress(self, annotator: int) -> dict[str, Any]:
        """See `figures.progress`; where sides are blind how many were read, for which of them were accepted would tell of each click which side it was."""
        told = asdict(figures.progress(self.store, annotator))
        if self.plan.blind:
            told["read"] = told.pop("accepted") + told.pop("rejected")
            del told["edited"]
        return told

    def _shown(self, annotator: int, item: Item) -> dict[str, Any]:
        example = self._example(item)
        prompt, texts = self._texts(example)
        label = self.store.label(annotator, item.id, item.digest)
        first, second = self._sides(annotator, item.id)
        shown = {
            "id": item.id,
            "digest": item.digest,
            "category": item.category,
            "history": as_messages(example.history),
            "prompt": prompt,
            "left": {"text": texts[first], "side": None if self.plan.blind else first, "veiled": self._veiled(first)},
            "right": {"text": texts[second], "side": None if self.plan.blind else second, "veiled": self._veiled(second)},
            "veiled": "prompt" in self.plan.config.veil,
            "label": self._said(annotator, item.id, label),
        }
        if self.plan.blind:
            return shown
        verdicts = [{"name": v.name, "passed": v.passed, "score": v.score, "reason": v.reason} for v in example.verdicts]
        return {**shown, "outcome": item.outcome, "source": f"{example.file}:{example.line}", "margin": example.margin, "verdicts": verdicts}

    def _excerpt(self, annotator: int, item: Item) -> dict[str, Any]:
        decision = self._said(annotator, item.id, self.store.label(annotator, item.id, item.digest))["decision"]
        told = {"id": item.id, "category": item.category, "prompt": item.excerpt, "decision": decision}
        return told if self.plan.blind else {**told, "outcome": item.outcome}

    def _example(self, item: Item) -> Example:
        with self._reading:
            return stored.read_row(self._parquet, item.part, item.at)

    def _texts(self, example: Example) -> tuple[str, dict[str, str]]:
        prompt, chosen, rejected = judged_texts(example, self._direction)
        return prompt, {"chosen": chosen, "rejected": rejected}

    def _corrections(self, item: Item, edit: dict[str, str]) -> dict[str, str]:
        """What of an edit differs from the original."""
        prompt, texts = self._texts(self._example(item))
        changed = {name: text for name, text in edit.items() if text != {"prompt": prompt, **texts}[name]}
        if blank := [name for name, text in changed.items() if not any(c.isprintable() and c != " " for c in text)]:
            raise UnusableCorrection(f"the corrected {blank[0]} text has nothing to read in it, so nothing is stored: write one, or reject the pair")
        sides = texts | changed
        if changed and sides["chosen"].strip() == sides["rejected"].strip():
            raise UnusableCorrection("as corrected both sides are the same text, so nothing is stored: change one of them, or reject the pair")
        return changed

    def _sides(self, annotator: int, id_: str) -> tuple[Literal["chosen", "rejected"], Literal["chosen", "rejected"]]:
        """Which side stands left and which right; by chance where sides are blind, the same again for the same reader."""
        swapped = self.plan.blind and derive_seed(self.plan.seed, "sides", annotator, id_) & 1
        return ("rejected", "chosen") if swapped else ("chosen", "rejected")

    def _veiled(self, side: Literal["chosen", "rejected"]) -> bool:
        """Blind sides are veiled together: a veil would tell which one is the rejected one."""
        veil = self.plan.config.veil
        return bool({"chosen", "rejected"} & set(veil)) if self.plan.blind else side in veil

    def _said(self, annotator: int, id_: str, label: Label) -> dict[str, Any]:
        """The label as its reader may see it; where sides are blind, in terms of left and right."""
        said = asdict(label)
        preferred = said.pop("preferred")
        if not self.plan.blind:
            return said
        side = ("left", "right")[self._sides(annotator, id_).index(preferred)] if preferred else None
        return {**said, "decision": side or label.decision, "edit": {}}


def made_mark(path: Path) -> str:
    """What tells a finished run from one that was made in its place: when its summary and examples were written, and their sizes.

    Raises:
        RunDirectoryError: The run is not finished, or one of the two cannot be read.
    """
    try:
        written = [(path / name).stat() for name in (rundir.SUMMARY, rundir.EXAMPLES)]
    except OSError as exc:
        rundir.read_summary(path)
        raise rundir.unreadable(path / rundir.EXAMPLES, exc) from exc
    return "-".join(f"{of.st_mtime_ns:x}.{of.st_size:x}" for of in written)


_EMPTY: dict[str, Any] = {"tags": (), "comment": "", "answers": {}, "edit": {}}
