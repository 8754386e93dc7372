"""Texts that go in circles."""

from __future__ import annotations

from safer_instruct.detect.words import words_of


def repeated_share(text: str) -> float:
    """Share of the word trigrams of a text that are repeats of an earlier one, 0 to 1."""
    view = words_of(text)
    parts = view.list
    if len(parts) - len(view.vocabulary) < 3:  # a repeated trigram is three words that came before
        return 0.0
    count = len(parts) - 2
    return (count - len(set(zip(parts, parts[1:], parts[2:], strict=False)))) / count  # 3 of 10 are 0.3, and 1 - 7 / 10 is more
