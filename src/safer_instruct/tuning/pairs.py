"""Tuning pairs: read, checked, and split so that no group stands on both sides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.config import Holdout, PairSource
from safer_instruct.errors import SourceError


@dataclass(frozen=True, slots=True)
class Pair:
    """An instruction and the response to it.

    Attributes:
        prompt: The instruction.
        response: What answers it.
        group: What the split goes by.
        source: Stem of the file it came from; losses are reported per source.
    """

    prompt: str
    response: str
    group: str
    source: str


def read_pairs(sources: tuple[PairSource, ...], base: Path) -> Iterator[Pair]:
    """The pairs of all `sources`, in order.

    Raises:
        SourceError: A file is missing, or a row is not usable; tuning data is written by hand and must be whole.
    """
    for source in sources:
        path = base / source.path
        if not path.is_file():
            raise SourceError(f"tuning data {path} does not exist (from 'path: {source.path}', relative to {base})")
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield _pair(line, source, f"{path}:{number}", path.stem)


def split(pairs: list[Pair], holdout: Holdout) -> tuple[list[Pair], list[Pair]]:
    """(training, held out): by named group where the pair's group is one, otherwise by a hash of the group.

    A file whose groups are named in `holdout.groups` is split by those names alone.
    """
    named = set(holdout.groups)
    split_by_name = {p.source for p in pairs if p.group in named}
    train: list[Pair] = []
    held: list[Pair] = []
    for pair in pairs:
        out = pair.group in named if pair.source in split_by_name else _fraction(pair.group) < holdout.share
        (held if out else train).append(pair)
    if not train or not held:
        raise SourceError(f"the split leaves {len(train)} pairs to train on and {len(held)} held out; both are needed (see 'holdout')")
    return train, held


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _pair(line: str, source: PairSource, where: str, stem: str) -> Pair:
    try:
        row = json.loads(line)
        prompt, response = row[source.prompt], row[source.response]
        group = row[source.group] if source.group else prompt
    except json.JSONDecodeError as exc:
        raise SourceError(f"{where}: not JSON: {exc}") from exc
    except (KeyError, TypeError) as exc:
        raise SourceError(f"{where}: no field {exc} in this row") from exc
    for field, value in ((source.prompt, prompt), (source.response, response)):
        if not isinstance(value, str) or not value.strip():
            raise SourceError(f"{where}: field '{field}' must be text and not empty")
    return Pair(prompt.strip(), response.strip(), str(group), stem)
