"""One pass over a finished run: everything that the report's sections are made from, in memory that does not grow with the texts."""

from __future__ import annotations

import heapq
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from safer_instruct import rundir, stored
from safer_instruct.analysis.diversity import Clusters, near_clusters
from safer_instruct.analysis.filters import SetFigures, describe_filters
from safer_instruct.conversation import told_apart
from safer_instruct.detect.words import words
from safer_instruct.domain import Direction
from safer_instruct.errors import RunDirectoryError
from safer_instruct.example import Example
from safer_instruct.ledger import Total, read_totals
from safer_instruct.report.document import Sample
from safer_instruct.seeds import derive_seed
from safer_instruct.texts import direction_of, judged_texts
from safer_instruct.visible import hides, shorten

TEXTS_LOOKED_AT = 20_000  # pairs whose texts are kept for what cannot be counted in passing
_KEPT_SHOWN, _DROPPED_SHOWN, _FLAGGED_SHOWN, _TWINS_SHOWN = 60, 12, 6, 20
_SHOWN_CHARS = 1_500
T = TypeVar("T")
_REASONS = 400  # different reasons counted for one filter; what numbers stand in them makes no other reason


@dataclass(frozen=True, slots=True)
class Pair:
    """The texts of one example that came through."""

    category: str
    prompt: str
    chosen: str
    rejected: str


class Lowest(Generic[T]):
    """The items of the lowest rank: a sample that depends on the ids alone."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._items: list[tuple[int, int, T]] = []
        self._seen = 0

    def add(self, rank: int, item: T) -> None:
        """Offer one."""
        self._seen += 1
        self._items.append((rank, self._seen, item))
        if len(self._items) > 2 * self._count:
            self._items = heapq.nsmallest(self._count, self._items, key=lambda entry: entry[:2])

    def items(self) -> list[T]:
        """Those taken, in the order in which they came."""
        taken = heapq.nsmallest(self._count, self._items, key=lambda entry: entry[:2])
        return [item for _, _, item in sorted(taken, key=lambda entry: entry[1])]


@dataclass(slots=True)
class Scores:
    """The values of one score, by what became of the verdict."""

    passed: array[float] = field(default_factory=lambda: array("d"))
    failed: array[float] = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class RunView:
    """What is known of one run.

    Attributes:
        name: Of its folder.
        summary: `summary.json`; empty for a dataset of others, which has texts and nothing else.
        config: The run's config, as `run.yaml` has it.
        totals: Calls by stage and model; empty where the ledger is gone, or cannot be read.
        figures: What each filter did.
        rows, kept: Examples and pairs by category.
        words: Words of each `prompt`, `chosen` and `rejected` of a pair, in order.
        scores: By name, of the examples' own verdicts.
        reasons: By filter, why it dropped, with numbers left out.
        pairs: A sample of at most 20,000.
        prompts: Those of all pairs.
        samples: To be read by people.
        clusters: Near-duplicates among all prompts.
        hidden: Texts that hold characters nobody sees.
        identical: Pairs whose responses are the same.
        unread_ledger: Why the ledger cannot be read; empty where it can, or is gone.
    """

    name: str
    path: Path
    summary: dict[str, Any]
    config: dict[str, Any]
    totals: list[Total]
    figures: SetFigures
    rows: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    words: dict[str, array[int]] = field(default_factory=lambda: {name: array("l") for name in ("prompt", "chosen", "rejected")})
    scores: dict[str, Scores] = field(default_factory=lambda: defaultdict(Scores))
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    pairs: list[Pair] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    clusters: Clusters = field(default_factory=lambda: Clusters(0, 0, (), ()))
    hidden: int = 0
    identical: int = 0
    unread_ledger: str = ""


def read_run(path: Path) -> RunView:
    """Read a finished run.

    Raises:
        RunDirectoryError: There is none, or one of its files is damaged.
    """
    summary = rundir.read_summary(path)
    direction = direction_of(summary)
    totals, unread = _totals(path / rundir.LEDGER)
    view = RunView(path.resolve().name, path, summary, _config(path), totals, SetFigures(0, 0, ()), unread_ledger=unread)
    pairs: Lowest[Pair] = Lowest(TEXTS_LOOKED_AT)
    shown: dict[tuple[str, str], Lowest[Sample]] = {}
    compared: list[str] = []

    def passing() -> Iterator[Example]:
        for example in stored.read_examples(path):
            rank = derive_seed(0, example.id)
            for outcome, by, most in _outcomes(example):
                shown.setdefault((outcome, by), Lowest(most)).add(rank, _sample(view.name, example, direction, outcome, by))
            if example.twin_of:  # counted apart, as in the summary
                continue
            _count(view, example)
            if example.alive:
                compared.append(told_apart(example.history, example.prompt))
                pairs.add(rank, Pair(example.category, example.prompt, example.chosen, example.rejected_text))
            yield example

    view.figures = describe_filters(passing())
    view.pairs = pairs.items()
    view.clusters = near_clusters(compared)
    view.samples = [sample for key in sorted(shown, key=lambda key: (key[0] != "kept", key)) for sample in shown[key].items()]
    return view


def _totals(ledger: Path) -> tuple[list[Total], str]:
    """Of a ledger that is gone, damaged or of another version nothing, and why: the summary has the sums, if not the models."""
    try:
        return (read_totals(ledger) if ledger.is_file() else []), ""
    except RunDirectoryError as exc:
        return [], str(exc)


def _count(view: RunView, example: Example) -> None:
    view.rows[example.category] += 1
    for verdict in example.verdicts:
        if verdict.score is not None:
            scores = view.scores[verdict.name]
            (scores.passed if verdict.passed else scores.failed).append(verdict.score)
    view.hidden += any((not text.isascii() and any(map(hides, text))) or "\x1b" in text for text in _texts(example))
    if dropped := example.dropped_by:
        reasons = view.reasons[dropped.name]
        reason = _plain(dropped.reason)
        reasons[reason if reason in reasons or len(reasons) < _REASONS else "other reasons"] += 1
        return
    view.kept[example.category] += 1
    for name, text in (("prompt", example.prompt), ("chosen", example.chosen), ("rejected", example.rejected_text)):
        view.words[name].append(len(words(text)))
    view.prompts.append(example.prompt)
    view.identical += example.chosen.strip() == example.rejected_text.strip()


def _texts(example: Example) -> tuple[str, ...]:
    return (example.text, example.prompt, example.chosen, example.rejected, *(turn.content for turn in example.history))


def _outcomes(example: Example) -> Iterator[tuple[str, str, int]]:
    if dropped := example.dropped_by:
        yield "dropped", dropped.name, _DROPPED_SHOWN
        return
    if example.twin_of:
        yield "twin", "", _TWINS_SHOWN
        return
    yield "kept", "", _KEPT_SHOWN
    for verdict in example.verdicts:
        if verdict.flag and not verdict.passed:
            yield "flagged", verdict.name, _FLAGGED_SHOWN


def _sample(run: str, example: Example, direction: Direction, outcome: str, by: str) -> Sample:
    verdicts = tuple((v.name, v.passed, v.score, shorten(v.reason, 300)) for v in example.verdicts)
    prompt, chosen, rejected = (shorten(text, _SHOWN_CHARS) for text in judged_texts(example, direction))
    history = tuple((turn.role, shorten(turn.content, _SHOWN_CHARS)) for turn in example.history)
    return Sample(run, example.id, example.category, outcome, by, prompt, chosen, rejected, verdicts, history)


def _plain(reason: str) -> str:
    """A reason without its numbers, so that equal ones count as one."""
    words = ("#" if word.strip("+-.,;:()%").replace(".", "").replace(",", "").isdigit() else word for word in shorten(reason, 160).split())
    return " ".join(words) or "no reason given"


def _config(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load((path / rundir.RUN).read_text(encoding="utf-8"))
        config = data["config"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as exc:
        raise rundir.unreadable(path / rundir.RUN, exc) from exc
    return config if isinstance(config, dict) else {}
