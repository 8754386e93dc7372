"""From a row in anybody's form to prompt, chosen and rejected: columns of text, messages, or transcripts that begin alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from safer_instruct.errors import SourceError
from safer_instruct.example import Turn
from safer_instruct.oneline import listed
from safer_instruct.sources.conversations import is_transcript, read_turns
from safer_instruct.sources.records import RowRefused, visible

PROMPTS = ("prompt", "instruction", "question", "query", "input", "messages")
CHOSEN = ("chosen", "preferred_output", "chosen_response", "response_chosen", "preferred", "better", "win")
REJECTED = ("rejected", "non_preferred_output", "rejected_response", "response_rejected", "dispreferred", "worse", "lose")
_ANSWER = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(?:Human|Assistant): ?")


class Texts(NamedTuple):
    """One pair as text."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is which; None is found by its name.

    Attributes:
        prompt: The instruction: text or messages. '' for none: both sides are transcripts that begin alike.
        chosen: The preferred response.
        rejected: The other one.
    """

    prompt: str | None = None
    chosen: str | None = None
    rejected: str | None = None

    def found(self, names: Sequence[str], where: str) -> Columns:
        """With a name for each.

        Raises:
            SourceError: There is no column for a side.
        """
        lower = {name.lower(): name for name in reversed(names)}
        chosen = _side(self.chosen, CHOSEN, names, "chosen", where)
        rejected = _side(self.rejected, REJECTED, names, "rejected", where)
        if self.prompt and self.prompt not in names:
            raise SourceError(f"{where}: no column '{visible(self.prompt)}' for the prompt; columns: {_listed(names)}; name one with --prompt")
        prompt = self.prompt if self.prompt is not None else next((lower[name] for name in PROMPTS if name in lower), "")
        return Columns(prompt, chosen, rejected)

    def read(self, fields: Mapping[str, object]) -> Texts:
        """What a row says; every name must have been found.

        Raises:
            RowRefused: The row lacks a side, or one is neither text nor a conversation.
        """
        chosen, rejected = (_value(fields, name or "") for name in (self.chosen, self.rejected))
        asked = _value(fields, self.prompt) if self.prompt else None
        if isinstance(chosen, str) and isinstance(rejected, str):
            return _transcripts(chosen, rejected) if asked is None else Texts(_as_text(asked, self.prompt or ""), chosen, rejected)
        left, right = _conversation(chosen, self.chosen or "chosen"), _conversation(rejected, self.rejected or "rejected")
        before = _shared(left, right)
        prompt = spoken(left[:before]) if asked is None else _as_text(asked, self.prompt or "")
        return Texts(prompt, spoken(left[before:]), spoken(right[before:]))


def spoken(turns: Sequence[Turn]) -> str:
    """Turns as one text: a single one as it is, several each behind its role."""
    return turns[0].content if len(turns) == 1 else "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)


def _side(given: str | None, known: Sequence[str], names: Sequence[str], side: str, where: str) -> str:
    lower = {name.lower(): name for name in reversed(names)}
    name = next((lower[k] for k in known if k in lower), None) if given is None else given if given in names else None
    if name is None:
        unpaired = "; this looks like unpaired data (KTO), which has no pairs to audit" if {"label", "completion"} <= lower.keys() else ""
        lacking = f"column '{visible(given)}'" if given else "column"
        raise SourceError(f"{where}: no {lacking} for the {side} response; columns: {_listed(names)}; name it with --{side} COLUMN{unpaired}")
    return name


def _transcripts(chosen: str, rejected: str) -> Texts:
    """Two transcripts that part at an answer, as Anthropic's HH has them; two plain texts have no prompt."""
    if not (is_transcript(chosen) and is_transcript(rejected)):
        return Texts("", chosen, rejected)
    left, right = (_split(text) for text in (chosen, rejected))
    before = 0
    while before < min(len(left), len(right)) - 1 and left[before] == right[before]:
        before += 1
    asked = "".join(left[:before]).removesuffix("\n\nAssistant: ").removesuffix(_ANSWER).strip()
    if asked.count("\n\nHuman:") == 0:
        asked = asked.removeprefix("Human:").strip()
    return Texts(asked, "".join(left[before:]).strip(), "".join(right[before:]).strip())


def _split(transcript: str) -> list[str]:
    """Marks and what is said behind them, one after the other."""
    ends = [edge for found in _TURN.finditer(transcript) for edge in found.span()]
    return [transcript[a:b] for a, b in zip([0, *ends], [*ends, len(transcript)], strict=True)]


def _shared(left: Sequence[Turn], right: Sequence[Turn]) -> int:
    """How many turns both conversations begin with; each keeps its last."""
    same = 0
    while same < min(len(left), len(right)) - 1 and left[same] == right[same]:
        same += 1
    return same


def _value(fields: Mapping[str, object], name: str) -> object:
    value = fields.get(name)
    if isinstance(value, Mapping) and "messages" in value:  # OpenAI's form of a prompt
        value = value["messages"]
    if value is None:
        raise RowRefused(f"no column '{visible(name)}'" if name not in fields else f"column '{visible(name)}' is null")
    return value


def _as_text(value: object, name: str) -> str:
    return value if isinstance(value, str) else spoken(read_turns(value, f"column '{visible(name)}'"))


def _conversation(value: object, name: str) -> list[Turn]:
    return [Turn("assistant", value)] if isinstance(value, str) else read_turns(value, f"column '{visible(name)}'")


def _listed(names: Sequence[str]) -> str:
    return listed([visible(name) for name in names], 30)
