"""The nearest of the names that there are, for messages about one that is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(said: str, known: Iterable[str], *, otherwise: str = "", cutoff: float = 0.5) -> str:
    """A question that names the nearest of the `known` names, or what to say where none is near.

    Args:
        said: The name that is none of them.
        known: The names that there are.
        otherwise: What to say instead.
        cutoff: How alike names must be, from 0 (anything) to 1 (equal); `difflib`'s ratio.
    """
    near = difflib.get_close_matches(said, list(known), n=1, cutoff=cutoff)
    return f"did you mean '{near[0]}'?" if near else otherwise
