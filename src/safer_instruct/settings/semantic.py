"""The section `filter.semantic` of a config: duplicates in meaning, before they are paid for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from safer_instruct.yamlfile import Strict

Cosine = Annotated[float, Field(gt=0, le=1)]


class SemanticConfig(Strict):
    """Cosines from which one of two is a duplicate in meaning; with `keep: best` only, as all must be there to be compared.

    Attributes:
        text: Of two source texts; null: not compared. The longest stays.
        prompt: Of two instructions; null: not compared. The likeliest under its inducer stays.
        embedder: `static`, `minilm`, or `sentence-transformers:NAME-OR-FOLDER`. What a cosine means depends on it: look at what it
            drops (docs/dedup-and-selection.md).
    """

    text: Cosine | None = None
    prompt: Cosine | None = None
    embedder: str = "static"
