"""Documents cut into passages: paragraphs under their headings, joined and split to a length in words, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from safer_instruct.oneline import one_line, shortened
from safer_instruct.settings.documents import DocumentConfig

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_HEADING_CHARS = 80


@dataclass(frozen=True, slots=True)
class Block:
    """One paragraph or heading of a document.

    Attributes:
        text: What it says.
        kind: `item` is one of a list, which stands on a line of its own.
        level: Of a heading, from 1.
        page: From 1; 0 where the document has no pages.
    """

    text: str
    kind: Literal["paragraph", "item", "heading"] = "paragraph"
    level: int = 0
    page: int = 0


@dataclass(frozen=True, slots=True)
class Passage:
    """A text out of a document.

    Attributes:
        text: Its paragraphs, with empty lines between.
        place: Where it stands, for people: 'page 3, Returns > Refunds, paragraph 7'.
        paragraph: Number in the document of its first paragraph, from 1; headings are not counted.
    """

    text: str
    place: str
    paragraph: int


def cut(blocks: Iterable[Block], config: DocumentConfig) -> Iterator[Passage]:
    """Passages in order; nothing is left out but headings, which are told in the place.

    Args:
        blocks: Of one document.
        config: By what, and how long.
    """
    headings: list[tuple[int, str]] = []
    held: list[Block] = []
    first = number = words = 0
    for block in blocks:
        if block.kind == "heading":
            if held:
                yield _passage(held, headings, first)
            held, words = [], 0
            headings = [h for h in headings if h[0] < block.level] + [(block.level, shortened(one_line(block.text), _HEADING_CHARS))]
            continue
        number += 1
        for part in _parts(block, config.max_words):
            size = len(part.text.split())
            if held and (config.by == "paragraph" or words + size > config.max_words):
                yield _passage(held, headings, first)
                held, words = [], 0
            first = first if held else number
            held.append(part)
            words += size
    if held:
        yield _passage(held, headings, first)


def _parts(block: Block, max_words: int) -> Iterator[Block]:
    """The block, or where it is too long, runs of its sentences; a sentence that is too long is cut between words."""
    if len(block.text.split()) <= max_words:
        yield block
        return
    held: list[str] = []
    size = 0
    for sentence in _SENTENCE.split(block.text):
        words = sentence.split()
        for begin in range(0, len(words), max_words):
            piece = words[begin : begin + max_words]
            if held and size + len(piece) > max_words:
                yield Block(" ".join(held), block.kind, block.level, block.page)
                held, size = [], 0
            held += piece
            size += len(piece)
    if held:
        yield Block(" ".join(held), block.kind, block.level, block.page)


def _passage(held: list[Block], headings: list[tuple[int, str]], first: int) -> Passage:
    text = held[0].text
    for before, block in pairwise(held):
        text += ("\n" if before.kind == block.kind == "item" else "\n\n") + block.text
    page = [f"page {held[0].page}"] if held[0].page else []
    path = [" > ".join(title for _, title in headings)] if headings else []
    return Passage(text, ", ".join([*page, *path, f"paragraph {first}"]), first)
