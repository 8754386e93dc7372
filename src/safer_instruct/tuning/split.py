"""The split: decided by each group's own hash or name, so that it never depends on order, and nothing similar stands on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from textwrap import shorten
from typing import TypeVar

from safer_instruct.errors import SourceError
from safer_instruct.example import Verdict
from safer_instruct.nearest import did_you_mean
from safer_instruct.settings.pairs import Holdout
from safer_instruct.tuning.overlap import Overlap
from safer_instruct.tuning.pairs import Pair

P = TypeVar("P", bound=Pair)
_SHOWN, _GROUP_CHARS = 8, 40


def split(pairs: Sequence[P], holdout: Holdout) -> tuple[list[P], list[P]]:
    """(training, held out): by named group where the pair's group is one, otherwise by a hash of the group.

    A file whose groups are named in `holdout.groups` is split by those names alone.

    Raises:
        SourceError: A side is empty, or no pair has a group that is named.
    """
    named = set(holdout.groups)
    if missing := sorted(named.difference(p.group for p in pairs)):
        raise SourceError(_no_such_group(missing[0], sorted({p.group for p in pairs})))
    split_by_name = {p.source for p in pairs if p.group in named}
    hashed = _held_by_hash([p.group for p in pairs if p.source not in split_by_name], holdout)
    train: list[P] = []
    held: list[P] = []
    for pair in pairs:
        out = pair.group in (named if pair.source in split_by_name else hashed)
        (held if out else train).append(pair)
    if not train or not held:
        smaller = not train and hashed and holdout.count is not None
        remedy = f"write a smaller count than 'holdout: {{count: {holdout.count}}}'" if smaller else "write 'holdout: {count: N}'"
        raise SourceError(f"the split leaves {len(train)} pairs to train on and {len(held)} held out; both are needed: {remedy}, or give more pairs")
    return train, held


def straddling(train: Sequence[P], held_out: Sequence[P], holdout: Holdout, texts: Sequence[str] = ("prompt", "response")) -> dict[P, Verdict]:
    """The pairs to train on that a held-out one gives away: same or nearly the same instruction or response."""
    if holdout.near_duplicate is None:
        return {}
    sides = [(side, Overlap((getattr(p, side) for p in held_out), holdout.near_duplicate)) for side in texts]
    found: dict[P, Verdict] = {}
    for pair in train:
        for side, index in sides:
            if why := index.why(getattr(pair, side)):
                found[pair] = Verdict(f"split.{side}", False, None, f"its {side} {why}, compared with what is held out")
                break
    return found


def _no_such_group(name: str, groups: Sequence[str]) -> str:
    there = ", ".join(shorten(group, _GROUP_CHARS, placeholder="...") for group in groups[:_SHOWN]) + (", ..." if len(groups) > _SHOWN else "")
    near = did_you_mean(name, groups)
    return (
        f"'holdout.groups': no usable row has the group '{name}'; {near}{near and ' '}there are: {there} "
        "(the column is the one that 'group' names in 'data'; without it a group is an instruction)"
    )


def _held_by_hash(groups: Sequence[str], holdout: Holdout) -> set[str]:
    if holdout.count is None:
        return {group for group in groups if _fraction(group) < holdout.share}
    held: set[str] = set()
    sizes = Counter(groups)
    for group in sorted(sizes, key=lambda g: (_fraction(g), g)):
        if sum(sizes[g] for g in held) >= holdout.count:
            break
        held.add(group)
    return held


def _fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
