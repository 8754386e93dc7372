"""Texts shown to a judge stand between marks that no text can write: what it says cannot end it."""

from __future__ import annotations

import hashlib
from itertools import count


def mark_for(*texts: str) -> str:
    """A mark that occurs in none of `texts`: made from a digest of them all, so the same texts always get the same one.

    A text cannot hold the digest of itself; should it hold one of another length by chance, the next is taken.
    """
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    for number in count():
        mark = f"DATA-{hashlib.sha256(number.to_bytes(8, 'big') + joined).hexdigest()[:12]}"
        if not any(mark in text for text in texts):
            return mark
    raise AssertionError("unreachable: `count` has no end")
