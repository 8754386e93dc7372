"""What makes a line or a cell of ours: somebody else's words, and counted things."""

from __future__ import annotations

from collections.abc import Sequence


def one_line(text: str) -> str:
    """`text` without line breaks and control codes, and with single blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shortened(text: str, most: int) -> str:
    """`text`, or as much of it as `most` characters hold together with the dots that say so."""
    return text if len(text) <= most else text[: most - 3] + "..."


def no_formula(text: str) -> str:
    """A cell's text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def listed(names: Sequence[str], most: int = 5) -> str:
    """`a, b, c`, and how many there are beyond the first `most`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def many(count: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def calls_words(calls: int, from_ledger: int, repeated: int) -> str:
    """`3 model calls (1 of them from the ledger)`.

    Args:
        calls: All of them.
        from_ledger: How many of them the ledger had the answers of before this sitting.
        repeated: How many of them are equal to another one of this sitting, and took its answer.
    """
    equal = f", {repeated:,} answered by an equal one of this sitting" if repeated else ""
    return f"{many(calls, 'model call')} ({from_ledger:,} of them from the ledger{equal})"


def tenths(seconds: float) -> str:
    """`1,234.5`, of milliseconds: those of a ledger show the same as those of a summary, which has been rounded to them."""
    return f"{round(seconds, 3):,.1f}"
