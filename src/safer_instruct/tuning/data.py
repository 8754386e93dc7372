"""Tuning data from its files to the two sides of the split, with a funnel that accounts for every row."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safer_instruct.errors import ConfigError, SourceError
from safer_instruct.example import Verdict
from safer_instruct.holding import of_others
from safer_instruct.settings.pairs import CleanConfig, Holdout, PairSource
from safer_instruct.sources import BadRow
from safer_instruct.tuning.clean import clean
from safer_instruct.tuning.pairs import Pair, read_pairs
from safer_instruct.tuning.split import split, straddling
from safer_instruct.wholefile import whole, write_whole

TRAIN, HELD_OUT, DROPPED, BAD_ROWS, FUNNEL = "train.jsonl", "held_out.jsonl", "dropped.jsonl", "rejected_rows.jsonl", "funnel.json"


@dataclass(frozen=True, slots=True)
class Funnel:
    """What became of every row; `pairs = sum(cleaned) + sum(straddling) + train + held_out`.

    Attributes:
        formats: One line on each source's format.
        set_aside: Rows that could not be read.
        pairs: Pairs that the others gave: a conversation gives one per answer.
        cleaned: Reason -> pairs dropped for it before the split.
        straddling: Reason -> pairs dropped from the training side for being too like one held out.
        train: Pairs to train on.
        held_out: Pairs held out.
    """

    formats: tuple[str, ...]
    set_aside: int
    pairs: int
    cleaned: Mapping[str, int]
    straddling: Mapping[str, int]
    train: int
    held_out: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """Tuning data, ready to be rendered.

    Attributes:
        train: Pairs to train on, in input order.
        held_out: Pairs held out, in input order.
        funnel: The counts.
        dropped: What was dropped, with the verdict that did it.
        bad_rows: What could not be read.
    """

    train: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    funnel: Funnel
    dropped: tuple[tuple[Pair, Verdict], ...] = field(repr=False, default=())
    bad_rows: tuple[BadRow, ...] = field(repr=False, default=())

    @property
    def sha256(self) -> str:
        """Digest of what is trained on and what is held out."""
        content = [[(p.prompt, p.response, p.source, [asdict(t) for t in p.history]) for p in side] for side in (self.train, self.held_out)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def prepare(data: tuple[PairSource, ...], cleaning: CleanConfig, holdout: Holdout, base: Path) -> Prepared:
    """Read, clean and split tuning data.

    Args:
        data: Where it is.
        cleaning: What a pair must pass.
        holdout: Which pairs are kept out of training.
        base: What paths are relative to.

    Raises:
        SourceError: A source is missing, no row is usable, or a side of the split is empty.
    """
    formats: list[str] = []
    bad: list[BadRow] = []
    verdicts = list(clean(_good(read_pairs(data, base, formats.append), bad), cleaning, base))
    kept = [pair for pair, verdict in verdicts if verdict.passed]
    cleaned = [(pair, verdict) for pair, verdict in verdicts if not verdict.passed]
    if not kept:
        raise SourceError(_nothing_left(len(verdicts), cleaned, bad))
    train, held_out = split(kept, holdout)
    straddles = straddling(train, held_out, holdout)
    train = [pair for pair in train if pair not in straddles]
    if not train:
        raise SourceError(f"every pair to train on is nearly the same as one of the {len(held_out)} held out; see 'holdout.near_duplicate'")
    funnel = Funnel(tuple(formats), len(bad), len(verdicts), _counts(v for _, v in cleaned), _counts(straddles.values()), len(train), len(held_out))
    return Prepared(tuple(train), tuple(held_out), funnel, (*cleaned, *straddles.items()), tuple(bad))


def write_prepared(prepared: Prepared, folder: Path) -> list[Path]:
    """Write both sides, what was dropped and why, the bad rows and the counts; returns the files.

    Raises:
        ConfigError: The folder holds files of these names that are none of prepared data.
    """
    if there := of_others(folder, (TRAIN, HELD_OUT, DROPPED, BAD_ROWS), (FUNNEL,)):
        raise ConfigError(f"{folder} holds {', '.join(there)} of something else; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        TRAIN: map(_row, prepared.train),
        HELD_OUT: map(_row, prepared.held_out),
        DROPPED: ({"file": p.file, "line": p.line, "check": v.name, "reason": v.reason, "prompt": p.prompt[:200]} for p, v in prepared.dropped),
        BAD_ROWS: map(asdict, prepared.bad_rows),
    }
    write_whole(folder / FUNNEL, json.dumps(asdict(prepared.funnel), indent=1) + "\n")  # first: by it such a folder is known
    for name, rows in files.items():
        with whole(folder / name) as part, part.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return [folder / name for name in (*files, FUNNEL)]


def _good(read: Iterable[Pair | BadRow], bad: list[BadRow]) -> Iterable[Pair]:
    for item in read:
        if isinstance(item, BadRow):
            bad.append(item)
        else:
            yield item


def _counts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    return dict(Counter(verdict.name for verdict in verdicts).most_common())


def _row(pair: Pair) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt": pair.prompt, "response": pair.response, "group": pair.group, "source": pair.source}
    return row | ({"history": [asdict(turn) for turn in pair.history]} if pair.history else {})


def _nothing_left(pairs: int, cleaned: list[tuple[Pair, Verdict]], bad: list[BadRow]) -> str:
    if cleaned:
        pair, verdict = cleaned[0]
        return f"none of the {pairs} tuning pairs passes cleaning; the first, {pair.file}:{pair.line}: {verdict.reason} ({verdict.name}; see 'clean')"
    if bad:
        return bad[0].of_all(len(bad), "rows of tuning data")
    return "the tuning data holds no row; see 'data'"
