"""WARC and WET as sources: passages with their provenance, and every broken, hostile or unwanted record set aside with a reason."""

from __future__ import annotations

import gzip
import io
import os
import tracemalloc
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_crawls import DATE, article, http, packed, page, record, record_id, sentence, uri, wet

from safer_instruct.config import SourceConfig
from safer_instruct.errors import SourceError
from safer_instruct.sources import BadRow, SourceText, read_source
from safer_instruct.sources.files import File
from safer_instruct.sources.warc import Record, _Walk

MIB = 1024 * 1024


def read(folder: Path, content: bytes, name: str = "x.warc.gz", **source: object) -> list[SourceText | BadRow]:
    (folder / name).write_bytes(content)
    return list(read_source(SourceConfig.model_validate({"path": name, "documents": {"min_words": 5}, **source}), folder))


def texts(rows: list[SourceText | BadRow]) -> list[tuple[int, str]]:
    return [(row.line, row.text) for row in rows if isinstance(row, SourceText)]


def pages(rows: list[SourceText | BadRow]) -> list[str]:
    """Addresses of the pages that were read."""
    return [row.place.split(", ")[2] for row in rows if isinstance(row, SourceText)]


def refused(rows: list[SourceText | BadRow]) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in rows if isinstance(row, BadRow)]


def only_reason(folder: Path, *records: bytes) -> str:
    """Why the second of three records is set aside; the other two must be read."""
    rows = read(folder, packed(page(1), *records, page(9)))
    assert pages(rows) == [uri(1), uri(9)], rows
    ((line, reason),) = refused(rows)
    assert line == 2
    return reason


# --- what a crawl gives


@pytest.mark.parametrize("name", ["x.warc", "x.warc.gz", "whole.warc.gz", "x.warc.zst"])
def test_the_main_text_of_pages_comes_with_file_record_offset_address_and_date(tmp_path: Path, name: str) -> None:
    records = [record(1, b"software: x", kind="warcinfo", type="application/warc-fields"), record(2, b"GET /", kind="request"), page(3), page(4)]
    whole = b"".join(records)
    content = {
        "x.warc": whole,
        "x.warc.gz": packed(*records),
        "whole.warc.gz": gzip.compress(whole),
        "x.warc.zst": pa.Codec("zstd").compress(whole, asbytes=True),
    }[name]
    rows = read(tmp_path, content, name)
    assert refused(rows) == [] and [row.file for row in rows] == [name, name]
    assert [text for _, text in texts(rows)] == [
        f"{sentence(n)} They want a string to climb on, and a can of water poured slowly at the foot of each plant." for n in (3, 4)
    ]
    assert [row.line for row in rows] == [3, 4]
    first, second = (row.place for row in rows if isinstance(row, SourceText))
    assert first.endswith(f" {record_id(3)}, {DATE}, {uri(3)}, Garden 3, paragraph 1")
    if name in ("x.warc", "x.warc.gz"):
        offset = int(second.split()[1])
        found = content[offset:] if name == "x.warc" else gzip.decompress(content[offset:])
        assert found == records[3], "the record is found again at its offset"


def test_everything_on_a_page_is_read_where_main_text_is_off(tmp_path: Path) -> None:
    whole = [str(texts(read(tmp_path, packed(page(1)), web={"main_text": on}, documents={"min_words": 1}))) for on in (True, False)]
    for said, in_main in (("climb", True), ("We use cookies", False), ("Basket things", False), ("All rights reserved", False)):
        assert (said in whole[0], said in whole[1]) == (in_main, True), said


def test_wet_gives_the_lines_of_a_page_cut_into_passages(tmp_path: Path) -> None:
    long = "\n".join(sentence(n) for n in range(12))
    rows = read(tmp_path, packed(wet(1, f"{sentence(1)}\nShort line."), wet(2, long), wet(3, "Tiny.")), "x.warc.wet.gz", documents={"max_words": 120})
    assert texts(rows)[0] == (1, f"{sentence(1)}\n\nShort line.")
    assert [line for line, _ in texts(rows)] == [1, 2, 2, 2] and all(len(text.split()) <= 120 for _, text in texts(rows))
    assert refused(rows) == [
        (3, f"byte {_offset(rows[-1])} {record_id(3)}, {DATE}, {uri(3)}, paragraph 1: a passage of 1 word, fewer than 20 (source.documents.min_words)")
    ]


def _offset(row: SourceText | BadRow) -> str:
    assert isinstance(row, BadRow)
    return row.reason.split()[1]


def test_shards_in_nested_folders_are_read_in_order_crawls_and_parquet_side_by_side(tmp_path: Path) -> None:
    for shard, number in (("crawl/b/1.warc.gz", 3), ("crawl/a/2.warc.gz", 2), ("crawl/a/1.warc.wet.gz", 1)):
        (tmp_path / shard).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / shard).write_bytes(packed(wet(number, sentence(number)) if ".wet" in shard else page(number)))
    for part, number in (("crawl/lang=en/part-0.parquet", 5), ("crawl/lang=en/deep/part-1.parquet", 4)):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": [sentence(number)], "other": [1]}), tmp_path / part)
    every = list(read_source(SourceConfig.model_validate({"path": "crawl", "documents": {"min_words": 5}}), tmp_path))
    assert [row.file for row in every] == [
        *("crawl/a/1.warc.wet.gz", "crawl/a/2.warc.gz", "crawl/b/1.warc.gz"),
        *("crawl/lang=en/deep/part-1.parquet", "crawl/lang=en/part-0.parquet"),
    ]
    some = list(read_source(SourceConfig.model_validate({"path": "crawl/**/*.warc.gz", "documents": {"min_words": 5}}), tmp_path))
    assert [row.file for row in some] == ["crawl/a/2.warc.gz", "crawl/b/1.warc.gz"]


def test_columns_of_a_crawl_are_an_error_that_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a crawl has no columns, so 'category_column: x' cannot be read"):
        read(tmp_path, packed(page(1)), category_column="x")


# --- encodings


@pytest.mark.parametrize(
    ("type", "body"),
    [
        ("text/html; charset=iso-8859-1", "<p>Das Café öffnet für alle Gäste um neun</p>".encode("latin-1")),
        ("text/html", "<meta charset=windows-1252><p>Das Café öffnet für alle Gäste um neun</p>".encode("cp1252")),
        ("text/html;charset=utf-16", "<p>Das Café öffnet für alle Gäste um neun</p>".encode("utf-16")),
        ('text/html; charset="UTF-8"', "<p>Das Café öffnet für alle Gäste um neun</p>".encode()),
        ("text/plain; charset=koi8-r", "Das Cafй цffnet fьr alle Gдste um neun".encode("koi8-r")),
    ],
)
def test_a_page_is_decoded_as_it_was_sent_or_as_it_says(tmp_path: Path, type: str, body: bytes) -> None:
    ((_, text),) = texts(read(tmp_path, packed(page(1, body, type=type))))
    assert text.startswith("Das Caf") and "\ufffd" not in text and len(text.split()) == 8


def test_a_body_sent_in_chunks_or_packed_is_put_together_and_one_the_crawler_has_unpacked_is_taken_as_it_is(tmp_path: Path) -> None:
    body = article(1).encode()
    chunks = b"".join(b"%x;name=value\r\n%b\r\n" % (len(part), part) for part in (body[:100], body[100:])) + b"0\r\n\r\n"
    sent = [
        page(1, chunks, "Transfer-Encoding: chunked"),
        page(2, body, "Transfer-Encoding: chunked"),
        page(3, gzip.compress(body), "Content-Encoding: gzip"),
        page(4, body, "Content-Encoding: gzip"),
        page(5, pa.Codec("brotli").compress(body, asbytes=True), "Content-Encoding: br"),
        page(6, pa.Codec("zstd").compress(body, asbytes=True), "Content-Encoding: zstd"),
    ]
    rows = read(tmp_path, packed(*sent))
    assert refused(rows) == [] and {text for _, text in texts(rows)} == {texts(rows)[0][1]} and len(rows) == 6


# --- what is set aside


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (page(2, status="404 Not Found"), "the server answered with status 404, not with a page"),
        (page(2, type="image/png"), "it is 'image/png', not one of text/html, application/xhtml+xml, text/plain (source.web.types)"),
        (page(2, type=""), "it does not say its media type"),
        (page(2, b""), "the page holds no text"),
        (page(2, "<p>Das Café öffnet für alle</p>".encode("latin-1")), "the page cannot be decoded: it was sent as utf-8"),
        (page(2, b"<p>x</p>", type="text/html; charset=klingon"), "the page cannot be decoded: it was sent as klingon"),
        (page(2, b"<div>" * 3_000 + b"hello"), "the page is broken: its tags nest deeper than 2,000"),
        (page(2, b"<p " + b" ".join(b"a%d=1" % n for n in range(60_000)) + b">x"), "the page is broken: a tag has more than 10,000 attributes"),
        (page(2, b"5\r\nhello\r\nzz\r\n", "Transfer-Encoding: chunked"), "broken chunked encoding: no size of a chunk at byte 10"),
        (page(2, b"ffff\r\nhello", "Transfer-Encoding: chunked"), "broken chunked encoding: the chunk at byte 0 ends behind the page"),
        (page(2, gzip.compress(b"hello" * 99)[:20] + b"\0\xff" * 9, "Content-Encoding: gzip"), "it cannot be unpacked as gzip"),
        (page(2, b"hello", "Content-Encoding: br"), "it cannot be unpacked as br"),
        (page(2, b"hello", "Content-Encoding: rot13"), "it is packed as 'rot13', which is not known"),
        (record(2, b"GET / HTTP"), "it does not begin with the status line of an HTTP response"),
        (record(2, http(b"<p>x</p>", "X: " + "y" * 40_000)), "its HTTP headers are broken"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_record_that_holds_no_page_is_set_aside_with_its_place_and_the_reason(tmp_path: Path, bad: bytes, reason: str) -> None:
    said = only_reason(tmp_path, bad)
    assert said.startswith("byte ") and f"{record_id(2)}, {DATE}, {uri(2)}: {reason}" in said


def test_headers_with_control_characters_and_endless_addresses_are_shown_escaped_and_cut(tmp_path: Path) -> None:
    evil = page(2, status="404 no").replace(uri(2).encode(), b"https://x.example/\x1b[2J" + b"a" * 10_000)
    said = only_reason(tmp_path, evil)
    assert "\x1b" not in said and "\\x1b[2J" in said and len(said) < 2_300


@pytest.mark.parametrize("packing", [packed, lambda *records: b"".join(records)], ids=["packed", "plain"])
@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (record(2, http(b"<p>hello</p>"), length=5_000), "it ends after"),
        (record(2, http(b"<p>hello</p>"), length=10**12), "larger than 8 MB (source.web.max_mb): 1,000,000,000,000 bytes"),
        (record(2, http(b"<p>hello</p>"), length=30), "Invalid WARC header"),
        (record(2, http(b"<p>hello</p>"), length="x12"), "Invalid WARC header"),
        (record(2, http(b"<p>hello</p>"), length="-12"), "Invalid WARC header"),
    ],
)
def test_a_record_that_lies_about_its_length_does_not_take_the_others_with_it(tmp_path: Path, packing: object, bad: bytes, told: str) -> None:
    assert callable(packing)
    content = packing(page(1), bad, page(3), page(4))
    rows = read(tmp_path, content, "x.warc.gz" if content[:2] == b"\x1f\x8b" else "x.warc")
    assert pages(rows) == [uri(1), uri(3), uri(4)] and any(told in reason for _, reason in refused(rows)), rows


@pytest.mark.parametrize("kind", ["response", "request"])
def test_behind_a_broken_member_reading_goes_on_at_the_next_record(tmp_path: Path, kind: str) -> None:
    member = bytearray(packed(record(2, http(os.urandom(3_000).hex().encode()), kind=kind)))
    member[500:520] = bytes(20)
    begin = len(packed(page(1))) + len(member)
    rows = read(tmp_path, packed(page(1)) + bytes(member) + packed(page(3), page(4)))
    assert pages(rows) == [uri(1), uri(3), uri(4)]
    ((line, reason),) = refused(rows)
    assert line == 2 and "the file is damaged: Gzip" in reason
    assert [int(row.place.split()[1]) for row in rows if isinstance(row, SourceText)][1] == begin


@pytest.mark.parametrize("name", ["x.warc.gz", "x.warc"])
def test_a_file_that_is_cut_short_anywhere_says_so_and_gives_what_comes_before(tmp_path: Path, name: str) -> None:
    first, second = (page(1), page(2)) if name == "x.warc" else (packed(page(1)), packed(page(2)))
    for left in (3, 12, 60, len(second) // 2, len(second) - (8 if name == "x.warc" else 100)):
        rows = read(tmp_path, first + second[:left], name)
        assert pages(rows)[0] == uri(1)
        if left > 8:
            ((line, reason),) = refused(rows)
            assert line == 2 and ("cut short within this record" in reason or "it ends after" in reason or "head of the record is cut" in reason), (
                left,
                reason,
            )


def test_what_is_no_crawl_is_set_aside_whole_and_the_next_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "a.warc.gz").write_bytes(b"hello there\n" * 1_000)
    (tmp_path / "all" / "b.warc").write_bytes(b"")
    (tmp_path / "all" / "c.warc.gz").write_bytes(packed(page(3)))
    rows = list(read_source(SourceConfig.model_validate({"path": "all", "documents": {"min_words": 5}}), tmp_path))
    assert refused(rows) == [(1, "at or behind byte 0: the file is damaged: Invalid WARC header; no record was found behind it")]
    assert [row.unread for row in rows if isinstance(row, BadRow)] == [True]
    assert pages(rows) == [uri(3)]


class _Failing(io.BytesIO):
    """A file on a disk that is lost from some byte on."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= 2_000:
            raise OSError(5, "Input/output error")
        return super().read(min(size if size is not None and size >= 0 else 1_000, 1_000))


def test_a_disk_that_fails_within_a_file_costs_the_rest_of_that_file() -> None:
    import fastwarc.warc

    file = File(Path("x.warc"), "x.warc", "warc", "")
    found = [*_Walk(file, _Failing(page(1) + page(2) + page(3)), fastwarc.warc, 4, MIB).records()]
    assert [row.uri for row in found if isinstance(row, Record)] == [uri(1)]
    assert isinstance(found[-1], BadRow) and "Input/output error" in found[-1].reason and "no record was found behind it" in found[-1].reason
    assert found[-1].unread


def test_memory_stays_flat_whatever_a_record_unpacks_to(tmp_path: Path) -> None:
    bombs = [
        page(2, bytes(100 * MIB)),
        page(3, gzip.compress(bytes(100 * MIB)), "Content-Encoding: gzip"),
        page(4, gzip.compress(bytes(7 * MIB) + b"<p>hello</p>", 1), "Content-Encoding: gzip"),
    ]
    content = packed(page(1), *bombs, page(5), level=1)
    del bombs
    tracemalloc.start()
    rows = read(tmp_path, content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pages(rows) == [uri(1), uri(5)]
    reasons = [reason for _, reason in refused(rows)]
    assert "the record is larger than 8 MB" in reasons[0] and "it unpacks to more than 8 MB" in reasons[1]
    assert peak < 64 * MIB, f"{peak / MIB:.0f} MiB"


def test_no_damage_to_a_file_crashes_reading_or_reads_a_passage_twice(tmp_path: Path) -> None:
    rng = Random(7)
    records = [page(n) if n % 3 else record(n, b"GET / HTTP/1.1\r\n\r\n", kind="request") for n in range(1, 7)]
    contents = {"x.warc": b"".join(records), "x.warc.gz": packed(*records)}
    for turn in range(60):
        name = ("x.warc", "x.warc.gz")[turn % 2]
        raw = bytearray(contents[name])
        at, size = rng.randrange(len(raw)), rng.randrange(1, 300)
        match turn % 5:
            case 0 | 1:
                for _ in range(rng.choice((1, 3, 20))):
                    raw[rng.randrange(len(raw))] = rng.randrange(256)
            case 2:
                del raw[at : at + size]
            case 3:
                raw[at:at] = rng.randbytes(size)
            case _:
                del raw[at:]
        found = [row.place for row in read(tmp_path, bytes(raw), name) if isinstance(row, SourceText)]
        assert len(found) == len(set(found)), (turn, found)
