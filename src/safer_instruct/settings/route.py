"""What a config can say of how texts come to a category where no column tells."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from safer_instruct.yamlfile import Strict

Keyword = Annotated[str, Field(pattern=r"\w")]


class RouteConfig(Strict):
    """Which category a text belongs to. A text that reaches none of them is dropped, and its verdict `collect.route` tells the score.

    Attributes:
        by: `keywords` counts the different keywords of a category that stand in the text; `embedding` takes the cosine to the mean of the category's
            definition, its examples and those of `examples`.
        keywords: For `keywords`: words and phrases by category, `invest*` for all that begin so; by default those of the domain file.
        examples: For `embedding`: a JSONL file of texts with their `category`, relative to the config; some dozens tell more than a definition.
        least: Least score of a category; by default 1 keyword, or a cosine of 0.1.
        lead: How much it must be before the next category; where none is, the first in the domain file takes a text that several share.
        embedder: `static`, `minilm`, or `sentence-transformers:NAME-OR-FOLDER`; what a cosine means depends on it.
    """

    by: Literal["keywords", "embedding"]
    keywords: dict[str, Annotated[tuple[Keyword, ...], Field(min_length=1)]] | None = None
    examples: str | None = None
    least: Annotated[float, Field(ge=0)] | None = None
    lead: Annotated[float, Field(ge=0)] = 0.0
    embedder: str = "static"

    @model_validator(mode="after")
    def _of_its_kind(self) -> RouteConfig:
        if self.by == "keywords" and self.examples is not None:
            raise ValueError("'examples' is for 'by: embedding'")
        if self.by == "embedding" and self.keywords is not None:
            raise ValueError("'keywords' is for 'by: keywords'")
        return self

    @property
    def bound(self) -> float:
        """The least score that counts."""
        return self.least if self.least is not None else (1.0 if self.by == "keywords" else 0.1)
