"""Rules on the form of a text: cheap, deterministic, each one a small filter."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from safer_instruct.detect.injection import template_mark
from safer_instruct.detect.language import check_languages, language_of
from safer_instruct.detect.leakage import longest_shared_run
from safer_instruct.detect.repetition import repeated_share
from safer_instruct.detect.words import words_of
from safer_instruct.example import Example
from safer_instruct.filters.protocol import Filter, Finding
from safer_instruct.oneline import many

_REFUSAL = re.compile(
    r"^(?:i(?:'m| am) (?:sorry|afraid)[, ]+(?:but )?i (?:can(?:'t|not)|(?:am|'m) (?:unable|not able))"
    r"|i (?:can(?:'t|not)|won't|am unable to|must decline to) (?:help|assist|comply|fulfil|provide|answer|do that)"
    r"|as an? (?:ai|language model)\b)",
    re.I,
)


def refusal_mark(instruction: str) -> str:
    """The beginning by which an instruction is known to be an inducer's refusal, or ''."""
    found = _REFUSAL.match(instruction.strip())
    return found.group(0) if found else ""


class Length(Filter):
    """Bounds on the number of words.

    Attributes:
        min_words: Fewer words are too few.
        max_words: More words are too many.
    """

    min_words: Annotated[int, Field(gt=0)] = 4
    max_words: Annotated[int, Field(gt=0)] = 150

    @model_validator(mode="after")
    def _least_is_less(self) -> Length:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is more than max_words {self.max_words}: every text would be dropped")
        return self

    def check(self, example: Example) -> Finding:
        """Count the words; the score is their number."""
        count = len(self.subject(example).split())
        if count < self.min_words:
            return Finding(False, count, f"{many(count, 'word')}, fewer than {self.min_words}")
        return Finding(count <= self.max_words, count, f"{count} words, more than {self.max_words}")


class Template(Filter):
    """Pieces of a prompt template, as an inducer writes them that has lost its thread."""

    def check(self, example: Example) -> Finding:
        """Look for a piece of a template."""
        found = template_mark(self.subject(example))
        return Finding(not found, None, f"holds a piece of a prompt template: {found[:40]!r}")


class Refusal(Filter):
    """An inducer that refuses writes no instruction."""

    on: Literal["prompt"] = "prompt"

    def check(self, example: Example) -> Finding:
        """Look for a refusal at the beginning."""
        found = refusal_mark(example.prompt)
        return Finding(False, None, f"is a refusal and not an instruction: {found[:40]!r}") if found else Finding(True)


class Copying(Filter):
    """Instructions that quote the text they were induced from, stand in it whole, or were said before in their conversation.

    Attributes:
        max_shared_run: Longest run of words that it may share with the text; an instruction that stands in it whole fails, however short it is.
    """

    on: Literal["prompt"] = "prompt"
    max_shared_run: Annotated[int, Field(gt=0)] = 7

    def check(self, example: Example) -> Finding:
        """Look for the longest shared run of words; the score is its length."""
        mine, view = words_of(example.prompt).list, words_of(example.text)
        run = longest_shared_run(mine, view.list, view)
        if said := said_already(example):
            return Finding(False, run, said)
        if run > self.max_shared_run:
            return Finding(False, run, f"shares a run of {run} words with the text, more than {self.max_shared_run}")
        return Finding(not mine or run < len(mine), run, "stands in the text word for word")


def said_already(example: Example) -> str:
    """Why an instruction is no new one: an inducer that is shown the turns before it may take it from them; or ''."""
    asked = f" {' '.join(words_of(example.prompt).list)} "
    said = next((turn.role for turn in example.history if asked.strip() and asked in words_of(turn.content).joined), "")
    return f"was said before in the conversation, by the {said}" if said else ""


class Repetition(Filter):
    """Texts that go round in circles.

    Attributes:
        max_repetition: Largest share of word trigrams that may be repeats.
    """

    max_repetition: Annotated[float, Field(ge=0, lt=1)] = 0.3

    def check(self, example: Example) -> Finding:
        """Look for repeated trigrams; the score is their share."""
        share = repeated_share(self.subject(example))
        reason = f"{share:.0%} of its word trigrams are repeats, more than {self.max_repetition:.0%}"
        return Finding(share <= self.max_repetition, round(share, 4), reason)


class Language(Filter):
    """Texts that are reliably found to be in another language than those wanted.

    Attributes:
        languages: ISO 639-1 codes. Empty: any.
    """

    languages: tuple[str, ...] = ("en",)

    @field_validator("languages")
    @classmethod
    def _codes(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        check_languages(languages)
        return languages

    def check(self, example: Example) -> Finding:
        """Ask CLD2; where it is not sure, the text passes."""
        if not self.languages:
            return Finding(True)
        found = language_of(self.subject(example))
        return Finding(found is None or found in self.languages, None, f"is in '{found}', not in {', '.join(self.languages)}")
