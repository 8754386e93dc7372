"""Texts that go in circles."""

from __future__ import annotations

from safer_instruct.detect.words import words_of


def repeated_share(text: str) -> float:
    """Share of the word trigrams of a text that are repeats of an earlier one, 0 to 1."""
    view = words_of(text)
    parts = view.list
    if len(parts) - len(view.vocabulary) < 3:  # a repeated trigram is three words that came before
        return 0.0
    return 1 - len(set(zip(parts, parts[1:], parts[2:], strict=False))) / (len(parts) - 2)
