"""What people said, given back: labels for `calibrate`, pairs for export."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safer_instruct import rundir
from safer_instruct.review.index import texts_digest
from safer_instruct.review.store import Label, read_labels
from safer_instruct.wholefile import whole

LABEL_COLUMNS = ("id", "label", "annotators", "accepted", "rejected")


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What all annotators together say of one example.

    Attributes:
        id: The example.
        digest: Of the texts that they read.
        accepted: Annotators who accepted it.
        rejected: Annotators who rejected it.
        edit: Corrected texts by `prompt`, `chosen`, `rejected`, of the annotator who accepted it last in the order of joining.
    """

    id: str
    digest: str
    accepted: tuple[str, ...]
    rejected: tuple[str, ...]
    edit: dict[str, str]

    @property
    def good(self) -> bool | None:
        """What the majority says; None in a tie."""
        balance = len(self.accepted) - len(self.rejected)
        return balance > 0 if balance else None


def read_reviewed(path: Path) -> Iterator[Reviewed]:
    """Every example of the run in `path` that somebody accepted or rejected, by id.

    Raises:
        RunDirectoryError: The review database is damaged.
    """
    decided = ((name, id_, label) for name, id_, label in read_labels(path) if label.decision in ("accept", "reject"))
    for (id_, digest), group in itertools.groupby(sorted(decided, key=_text), key=_text):
        said = [(name, label) for name, _, label in group]
        accepted = [(name, label) for name, label in said if label.decision == "accept"]
        edit = next((label.edit for _, label in reversed(accepted) if label.edit), {})
        yield Reviewed(id_, digest, tuple(name for name, _ in accepted), tuple(n for n, label in said if label.decision == "reject"), edit)


def reviewed_pairs(path: Path) -> Iterator[dict[str, Any]]:
    """The pairs of the finished run in `path` that people accepted, in the run's order, with their corrections in place.

    Pairs in a tie are left out, and so is what was said of texts that the run has replaced since.

    Raises:
        RunDirectoryError: There is no finished run, or one of its files is damaged.
    """
    good = {(reviewed.id, reviewed.digest): reviewed for reviewed in read_reviewed(path) if reviewed.good}
    for pair in rundir.read_pairs(path):
        if found := good.get((pair["id"], texts_digest(pair["prompt"], pair["chosen"], pair["rejected"], pair.get("history")))):
            yield {**pair, **found.edit}


def write_labels(path: Path, file: Path) -> int:
    """Write what was decided as a CSV file that `calibrate` reads: id, label (good or bad), who, and how many said so.

    Returns:
        How many examples it has; ties are left out.
    """
    written = 0
    with whole(file) as part, part.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(LABEL_COLUMNS)
        for said in read_reviewed(path):
            if said.good is not None:
                names = " ".join((*said.accepted, *said.rejected))
                writer.writerow((said.id, "good" if said.good else "bad", names, len(said.accepted), len(said.rejected)))
                written += 1
    return written


def _text(said: tuple[str, str, Label]) -> tuple[str, str]:
    return said[1], said[2].digest
