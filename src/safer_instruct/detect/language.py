"""Language of a text, by CLD2."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

_MAX_CHARS = 4_000  # CLD2 is sure long before
_OLDER = {"iw": "he", "jw": "jv"}


@lru_cache(maxsize=256)
def language_of(text: str) -> str | None:
    """ISO 639-1 code of the language of a text, or None where CLD2 is not sure."""
    import pycld2

    try:
        reliable, _, details = pycld2.detect(text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS], bestEffort=False)
    except (pycld2.error, UnicodeEncodeError):  # not valid UTF-8: leave the text to other detectors
        return None
    return _iso(details[0][1]) if reliable and details[0][1] != "un" else None


@lru_cache(maxsize=1)
def known_languages() -> frozenset[str]:
    """The codes that `language_of` may give."""
    import pycld2

    return frozenset(_iso(code) for _, code in pycld2.LANGUAGES if len(code.partition("-")[0]) in (2, 3) and not code.startswith(("xx", "zz")))


def check_languages(codes: Iterable[str]) -> None:
    """That each is the code of a language that `language_of` knows: no text would ever be in another.

    Raises:
        ValueError: One is not.
    """
    for code in codes:
        if code not in known_languages():
            hint = f"did you mean '{code[:2]}'?" if code[:2] in known_languages() else "write two small letters (ISO 639-1), such as en or de"
            raise ValueError(f"'{code}' is no code of a language that is told; {hint}")


def _iso(code: str) -> str:
    """CLD2 has older codes for two languages, and tells scripts and countries apart."""
    base = code.partition("-")[0]
    return _OLDER.get(base, base)
