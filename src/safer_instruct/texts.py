"""Which texts the verdicts of an example speak of, whatever became of it and whichever side of the pair the corpus is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from safer_instruct.domain import Direction
from safer_instruct.example import Example


class Texts(NamedTuple):
    """A pair, or what there was of one when an example was dropped; empty is what was never written.

    Attributes:
        prompt: The instruction.
        chosen: The better side.
        rejected: The worse one.
    """

    prompt: str
    chosen: str
    rejected: str


def direction_of(summary: Mapping[str, Any]) -> Direction:
    """Which side of its pairs a run's corpus is, by `summary.json`; runs from before there was a choice do not say."""
    return "chosen" if summary.get("domain", {}).get("direction") == "chosen" else "rejected"


def judged_texts(example: Example, direction: Direction) -> Texts:
    """The texts that the verdicts of an example speak of.

    Of a pair they are its own. Of a dropped example the source text stands on its side, and on the other the draft that was refused
    last; without a prompt, the likeliest instruction that was refused. A twin has no source text: the expert's side is the chosen one.

    Args:
        example: With candidates, drafts and verdicts where it has no prompt, or lacks a side.
        direction: That of the run's domain.
    """
    prompt = example.prompt or next((candidate.text for candidate in example.candidates), "")
    if example.twin_of:
        if not example.rejected:
            return Texts(prompt, "", _refused(example))
        return Texts(prompt, example.chosen or _refused(example), example.rejected)
    if direction == "chosen":
        return Texts(prompt, example.chosen or example.text, example.rejected or _refused(example))
    return Texts(prompt, example.chosen or _refused(example), example.rejected_text)


def _refused(example: Example) -> str:
    """The draft whose verdicts the example ends with; where it was taken back later, the last that was so by what dropped the example."""
    judged = [draft for draft in reversed(example.drafts) if draft.verdicts]
    ended, dropped = example.ended_with, example.dropped_by
    return (ended.text if ended else "") or next((draft.text for draft in judged if dropped and draft.verdicts[-1].name == dropped.name), "")
