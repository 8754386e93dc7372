"""The section `select` of a run's config, also the options of `safer-instruct select`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from safer_instruct.errors import ConfigError
from safer_instruct.settings.numbers import Positive, Similarity
from safer_instruct.yamlfile import Strict


class SelectConfig(Strict):
    """Which of the accepted pairs make the set: without duplicates, and the best and most varied `target` of them.

    Attributes:
        target: How many pairs; null takes all that are no duplicates.
        near: Jaccard similarity of word trigrams (prompt, chosen and rejected together) from which of two pairs only the one with the larger
            margin stays; null switches it off.
        semantic: Cosine of two prompts, or pairs, from which only the one with the larger margin stays; null switches it off. What
            it means depends on the embedder: look at what it drops (docs/dedup-and-selection.md).
        contradictions: Jaccard similarity of word trigrams of two prompts from which of a pair whose chosen response refuses and one whose
            chosen response helps only the one with the larger margin stays; 1 asks for the same words. Null keeps both. Mind
            that a harmful prompt and its harmless twin may differ in one word: stay at 0.9 or above where the set holds twins.
        semantic_of: What `semantic` compares: `prompt`, or `pair`, all three texts together.
        quality: `margin` (chosen over rejected, as the verifier found it) or `none`: diversity alone.
        quality_weight: From 0, coverage alone, to 1, quality alone.
        quotas: Shares of the target by category, in any unit: `{hate: 1, illegal: 1}` is half and half. A category that is not
            named gets none, one that has too few pairs leaves places empty. Null: no quotas.
        embedder: `static`, `minilm`, or `sentence-transformers:NAME-OR-FOLDER`.
        seed: Of the samples that the search looks at.
    """

    target: Positive | None = None
    near: Similarity | None = 0.7
    semantic: Similarity | None = None
    contradictions: Similarity | None = None
    semantic_of: Literal["prompt", "pair"] = "prompt"
    quality: Literal["margin", "none"] = "margin"
    quality_weight: Annotated[float, Field(ge=0, le=1)] = 0.2
    quotas: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    embedder: str = "static"
    seed: int = 0


def read_quotas(given: Sequence[str]) -> dict[str, float]:
    """Quotas as the command line gives them, `CATEGORY=SHARE`.

    Raises:
        ConfigError: One is not of that form, or a category stands twice.
    """
    quotas: dict[str, float] = {}
    for one in given:
        name, _, share = one.rpartition("=")
        if wrong := _wrong(name, share, quotas):
            raise ConfigError(f"'{one}' is no quota: {wrong}; write CATEGORY=SHARE, for example --quota hate=1 --quota illegal=2")
        quotas[name] = float(share)
    return quotas


def _wrong(name: str, share: str, quotas: Mapping[str, float]) -> str:
    """What is wrong with a quota beside those before it; empty where nothing is."""
    if not name:
        return "it names no category, or no share"
    if name in quotas:
        return f"'{name}' is given twice"
    try:
        value = float(share)
    except ValueError:
        return f"'{share}' is no number"
    return "" if 0 <= value < math.inf else "a share is 0 or more" if value < 0 else "a share is a finite number"
