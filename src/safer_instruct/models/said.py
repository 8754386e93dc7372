"""What of a model's answer is what it says: not the reasoning before it, where the server leaves that in, and no NUL.

The ledger keeps answers as they came; they are read so each time they are used, whether they came just now or long ago.
"""

from __future__ import annotations

import re
from dataclasses import replace

from safer_instruct.models.protocol import Completion, Generated

_OPENED = re.compile(r"\s*<(think|thinking|reasoning)>", re.I)
_CLOSED = {name: re.compile(f"</{name}>", re.I) for name in ("think", "thinking", "reasoning")}
_ALONE = re.compile(  # the template has opened it (DeepSeek-R1, Qwen3): at the end of a line, or the answer follows at once; who quotes it goes on otherwise
    r"(?<![`'\"])</think>(?=[^\S\n]*(?:\n|\Z)|[^\s`'\".,;:!?)])", re.I
)


def said(answer: Generated) -> Generated:
    """An answer with what it says alone; the same object where nothing else is in it."""
    completions = tuple(map(_spoken, answer.completions))
    return answer if all(new is old for new, old in zip(completions, answer.completions, strict=True)) else replace(answer, completions=completions)


def without_reasoning(text: str) -> str:
    """A text without the reasoning at its beginning; from the opening mark on where that has no end."""
    at = 0
    while opened := _OPENED.match(text, at):
        if not (closed := _CLOSED[opened[1].lower()].search(text, opened.end())):
            return text[at:].lstrip()
        at = closed.end()
    if not at and (closed := _ALONE.search(text)) and not re.search("<think>", text[: closed.start()], re.I):
        at = closed.end()
    return text[at:].lstrip() if at else text


def reasoning_mark(text: str) -> str:
    """The mark of a model's reasoning at the beginning of a text, such as `<think>`, or the lone `</think>` behind it; empty without one."""
    if opened := _OPENED.match(text):
        return opened[0].strip().lower()
    return "</think>" if without_reasoning(text) != text else ""


def is_unended(text: str) -> bool:
    """Whether a text is nothing but reasoning that has no end."""
    return _OPENED.match(without_reasoning(text)) is not None


def why_unfinished(text: str, setting: str) -> str:
    """What is wrong with a completion that is not finished; `setting` is the one that bounds it."""
    if mark := is_unended(text) and reasoning_mark(text):
        return f"is reasoning without an end ({mark}), and no answer; raise {setting}, or turn the model's reasoning off"
    return f"was cut at the token limit ({setting})"


def _spoken(completion: Completion) -> Completion:
    if completion.withheld:
        return completion
    text = completion.text.replace("\0", "")  # as of a source text, nothing else is touched
    answer = without_reasoning(text)
    if answer == text and not is_unended(text):
        return completion if text == completion.text else replace(completion, text=text)
    # what is known of likelihood is of reasoning and answer together
    return replace(completion, text=answer, finished=completion.finished and not is_unended(answer), logprob=None, tokens=None)
