"""Language of a text, by CLD2."""

from __future__ import annotations

from functools import lru_cache

_MAX_CHARS = 4_000  # CLD2 is sure long before


@lru_cache(maxsize=256)
def language_of(text: str) -> str | None:
    """ISO 639-1 code of the language of a text, or None where CLD2 is not sure."""
    import pycld2

    try:
        reliable, _, details = pycld2.detect(text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS], bestEffort=False)
    except (pycld2.error, UnicodeEncodeError):  # not valid UTF-8: leave the text to other detectors
        return None
    return str(details[0][1]) if reliable and details[0][1] != "un" else None
