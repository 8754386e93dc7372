"""Preference pairs between the sets of a study and its trainings: read, shuffled, divided, drawn and written."""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safer_instruct.detect.words import words
from safer_instruct.evaluation.settings import OverlapConfig
from safer_instruct.rundir import PAIRS_JSONL
from safer_instruct.seeds import derive_seed
from safer_instruct.settings.preference import PreferenceSource
from safer_instruct.training.data import read_unique
from safer_instruct.training.preferences import Preference
from safer_instruct.tuning.overlap import Overlap
from safer_instruct.wholefile import write_whole

SIDE, TRAINED, HELD = "side", "train", "held_out"
ASKED = "asked"  # the prompt's last message, where the honesty checks of an evaluation look
_UNTOLD = "all"  # in files: the category of pairs that have none
_OVERLAP = OverlapConfig()  # as `evaluate` has it by default: what it would warn of is not trained on


@dataclass(frozen=True, slots=True)
class StudyPair:
    """A preference pair.

    Attributes:
        prompt: The last message of the user.
        chosen: The response that is preferred.
        rejected: The other one.
        category: Of the domain; empty where nobody says.
        history: What was said before, as messages of {role, content}.
    """

    prompt: str
    chosen: str
    rejected: str
    category: str = ""
    history: tuple[Mapping[str, str], ...] = ()

    @property
    def key(self) -> bytes:
        """What it is drawn by: a digest of its texts, so that no order decides."""
        return hashlib.sha256(json.dumps([self.prompt, self.chosen, self.rejected]).encode()).digest()


def read_pairs(path: Path, category_column: str | None = None) -> tuple[list[StudyPair], int]:
    """The pairs of a run directory or a file, each once, and how many rows were set aside.

    Raises:
        SourceError: It is missing, or no row is usable.
    """
    column = category_column or ("category" if (path / PAIRS_JSONL).is_file() else None)
    pairs, _, bad = read_unique((PreferenceSource(path=str(path), group=column),), Path())
    return [_of(pair, categorised=column is not None) for pair in pairs], len(bad)


def deranged(pairs: Sequence[StudyPair], seed: int) -> list[StudyPair]:
    """The pairs with the prompts of others of their category, none with its own words; those that no other prompt is there for are left out.

    Within a category the prompts go round in one circle that the seed draws (Sattolo 1986), so each is used once.
    """
    by_category: defaultdict[str, list[int]] = defaultdict(list)
    for at, pair in enumerate(pairs):
        by_category[pair.category].append(at)
    found: dict[int, StudyPair] = {}
    for category, places in sorted(by_category.items()):
        circle = list(places)
        random.Random(derive_seed(seed, "shuffled", category)).shuffle(circle)
        for at, other in zip(circle, [*circle[1:], *circle[:1]], strict=True):
            found[at] = replace(pairs[at], prompt=pairs[other].prompt, history=pairs[other].history)
    return [found[at] for at in range(len(pairs)) if words(found[at].prompt) != words(pairs[at].prompt)]


def apart_from(pairs: Sequence[StudyPair], prompts: Sequence[str]) -> tuple[list[StudyPair], int]:
    """The pairs whose prompt does not overlap with any of `prompts`, and how many do: same words, a near-duplicate, or a long run of words."""
    index = Overlap(prompts, _OVERLAP.near, shared_run=_OVERLAP.shared_run)
    kept = [pair for pair in pairs if not index.why(pair.prompt)]
    return kept, len(pairs) - len(kept)


def keep_for_evaluation(pairs: Sequence[StudyPair], count: int) -> list[StudyPair]:
    """One pair for each of `count` prompts, by the hash of the prompt's words, categories in turn."""
    by_prompt: dict[tuple[str, ...], StudyPair] = {}
    for pair in pairs:
        by_prompt.setdefault(tuple(words(pair.prompt)), pair)
    ranked = sorted(by_prompt, key=lambda said: hashlib.sha256(" ".join(said).encode()).digest())
    lines: defaultdict[str, list[StudyPair]] = defaultdict(list)
    for said in ranked:
        lines[by_prompt[said].category].append(by_prompt[said])
    in_turn = [line[at] for at in range(max(map(len, lines.values()), default=0)) for _, line in sorted(lines.items()) if at < len(line)]
    return in_turn[:count]


def draw(pairs: Iterable[StudyPair], count: int, held_out: int) -> tuple[list[StudyPair], list[StudyPair]]:
    """`count` pairs to train on and `held_out` to choose the best state by, as their hash has it."""
    ranked = sorted(pairs, key=lambda pair: pair.key)
    return ranked[:count], ranked[count : count + held_out]


def write_training(path: Path, train: Sequence[StudyPair], held_out: Sequence[StudyPair]) -> None:
    """The file that a training reads: TRL's columns, and which side of the split each pair stands on."""
    rows = [{**_row(pair), SIDE: side} for side, pairs in ((TRAINED, train), (HELD, held_out)) for pair in pairs]
    write_rows(path, rows)


def write_pairs(path: Path, pairs: Iterable[StudyPair]) -> None:
    """A set, in TRL's columns."""
    write_rows(path, [_row(pair) for pair in pairs])


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _row(pair: StudyPair) -> dict[str, Any]:
    prompt: Any = [*pair.history, {"role": "user", "content": pair.prompt}] if pair.history else pair.prompt
    said = {"chosen": pair.chosen, "rejected": pair.rejected}
    sides = {name: [{"role": "assistant", "content": text}] for name, text in said.items()} if pair.history else said
    return {"prompt": prompt, **sides, "category": pair.category or _UNTOLD, ASKED: pair.prompt}


def _of(pair: Preference, *, categorised: bool) -> StudyPair:
    history = tuple(asdict(turn) for turn in pair.history)
    category = pair.group if categorised and pair.group != _UNTOLD else ""
    return StudyPair(pair.prompt, pair.response, pair.rejected, category, history)
