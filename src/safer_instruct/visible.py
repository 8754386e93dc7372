"""Characters that hide, reorder or command, turned into marks that a person sees, and what Markdown would read made plain."""

from __future__ import annotations

import re
import unicodedata

_KEPT = {"\n", "\t", "\N{ZERO WIDTH JOINER}", "\N{ZERO WIDTH NON-JOINER}"}  # joiners spell emoji and Persian words
_HIDDEN = {"\N{COMBINING GRAPHEME JOINER}", "\N{HANGUL FILLER}", "\N{HANGUL CHOSEONG FILLER}", "\N{HANGUL JUNGSEONG FILLER}", "\N{HALFWIDTH HANGUL FILLER}"}
_SEPARATORS = {"\N{LINE SEPARATOR}", "\N{PARAGRAPH SEPARATOR}"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$@]|:(?=\S)|(?<=www)\.|^[-+#=])")  # no address becomes a link, no first character a heading or a list
_OPEN, _CLOSE = "\N{MATHEMATICAL LEFT ANGLE BRACKET}", "\N{MATHEMATICAL RIGHT ANGLE BRACKET}"


def visible(text: str) -> str:
    """The text with a mark such as `⟨U+202E⟩` in the place of each control, format or private character, and of a lone surrogate.

    Terminal escapes, bidirectional controls, zero-width characters and Unicode tags say nothing to a reader and something to a
    program; line breaks, tabs and the joiners that scripts and emoji need stay as they are. A carriage return before a line feed goes.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_mark(c) if hides(c) else c for c in text.replace("\r\n", "\n"))


def hides(character: str) -> bool:
    """Whether it is one that `visible` marks."""
    if character in _KEPT:
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") or character in _HIDDEN or character in _SEPARATORS


def shorten(text: str, most: int) -> str:
    """At most so many characters of it, with an ellipsis where it was longer."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def plain(text: str) -> str:
    """For Markdown, on one line, with every character that Markdown or HTML reads made plain."""
    clean = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", " ".join(clean.split()))


def as_code(text: str) -> str:
    """For Markdown, on one line, as code: nothing in it is read, and it ends where it should, in a table too."""
    return f"`{' '.join(visible(text).split()).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _mark(character: str) -> str:
    return f"{_OPEN}U+{ord(character):04X}{_CLOSE}"
