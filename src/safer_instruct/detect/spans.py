"""Findings in a text: where they are, what they are, and the text with them masked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """One finding: its kind, and `text[start:end]`."""

    kind: str
    start: int
    end: int


def counted(spans: Iterable[Span]) -> dict[str, int]:
    """How many findings of each kind there are, kinds in alphabetical order."""
    return dict(sorted(Counter(span.kind for span in spans).items()))


def masked(text: str, spans: Iterable[Span]) -> str:
    """`text` with each finding replaced by its kind: `<email>`."""
    parts, at = [], 0
    for span in sorted(spans, key=lambda s: s.start):
        if span.start >= at:
            parts += [text[at : span.start], f"<{span.kind}>"]
            at = span.end
    return "".join((*parts, text[at:]))


def apart(spans: Sequence[Span]) -> list[Span]:
    """The findings in order, without those that overlap an earlier one of `spans`: put the surest kinds first."""
    kept: list[Span] = []
    for span in spans:
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda s: s.start)
