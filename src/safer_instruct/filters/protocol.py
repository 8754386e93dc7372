"""What a filter is: a few options, and one method that looks at one example."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, NamedTuple, Self

from pydantic import model_validator

from safer_instruct.example import Example
from safer_instruct.yamlfile import Strict

Place = Literal["text", "prompt", "pair"]
"""Where a filter stands: before induction, on each induced instruction, or after a response was accepted."""


class Finding(NamedTuple):
    """What a filter found.

    Attributes:
        passed: Whether the example may stay.
        score: The number that was looked at, in the filter's own unit; None where there is none.
        reason: Why it did not pass, in a sentence without its subject: 'holds an address'. Not looked at where it passed.
    """

    passed: bool
    score: float | None = None
    reason: str = ""


class Filter(Strict):
    """One check of one example. A subclass is a filter: its fields are the options that a config may set.

    A filter is called once for each example (for each candidate, where it looks at instructions) and must depend on nothing
    but its options and that example, so that a run can be repeated. What it needs besides is made once, in a
    `functools.cached_property`, or in `model_post_init(self, context)`, where `context["base"]` is the config's folder. What it
    raises in `check` is the verdict of that example, and the run goes on.

    Attributes:
        on: What it looks at, set by the section it stands in. A filter that makes sense in some places only says so:
            `on: Literal["prompt"] = "prompt"`.
        mode: `drop` drops what does not pass; `flag` only records it; `mask` mends a source text (see `mend`) and records that.
    """

    on: Place
    mode: Literal["drop", "flag", "mask"] = "drop"

    @model_validator(mode="after")
    def _mends_what_it_masks(self) -> Self:
        if self.mode == "mask" and (self.on != "text" or type(self).mend is Filter.mend):
            raise ValueError("only filters that can mend a text have the mode 'mask' (pii and secrets), and only in filter.text; use 'drop' or 'flag'")
        return self

    @abstractmethod
    def check(self, example: Example) -> Finding:
        """Look at `example`: on "prompt" and "pair" its `prompt` is set, on "pair" also `chosen`."""

    def mend(self, example: Example) -> str:
        """The source text without what `check` found in it. Asked before induction, in mode `mask`, where an example did not pass.

        In a conversation it is asked for each turn that did not pass, as if that were the text.
        """
        return example.text

    def subject(self, example: Example) -> str:
        """What a filter of a single text looks at: the source text, the instruction, or the accepted response."""
        return example.text if self.on == "text" else example.prompt if self.on == "prompt" else example.chosen
