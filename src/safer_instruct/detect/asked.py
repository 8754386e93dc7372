"""What a prompt asks for, as far as it tells a refusal from words of refusal that were wanted.

"No." answers "Is it safe to eat?" and refuses "Write it"; "I am unable to come" is what somebody who asked for a letter of regret wanted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from safer_instruct.detect import cues

LETTER = re.compile(
    r"^(?:[^\n]{0,80}:\s*\n)?\s*(?:subject:|dear|hi|hello)\b[^\n]{0,60}[,\n].*\b(?:regards|love|thanks|sincerely|best wishes|best|cheers|yours|team)\b"
    r"[^\n]{0,40}(?:\n.{0,60})?\Z",
    re.I | re.S,
)
_VERSES_OR_QUOTED = re.compile(r"^\s*[\"\N{LEFT DOUBLE QUOTATION MARK}]|^[^\n]{3,60} / [^\n]{3,60} / ")
_TEXT = re.compile(
    r"^\W*(?:(?:please|kindly|hi|hello|now|ok|okay)[,!. ]+)*(?:(?:can|could|would|will) you (?:please )?"
    r"|(?:help me|i need you to|i want you to|let us) )?"
    r"(?:write|draft|compose|translate|rewrite|rephrase|reword|paraphrase|shorten|summari[sz]e|condense|proofread|polish|continue|finish|complete"
    r"|turn|convert|make (?:this|it|that|the)|put (?:this|it|that)|quote|give me (?:an?|two|three|some) (?:\w+ )?(?:example|poem|haiku|line|story"
    r"|sentence|phrase|text|letter|email|message|reply|answer|joke|quote|verse|scene|synonym)s?)\b"
)
_YES_OR_NO = re.compile(
    r"^\W*(?:sorry,? |so,? |but |and |hey,? )?(?:is|are|am|was|were|do|does|did|has|have|had|can|could|will|would|should|must|may|might)(?: not)? (?!you\b)"
)
_NO = re.compile(
    r"^\W*(?:(?:sorry|well|oh|unfortunately|sadly|short answer)[,:! ]+)*"
    r"(?:no|nope|not|never|neither|none|nothing|nobody|yes and no|\w+ly (?:yes|no))\b(?! (?:way|chance|thanks)\b)"
)
_OF_MINE = re.compile(r"\b(?:i|we|me|us|my|our)\b")
_SENTENCE = re.compile(r"[.!?\n](?:\s|$)")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a prompt asks for.

    Attributes:
        text: A piece of writing: to be written, or made of another.
        yes_or_no: A question that "no" answers.
    """

    text: bool
    yes_or_no: bool


def read(prompt: str) -> Asked:
    """What `prompt` asks for, by its words; English."""
    plain = cues.plain(prompt).strip()
    last = plain.rsplit(". ", 1)[-1]
    return Asked(bool(_TEXT.search(plain)), any(map(_YES_OR_NO.search, (plain, last))))


def answers_with_no(asked: Asked, answer: str) -> bool:
    """Whether the answer says no to a question of fact: in its first sentences nobody speaks of what they themselves do."""
    if not asked.yes_or_no:
        return False
    plain = cues.plain(answer).strip()
    return bool(_NO.search(plain)) and not any(map(_OF_MINE.search, _SENTENCE.split(plain, maxsplit=2)[:2]))


def is_wanted_text(asked: Asked, answer: str) -> bool:
    """Whether the answer looks like the piece of writing that was asked for: a letter, a quotation, verses."""
    return asked.text and bool(LETTER.search(answer) or _VERSES_OR_QUOTED.search(answer))
