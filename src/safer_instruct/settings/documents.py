"""What a config can say of documents as sources: how they are cut, and how large they may be."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from safer_instruct.settings.numbers import Positive
from safer_instruct.yamlfile import Strict


class DocumentConfig(Strict):
    """How HTML, PDF and DOCX become texts.

    Attributes:
        by: `heading` joins the paragraphs below one heading up to `max_words`, `paragraph` keeps each by itself.
        min_words: Shorter passages are set aside.
        max_words: No paragraph is added to a passage beyond it; a longer paragraph is cut between sentences.
        max_mb: Larger documents are set aside, and so is a DOCX whose parts unpack to more.
        max_pages: A PDF of more pages is set aside.
    """

    by: Literal["heading", "paragraph"] = "heading"
    min_words: Positive = 20
    max_words: Positive = 300
    max_mb: Positive = 32
    max_pages: Positive = 2_000

    @model_validator(mode="after")
    def _in_order(self) -> DocumentConfig:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is more than max_words {self.max_words}")
        return self
