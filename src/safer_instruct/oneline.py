"""Somebody else's words, made fit for one line or one cell of ours."""

from __future__ import annotations


def one_line(text: str) -> str:
    """`text` without line breaks and control codes, and with single blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shortened(text: str, most: int) -> str:
    """`text`, or as much of it as `most` characters hold together with the dots that say so."""
    return text if len(text) <= most else text[: most - 3] + "..."


def no_formula(text: str) -> str:
    """A cell's text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
