"""What people said, given back: labels for `calibrate`, pairs for export."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safer_instruct import rundir, stored, tables
from safer_instruct.calibration.labels import Scored, read_examples
from safer_instruct.conversation import as_messages, texts_digest
from safer_instruct.errors import ConfigError, RunDirectoryError
from safer_instruct.review.store import Label, read_labels
from safer_instruct.texts import direction_of, judged_texts
from safer_instruct.wholefile import whole

LABEL_COLUMNS = ("id", "label", "annotators", "accepted", "rejected", "texts")


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


@dataclass(frozen=True, slots=True)
class Missing:
    """Accepted ones of which nobody has said anything as they stand in the run now.

    Attributes:
        replaced: They are pairs of the run still, with other texts.
        dropped: Dropped ones, by the check that dropped them.
        gone: The run has no example of that id any more.
    """

    replaced: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    gone: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.replaced + sum(self.dropped.values()) + self.gone


class Accepted:
    """Which pairs of a run people accepted, and their corrections."""

    def __init__(self, path: Path) -> None:
        """Read the review of the run in `path`.

        Raises:
            RunDirectoryError: Nobody reviewed it, or the review database is damaged.
        """
        decided = list(reviewed_of(path))
        self._path = path
        self._edits = {(said.id, said.digest): said.edit for said in decided if said.good}
        self._decided = {(said.id, said.digest): said for said in decided}
        self._met: set[str] = set()

    @cached_property
    def missing(self) -> Missing:
        """Accepted ones that no pair given to `take` was, once it was given all of them: what became of each."""
        ids = {id_ for id_, _ in self._edits} - self._met
        return _what_became(self._path, ids) if ids else Missing()

    @property
    def left_out(self) -> str:
        """What was decided and is neither acceptance nor rejection of an example as it stands now, in the words of `Current`; empty where nothing was."""
        standing = _standing(self._path)
        current = [said for key, said in self._decided.items() if key in standing]
        return Current((), sum(said.good is None for said in current), 0, len(_gone(self._decided, standing))).left_out

    def take(self, pair: dict[str, Any]) -> dict[str, Any] | None:
        """The pair with the corrections in place; None where it was not accepted.

        Pairs in a tie are left out, and so is what was said of texts that the run no longer holds.
        """
        key = pair["id"], texts_digest(pair["prompt"], pair["chosen"], pair["rejected"], pair.get("history"))
        if key in self._decided:
            self._met.add(pair["id"])
        edit = self._edits.get(key)
        return None if edit is None else {**pair, **edit}


def _what_became(path: Path, ids: set[str]) -> Missing:
    found: Counter[str] = Counter()
    with tables.opened(path, rundir.EXAMPLES) as parquet:
        for batch in parquet.iter_batches(columns=["id", "dropped_by"]):
            found.update(row["dropped_by"] or "" for row in batch.to_pylist() if row["id"] in ids)
    return Missing(found[""], {name: count for name, count in sorted(found.items()) if name}, len(ids) - found.total())


def _standing(path: Path) -> set[tuple[str, str]]:
    """Id and digest of every example as it stands."""
    direction = direction_of(rundir.read_summary(path))
    return {(e.id, texts_digest(*judged_texts(e, direction), as_messages(e.history))) for e in stored.read_examples(path)}


def _gone(decided: Collection[tuple[str, str]], standing: Container[tuple[str, str]]) -> set[str]:
    """Of ids and digests that were decided, the ids of which nothing stands as it was read."""
    return {id_ for id_, _ in decided} - {key[0] for key in decided if key in standing}


def reviewed_of(path: Path) -> Iterator[Reviewed]:
    """As `read_reviewed`, of a run that was reviewed.

    Raises:
        RunDirectoryError: Nobody has reviewed it, or the review database is damaged.
    """
    if not (path / rundir.REVIEW).is_file():
        raise RunDirectoryError(f"{path} has no review yet; begin one: safer-instruct review {path}")
    yield from read_reviewed(path)


@dataclass(frozen=True, slots=True)
class Current:
    """What was decided of a run's examples as they stand now, for their scores to be fitted to.

    Attributes:
        labels: Each with what the majority says.
        ties: Left out: as many accepted as rejected.
        corrected: Left out: accepted with corrections, so that what was scored is not what was accepted.
        replaced: Left out: of texts that the run no longer holds.
        unscored: Left out: of examples without any score.
    """

    labels: tuple[tuple[Reviewed, bool], ...]
    ties: int
    corrected: int
    replaced: int
    unscored: int = 0

    @property
    def left_out(self) -> str:
        """In words; empty where nothing was."""
        counts = (
            (self.corrected, "accepted only as corrected"),
            (self.replaced, "of texts that the run no longer holds"),
            (self.unscored, "of an example without a score"),
            (self.ties, "a tie"),
        )
        return ", ".join(f"{count} {what}" for count, what in counts if count)


def current_labels(path: Path, examples: Iterable[Scored]) -> Current:
    """What was decided of these examples as they stand in the run now."""
    decided = list(read_reviewed(path))
    place = {(example.id, example.digest): number for number, example in enumerate(examples if decided else ())}
    current = sorted((said for said in decided if (said.id, said.digest) in place), key=lambda said: place[said.id, said.digest])
    standing: Container[tuple[str, str]] = _standing(path) if len(current) < len(decided) else place
    unscored = {said.id for said in decided if (said.id, said.digest) in standing and (said.id, said.digest) not in place}
    plain = [(said, said.good) for said in current if said.good is not None and not (said.good and said.edit)]
    ties = sum(said.good is None for said in current)
    gone = _gone([(said.id, said.digest) for said in decided], standing)
    return Current(tuple(plain), ties, len(current) - len(plain) - ties, len(gone), len(unscored))


def write_labels(path: Path, file: Path) -> Current:
    """Write what was decided as a CSV file that `calibrate` reads: id, label (good or bad), who, how many said so, and the digest of what they read.

    Returns:
        What was written, and what was left out.

    Raises:
        ConfigError: `file` is something other than labels of a review, such as a sheet that people filled in.
        RunDirectoryError: There is no finished run, nothing of it is decided, or one of its files is damaged.
    """
    if file.is_file() and not _ours(file):
        raise ConfigError(f"{file} exists already, and was not written by a review; give --labels another name, or move it away")
    current = current_labels(path, read_examples(path))
    if not current.labels:
        left_out = f" (left out: {current.left_out})" if current.left_out else ""
        nothing = f"nobody has accepted or rejected anything of {path} as it stands now{left_out}"
        raise RunDirectoryError(f"{nothing}; read some: safer-instruct review {path}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file) as part, part.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(LABEL_COLUMNS)
        for said, good in current.labels:
            names = " ".join((*said.accepted, *said.rejected))
            writer.writerow((said.id, "good" if good else "bad", names, len(said.accepted), len(said.rejected), said.digest))
    return current


def _ours(file: Path) -> bool:
    with file.open("rb") as written:
        return written.readline().rstrip() == ",".join(LABEL_COLUMNS).encode()


def _text(said: tuple[str, str, Label]) -> tuple[str, str]:
    return said[1], said[2].digest
