"""What people said, given back: labels for `calibrate`, pairs for export."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safer_instruct import rundir
from safer_instruct.calibration.labels import Scored, read_examples
from safer_instruct.conversation import texts_digest
from safer_instruct.errors import ConfigError, RunDirectoryError
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


class Accepted:
    """Which pairs of a run people accepted, and their corrections."""

    def __init__(self, path: Path) -> None:
        """Read the review of the run in `path`.

        Raises:
            RunDirectoryError: Nobody reviewed it, or the review database is damaged.
        """
        self._edits = {(said.id, said.digest): said.edit for said in reviewed_of(path) if said.good}

    def take(self, pair: dict[str, Any]) -> dict[str, Any] | None:
        """The pair with the corrections in place; None where it was not accepted.

        Pairs in a tie are left out, and so is what was said of texts that the run has replaced since.
        """
        edit = self._edits.get((pair["id"], texts_digest(pair["prompt"], pair["chosen"], pair["rejected"], pair.get("history"))))
        return None if edit is None else {**pair, **edit}


def reviewed_of(path: Path) -> Iterator[Reviewed]:
    """As `read_reviewed`, of a run that was reviewed.

    Raises:
        RunDirectoryError: Nobody has reviewed it, or the review database is damaged.
    """
    if not (path / rundir.REVIEW).is_file():
        raise RunDirectoryError(f"{path} has no review yet; begin one: safer-instruct review {path}")
    yield from read_reviewed(path)


def current_labels(path: Path, examples: Iterable[Scored]) -> list[tuple[Reviewed, bool]]:
    """What was decided of these examples as they stand in the run now; ties and labels of texts since replaced are left out."""
    decided = {(said.id, said.digest): said for said in read_reviewed(path) if said.good is not None}
    found = (decided.get((e.id, e.digest)) for e in examples) if decided else ()
    return [(said, said.good) for said in found if said is not None and said.good is not None]


def write_labels(path: Path, file: Path) -> int:
    """Write what was decided as a CSV file that `calibrate` reads: id, label (good or bad), who, and how many said so.

    Returns:
        How many examples it has; ties, and labels of texts that the run has replaced since, are left out.

    Raises:
        ConfigError: `file` is something other than labels of a review, such as a sheet that people filled in.
        RunDirectoryError: There is no finished run, nothing of it is decided, or one of its files is damaged.
    """
    if file.is_file() and not _ours(file):
        raise ConfigError(f"{file} exists already, and was not written by a review; give --labels another name, or move it away")
    labels = current_labels(path, read_examples(path))
    if not labels:
        nothing = f"nobody has accepted or rejected anything of {path} as it stands now, ties left out"
        raise RunDirectoryError(f"{nothing}; read some: safer-instruct review {path}")
    with whole(file) as part, part.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(LABEL_COLUMNS)
        for said, good in labels:
            names = " ".join((*said.accepted, *said.rejected))
            writer.writerow((said.id, "good" if good else "bad", names, len(said.accepted), len(said.rejected)))
    return len(labels)


def _ours(file: Path) -> bool:
    with file.open("rb") as written:
        return written.readline().rstrip() == ",".join(LABEL_COLUMNS).encode()


def _text(said: tuple[str, str, Label]) -> tuple[str, str]:
    return said[1], said[2].digest
