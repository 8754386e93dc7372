"""HTML as paragraphs: what a reader of the page reads, without menus, forms and scripts."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any

from safer_instruct.extras import require
from safer_instruct.sources.passages import Block
from safer_instruct.sources.records import RowRefused

_LEFT_OUT = frozenset(
    (
        *("head", "script", "style", "noscript", "template", "nav", "footer", "aside", "form", "button", "select", "textarea", "label"),
        *("svg", "math", "iframe", "object", "canvas", "audio", "video", "dialog", "menu", "#comment", "-comment"),
    )
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_INLINE = frozenset(
    (
        *("a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img", "ins", "kbd", "mark", "q", "s"),
        *("samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr", "td", "th"),
    )
)
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9-]*)")
_NEVER_NEST = frozenset(  # without an end, or ended by the next of their kind
    (
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr", "p", "li", "dt", "dd"),
        *("tr", "td", "th", "thead", "tbody", "tfoot", "colgroup", "option", "optgroup", "html", "head", "body"),
    )
)
_DEEPEST = 2_000
_MOST_ATTRIBUTES = 10_000
_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.I)
_CHARSET_WITHIN = 2_048  # bytes; browsers look at 1,024
_PERMALINK = " #\N{PILCROW SIGN}"  # which generators put behind headings
_SPACE = re.compile(r"\s+")


def read_html(raw: bytes) -> Iterator[Block]:
    """The paragraphs, list items and headings of a page, in order.

    Raises:
        RowRefused: It cannot be decoded.
        MissingExtraError: The extra `docs` is not installed.
    """
    yield from parse_html(decode_html(raw))


def parse_html(text: str) -> Iterator[Block]:
    """As `read_html`, for a page that is decoded already."""
    lexbor = require("selectolax.lexbor", extra="docs", purpose="reading HTML")
    check_depth(text)
    tree = lexbor.LexborHTMLParser(text)
    mains = tree.css("main")
    root = mains[0] if len(mains) == 1 else tree.body
    if root is not None:
        yield from _walk(root)


def check_depth(text: str) -> None:
    """The parser's time grows with the square of the depth, and of the attributes of a tag: a megabyte of '<div>' would take it minutes.

    Raises:
        RowRefused: Tags nest too deeply, or one has too many attributes.
    """
    for piece in text.split("<"):
        if len(piece) > _MOST_ATTRIBUTES and len(piece.partition(">")[0].split()) > _MOST_ATTRIBUTES:
            raise RowRefused(f"the page is broken: a tag has more than {_MOST_ATTRIBUTES:,} attributes")
    depth = 0
    for tag in _TAG.finditer(text):
        if tag[2].lower() not in _NEVER_NEST:
            depth = max(0, depth + (-1 if tag[1] else 1))
            if depth > _DEEPEST:
                raise RowRefused(f"the page is broken: its tags nest deeper than {_DEEPEST:,}")


def _walk(root: Any) -> Iterator[Block]:
    """Depth first and without recursion: pages may nest deeper than Python's stack."""
    said: list[str] = []
    heading = lists = kept = 0  # level of the heading, and how many <li> and <pre> we are within
    begins = False  # whether what comes is the first of its <li>
    node, down = root.first_child, True
    while node is not None:
        tag = node.tag
        if tag == "-text":
            piece = (node.text_content or "") if down else ""
            said.append(piece if kept else _SPACE.sub(" ", piece))
        elif tag == "br":
            said.append("\n" if down else "")
        elif tag in _INLINE:
            said.append(" | " if not down and tag in ("td", "th") else "")
        elif not (down and _hidden(node)):
            if text := _joined(said):
                marked = f"{'-' if begins else ' '} {text}" if lists else text
                yield Block(text.rstrip(_PERMALINK), "heading", heading) if heading else Block(marked, "item" if lists else "paragraph")
                begins = False
            said, step = [], 1 if down else -1
            kept += step if tag == "pre" else 0
            lists += step if tag == "li" else 0
            begins = begins or (down and tag == "li")
            heading = (_HEADINGS[tag] if down else 0) if tag in _HEADINGS else heading
        node, down = _next(node, root, down)
    if text := _joined(said):
        yield Block(text)


def _next(node: Any, root: Any, down: bool) -> tuple[Any, bool]:
    """The next node, and whether it is met for the first time."""
    if down and node.first_child is not None and not _hidden(node):
        return node.first_child, True
    if down and node.tag != "-text" and not _hidden(node):
        return node, False  # an empty element ends where it begins
    if node.next is not None:
        return node.next, True
    above = node.parent
    return (None, False) if above is None or above.mem_id == root.mem_id else (above, False)


def _hidden(node: Any) -> bool:
    if node.tag == "-text":
        return False
    attributes = node.attributes
    return node.tag in _LEFT_OUT or "hidden" in attributes or attributes.get("aria-hidden") == "true"


def _joined(said: list[str]) -> str:
    lines = (line.strip(" |") if " | " in line else line.rstrip() for line in "".join(said).split("\n"))
    return re.sub(r"\n{2,}", "\n", "\n".join(lines)).strip()


def decode_html(raw: bytes, charset: str = "") -> str:
    """By byte order mark, by `charset`, which the page was sent with, by what it says of itself, or as UTF-8.

    Raises:
        RowRefused: It is in another encoding than that.
    """
    for mark, name in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if raw.startswith(mark):
            return _decode(raw, name, "its byte order mark says")
    if charset:
        return _decode(raw, charset, "it was sent as")
    told = _CHARSET.search(raw[:_CHARSET_WITHIN])
    return _decode(raw, told[1].decode("ascii"), "the page says") if told else _decode(raw, "utf-8", "nothing else is said, so it should be")


def _decode(raw: bytes, name: str, who: str) -> str:
    try:
        return raw.decode("cp1252" if name.lower() in ("iso-8859-1", "latin1", "ascii", "us-ascii") else name)  # as the HTML standard has it
    except (UnicodeDecodeError, LookupError) as exc:
        raise RowRefused(f"the page cannot be decoded: {who} {name}: {exc}") from None
