"""A record of a crawl as paragraphs: HTTP taken off, the body unpacked and decoded, and of HTML the main text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from safer_instruct.extras import require
from safer_instruct.settings.web import WebConfig
from safer_instruct.sources.html import check_depth, decode_html, parse_html
from safer_instruct.sources.passages import Block
from safer_instruct.sources.records import RowRefused, visible
from safer_instruct.sources.streams import DAMAGE, MIB

_PURPOSE = "reading web pages"
_CHARSET = re.compile(r"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.I)
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_EMPTY_LINE = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        type: Media type, in lower case.
        charset: Encoding that it was sent with; '' where nothing was said.
        body: As it was written.
    """

    type: str
    charset: str
    body: bytes


def page_of(kind: str, type_: str, block: bytes, web: WebConfig) -> Page:
    """The page that a record holds.

    Args:
        kind: The record's type: a `response` holds HTTP, a `conversion` or `resource` the page itself.
        type_: The record's `Content-Type`.
        block: Its content.
        web: Which pages are read.

    Raises:
        RowRefused: It holds none, or one that is not wanted or broken.
    """
    if kind != "response" and not type_.lower().startswith("application/http"):
        return _wanted(type_, block, web)
    headers = require("fastwarc.warc", extra="web", purpose=_PURPOSE).HeaderMap()
    try:
        body = block[headers.parse(io.BytesIO(block), True) :]
    except DAMAGE as exc:
        raise RowRefused(f"its HTTP headers are broken: {exc}") from None
    if headers.status_code is None:
        raise RowRefused("it does not begin with the status line of an HTTP response")
    if headers.status_code != 200:
        raise RowRefused(f"the server answered with status {headers.status_code}, not with a page")
    page = _wanted(headers.get("Content-Type") or "", body, web)
    if "chunked" in (headers.get("Transfer-Encoding") or "").lower():
        body = _joined(body)
    return Page(page.type, page.charset, _unpacked(body, (headers.get("Content-Encoding") or "").lower(), web.max_mb * MIB))


def blocks_of(page: Page, web: WebConfig) -> Iterator[Block]:
    """The paragraphs of a page, in order.

    Raises:
        RowRefused: It cannot be decoded, or is broken.
        MissingExtraError: The extra `web` is not installed.
    """
    text = decode_html(page.body, page.charset)
    if page.type == "text/plain":
        parts = _EMPTY_LINE.split(text) if _EMPTY_LINE.search(text) else text.split("\n")
        return (Block(stripped) for part in parts if (stripped := part.strip()))
    if web.main_text:
        extract = require("resiliparse.extract.html2text", extra="web", purpose=_PURPOSE).extract_plain_text
        check_depth(text)
        text = extract(text.encode("utf-8", "replace").decode(), preserve_formatting="minimal_html", main_content=True, alt_texts=False)
    return parse_html(text)


def _wanted(type_: str, body: bytes, web: WebConfig) -> Page:
    media = type_.partition(";")[0].strip().lower()
    if media not in web.types:
        raise RowRefused(f"it is '{visible(media)}', not one of {', '.join(web.types)} (source.web.types)" if media else "it does not say its media type")
    told = _CHARSET.search(type_)
    return Page(media, told[1] if told else "", body)


def _joined(body: bytes) -> bytes:
    """A body that was sent in chunks, put together. Many crawlers have done so already, and left the header as it was.

    Raises:
        RowRefused: A chunk is broken.
    """
    if not _CHUNK.match(body):
        return body
    parts: list[bytes] = []
    at = 0
    while chunk := _CHUNK.match(body, at):
        size, begin = int(chunk[1], 16), chunk.end()
        if not size:
            return b"".join(parts)
        if begin + size > len(body):
            raise RowRefused(f"broken chunked encoding: the chunk at byte {at} ends behind the page")
        parts.append(body[begin : begin + size])
        at = begin + size
        at += 2 if body.startswith(b"\r\n", at) else body.startswith(b"\n", at)
    raise RowRefused(f"broken chunked encoding: no size of a chunk at byte {at}")


def _unpacked(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """A body without its `Content-Encoding`, which, too, crawlers may have taken off already.

    Raises:
        RowRefused: It is broken, too large, or in an encoding that is not known.
    """
    streams = require("fastwarc.stream_io", extra="web", purpose=_PURPOSE)
    gzipped, zstd = body.startswith(b"\x1f\x8b"), body.startswith(b"\x28\xb5\x2f\xfd")
    if encoding in ("", "identity", "none") or (encoding in ("gzip", "x-gzip") and not gzipped) or (encoding == "zstd" and not zstd):
        return body
    try:
        match encoding:
            case "gzip" | "x-gzip":
                stream = streams.GzipReader(io.BytesIO(body))
            case "deflate":
                stream = streams.GzipReader(io.BytesIO(body), zlib=True)
            case "br":
                stream = streams.BrotliReader(io.BytesIO(body))
            case "zstd":
                stream = streams.ZstdReader(io.BytesIO(body))
            case _:
                raise RowRefused(f"it is packed as '{visible(encoding)}', which is not known")
        plain = bytearray()
        while len(plain) <= most_bytes and (piece := stream.read(most_bytes + 1 - len(plain))):
            plain += piece
    except DAMAGE as exc:
        raise RowRefused(f"it cannot be unpacked as {encoding}: {visible(str(exc))}") from None
    if len(plain) > most_bytes:
        raise RowRefused(f"it unpacks to more than {most_bytes // MIB} MB (source.web.max_mb)")
    return bytes(plain)
