"""Rules on the form of a text: cheap, deterministic, each one a small filter."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from safer_instruct.example import Example
from safer_instruct.filters.protocol import Filter, Finding

_WORD = re.compile(r"[\w']+")
_TEMPLATE_MARKS = re.compile(r"###|<\|[a-z_]+\|>|^below is (?:a|an)\b.{0,40}\b(?:response|instruction)\b|\bthe response is trying to complete\b", re.I)
_REFUSAL = re.compile(
    r"^(?:i(?:'m| am) (?:sorry|afraid)[, ]+(?:but )?i (?:can(?:'t|not)|(?:am|'m) (?:unable|not able))"
    r"|i (?:can(?:'t|not)|won't|am unable to|must decline to) (?:help|assist|comply|fulfil|provide|answer|do that)"
    r"|as an? (?:ai|language model)\b)",
    re.I,
)


class Length(Filter):
    """Bounds on the number of words.

    Attributes:
        min_words: Fewer words are too few.
        max_words: More words are too many.
    """

    min_words: Annotated[int, Field(gt=0)] = 4
    max_words: Annotated[int, Field(gt=0)] = 150

    def check(self, example: Example) -> Finding:
        """Count the words; the score is their number."""
        count = len(self.subject(example).split())
        if count < self.min_words:
            return Finding(False, count, f"{count} words, fewer than {self.min_words}")
        return Finding(count <= self.max_words, count, f"{count} words, more than {self.max_words}")


class Template(Filter):
    """Pieces of a prompt template, as an inducer writes them that has lost its thread."""

    def check(self, example: Example) -> Finding:
        """Look for a piece of a template."""
        found = _TEMPLATE_MARKS.search(self.subject(example))
        return Finding(False, None, f"holds a piece of a prompt template: {found.group(0)[:40]!r}") if found else Finding(True)


class Refusal(Filter):
    """An inducer that refuses writes no instruction."""

    on: Literal["prompt"] = "prompt"

    def check(self, example: Example) -> Finding:
        """Look for a refusal at the beginning."""
        found = _REFUSAL.search(example.prompt.strip())
        return Finding(False, None, f"is a refusal and not an instruction: {found.group(0)[:40]!r}") if found else Finding(True)


class Copying(Filter):
    """Instructions that quote the text they were induced from.

    Attributes:
        max_shared_run: Longest run of words that it may share with the text.
    """

    on: Literal["prompt"] = "prompt"
    max_shared_run: Annotated[int, Field(gt=0)] = 7

    def check(self, example: Example) -> Finding:
        """Look for the longest shared run of words; the score is its length."""
        mine = words(example.prompt)
        run = longest_shared_run(mine, words(example.text))
        if run > self.max_shared_run:
            return Finding(False, run, f"shares a run of {run} words with the text, more than {self.max_shared_run}")
        return Finding(not mine or run < len(mine), run, "stands in the text word for word")


class Repetition(Filter):
    """Texts that go round in circles.

    Attributes:
        max_repetition: Largest share of word trigrams that may be repeats.
    """

    max_repetition: Annotated[float, Field(ge=0, lt=1)] = 0.3

    def check(self, example: Example) -> Finding:
        """Look for repeated trigrams; the score is their share."""
        mine = words(self.subject(example))
        trigrams = list(zip(mine, mine[1:], mine[2:], strict=False))
        share = 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0
        reason = f"{share:.0%} of its word trigrams are repeats, more than {self.max_repetition:.0%}"
        return Finding(share <= self.max_repetition, round(share, 4), reason)


class Language(Filter):
    """Texts that are reliably found to be in another language than those wanted.

    Attributes:
        languages: ISO 639-1 codes. Empty: any.
    """

    languages: tuple[str, ...] = ("en",)

    def check(self, example: Example) -> Finding:
        """Ask CLD2; where it is not sure, the text passes."""
        if not self.languages:
            return Finding(True)
        found = _detect(self.subject(example))
        return Finding(found is None or found in self.languages, None, f"is in '{found}', not in {', '.join(self.languages)}")


def words(text: str) -> list[str]:
    """Lower-case words of a text, curly apostrophes made straight."""
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def longest_shared_run(left: list[str], right: list[str]) -> int:
    """Length of the longest run of words that both sides have: O(len(left) * len(right)) time, O(len(right)) memory."""
    best, previous = 0, [0] * (len(right) + 1)
    for word in left:
        current = [0] * (len(right) + 1)
        for j, other in enumerate(right, 1):
            if word == other:
                current[j] = previous[j - 1] + 1
                best = max(best, current[j])
        previous = current
    return best


def _detect(text: str) -> str | None:
    """ISO 639-1 code of the language of a text, or None where CLD2 is not sure."""
    import pycld2

    try:
        reliable, _, details = pycld2.detect(text, bestEffort=False)
    except pycld2.error:  # not valid UTF-8 for CLD2: leave the text to the other rules
        return None
    return str(details[0][1]) if reliable and details[0][1] != "un" else None
