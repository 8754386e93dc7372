"""docs/faq.md quotes messages as they stand in the code: every fixed part of each is looked for in the strings of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faq.md").read_text("utf-8")
MESSAGES = [block.strip() for block in re.findall(r"^```text\n(.*?)```$", PAGE, re.M | re.S)]
SHORT = 4  # of a part such as ': ' or ' at ' nobody can say where it comes from


@cache
def strings() -> str:
    """Every string of the package, and of every f-string the pieces between what is filled in; one a line."""
    found = (node.value for path in sorted((ROOT / "src").rglob("*.py")) for node in ast.walk(ast.parse(path.read_text("utf-8"))) if is_text(node))
    return "\n".join(found)


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def fixed_parts(message: str) -> Iterator[str]:
    """What a message says in every case; where several pieces of code wrote it, their pieces, which meet at a mark."""
    for part in re.split(r"<[^>]*>", message):
        pieces = [part] if part in strings() else re.split(r"[;:,] ", part)
        yield from (stripped for piece in pieces if len(stripped := piece.strip(" ();:,.'")) >= SHORT)


def missing(message: str) -> list[str]:
    return [part for part in fixed_parts(message) if part not in strings()]


@pytest.mark.parametrize("message", MESSAGES)
def test_every_fixed_part_of_a_quoted_message_stands_in_the_code(message: str) -> None:
    assert missing(message) == []
    assert sum(map(len, fixed_parts(message))) >= 12, "nothing of it could be compared"


def test_each_kind_of_failure_has_its_message() -> None:
    assert len(MESSAGES) >= 40 and len(set(MESSAGES)) == len(MESSAGES)
    assert all("\n" not in message for message in MESSAGES)


@pytest.mark.parametrize("wrong", ["the disk is fuller; what was saved", "<DIR> is used by process <4711>; wait for it", "<x> needs a kee: set it"])
def test_a_message_that_nobody_writes_is_found(wrong: str) -> None:
    assert missing(wrong) != []
