"""Crawls that tests write by hand, byte by byte: WARC and WET records, packed as crawlers pack them, and pages like those of the web."""

from __future__ import annotations

import gzip

DATE = "2026-01-31T10:00:00Z"


def record_id(number: int) -> str:
    return f"<urn:uuid:00000000-0000-4000-8000-{number:012d}>"


def uri(number: int) -> str:
    return f"https://garden.example/page/{number}"


def record(number: int, block: bytes, *, kind: str = "response", type: str = "application/http; msgtype=response", length: int | str | None = None) -> bytes:
    """One record; `length` is what it says of its own length."""
    said = len(block) if length is None else length
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: {record_id(number)}\r\nWARC-Date: {DATE}\r\nWARC-Target-URI: {uri(number)}\r\n"
        f"Content-Type: {type}\r\nContent-Length: {said}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def http(body: bytes, *headers: str, type: str = "text/html; charset=utf-8", status: str = "200 OK") -> bytes:
    """An answer of a server."""
    lines = [f"HTTP/1.1 {status}", *([f"Content-Type: {type}"] if type else []), *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def page(number: int, body: bytes | None = None, *headers: str, type: str = "text/html; charset=utf-8", status: str = "200 OK") -> bytes:
    """A record of one page."""
    return record(number, http(article(number).encode() if body is None else body, *headers, type=type, status=status))


def wet(number: int, text: str) -> bytes:
    """A record of the plain text of a page."""
    return record(number, text.encode(), kind="conversion", type="text/plain")


def packed(*records: bytes, level: int = 6) -> bytes:
    """Each record packed by itself, one after the other."""
    return b"".join(gzip.compress(r, level, mtime=0) for r in records)


def sentence(number: int) -> str:
    return f"In garden number {number} the beds near the wall warm up first, so that is where the early peas go every spring."


def article(number: int) -> str:
    """A page with an article in the middle of menus, a banner and a footer that no element names as such."""
    menu = "".join(f"<li><a href='/{word}'>{word.title()} things</a></li>" for word in ("home", "shop", "news", "basket", "help"))
    beside = "".join(f"<li><a href='/p{i}'>Another post about garden number {i} and more</a></li>" for i in range(8))
    return (
        f"<!doctype html><html><head><title>Garden {number}</title></head><body><div class='cookie-banner'><p>We use cookies to improve everything.</p></div>"
        f"<div id='top-nav' class='navbar menu'><ul>{menu}</ul></div><div class='content'><h1>Garden {number}</h1><p>{sentence(number)} "
        "They want a string to climb on, and a can of water poured slowly at the foot of each plant.</p></div>"
        f"<div class='sidebar'><h3>Related posts</h3><ul>{beside}</ul></div><div class='footer'><p>All rights reserved by the shop.</p></div></body></html>"
    )
