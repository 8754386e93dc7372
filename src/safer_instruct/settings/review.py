"""What a domain says of the people who read its pairs: what they are asked, which tags they may set, what is veiled from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from safer_instruct.yamlfile import Strict

Side = Literal["prompt", "chosen", "rejected"]
_ID = r"^[a-z0-9][a-z0-9_]{0,39}$"


class ReviewQuestion(Strict):
    """A question that a reader answers with yes or no.

    Attributes:
        id: Short name, as in exported labels.
        ask: The question.
        of: What it speaks of; when sides are blind, only questions about the prompt are asked.
    """

    id: Annotated[str, Field(pattern=_ID)]
    ask: Annotated[str, Field(min_length=1, max_length=300)]
    of: Side | Literal["pair"] = "pair"


QUALITY = (
    ReviewQuestion(id="prompt_valid", ask="Is the instruction valid: could a person have asked it?", of="prompt"),
    ReviewQuestion(id="rejected_fits", ask="Is the rejected response an answer to this very instruction?", of="rejected"),
    ReviewQuestion(id="category_right", ask="Is the category right for the rejected response?", of="rejected"),
    ReviewQuestion(id="chosen_fits", ask="Does the chosen response speak to the instruction?", of="chosen"),
    ReviewQuestion(id="chosen_better", ask="Is the chosen response the better one, by the domain's guideline?"),
)
"""What the paper's authors asked of 200 instances, in questions about one pair."""


class ReviewConfig(Strict):
    """The section `review` of a domain file.

    Attributes:
        questions: The checklist; at most nine, one per digit key.
        tags: Offered to every reader, who may add others.
        veil: What is blurred until the reader asks for it.
    """

    questions: Annotated[tuple[ReviewQuestion, ...], Field(max_length=9)] = QUALITY
    tags: tuple[Annotated[str, Field(min_length=1, max_length=40)], ...] = ("unclear", "off topic", "factual error", "personal data")
    veil: tuple[Side, ...] = ("rejected",)

    @model_validator(mode="after")
    def _distinct(self) -> ReviewConfig:
        ids = [question.id for question in self.questions]
        if len(set(ids)) < len(ids):
            raise ValueError("each question needs an id of its own")
        return self
