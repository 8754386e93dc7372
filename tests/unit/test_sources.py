"""Every format, packing and kind of bad row, with exact lines and reasons; nothing is mocked."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from safer_instruct.config import SourceConfig
from safer_instruct.errors import ColumnError, SourceError
from safer_instruct.sources import BadRow, SourceText, read_source

LONGEST_LINE = 1024 * 1024 + 64 * 1024  # with the default max_chars
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw,
    ".gz": gzip.compress,
    ".zst": lambda raw: zstd(raw),
}


def zstd(raw: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(raw, asbytes=True)
    return packed


def rows_of(folder: Path, **config: Any) -> list[SourceText | BadRow]:
    return list(read_source(SourceConfig(**config), folder))


def rows_in(folder: Path, name: str, raw: bytes, **config: Any) -> list[SourceText | BadRow]:
    (folder / name).write_bytes(raw)
    return rows_of(folder, path=name, **config)


ROWS = [{"text": "one", "id": "a", "kind": "rude"}, {"kind": "mild", "id": "b", "text": "two"}, {"text": "three", "id": "c", "kind": "odd"}]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_is_read_as_lines_are_and_each_element_has_its_place(tmp_path: Path, packing: str, indent: int | None) -> None:
    given = {"text": "text", "id": "id", "category_column": "kind"}
    lines = rows_in(tmp_path, f"x.jsonl{packing}", PACK[packing]("".join(json.dumps(row) + "\n" for row in ROWS).encode()), **given)
    array = rows_in(tmp_path, f"x.json{packing}", PACK[packing](f"\ufeff {json.dumps(ROWS, indent=indent)}\n".encode()), **given)
    assert [replace(row, file="") for row in array] == [replace(row, file="") for row in lines]
    assert [row.line for row in array] == [1, 2, 3], "which element it is: the whole array may be one line"


def test_elements_of_an_array_that_cannot_be_used_are_set_aside_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, "x.json", json.dumps([{"text": "one"}, 7, {"body": "two"}, {"text": "x" * 50}, {"text": "five"}]).encode(), max_chars=40)
    assert [row.text for row in rows if isinstance(row, SourceText)] == ["one", "five"]
    found = refused(rows)
    assert [line for line, _ in found] == [2, 3, 4]
    assert found[0][1] == "the element is a number, not an object" and "'text' is missing" in found[1][1] and "longer than 40" in found[2][1]


def test_a_broken_array_ends_where_it_breaks(tmp_path: Path) -> None:
    *good, bad = rows_in(tmp_path, "x.json", b'[{"text": "one"}, {"text": "two"}, {"text": ')
    assert texts(good) == ["one", "two"] and isinstance(bad, BadRow) and bad.line == 3 and "nothing from this element on was read" in bad.reason
    assert bad.unread


def test_conversations_of_an_array_are_told_apart(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Yes."}] * 2
    rows = rows_in(tmp_path, "x.json", json.dumps([{"messages": talk}, {"messages": talk}]).encode(), messages="messages", turns="all")
    assert texts(rows) == ["Yes."] * 4 and [row.line for row in rows] == [1, 1, 2, 2]


def texts(rows: list[SourceText | BadRow]) -> list[str]:
    assert all(isinstance(row, SourceText) for row in rows), rows
    return [row.text for row in rows if isinstance(row, SourceText)]


def refused(rows: list[SourceText | BadRow]) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in rows if isinstance(row, BadRow)]


def only_refusal(rows: list[SourceText | BadRow]) -> BadRow:
    assert len(rows) == 1 and isinstance(rows[0], BadRow), rows
    return rows[0]


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


CONTENTS = {
    "jsonl": b'{"text": "one", "id": "a", "kind": "rude"}\n{"kind": "mild", "id": "b", "text": "two"}\n',
    "ndjson": b'{"text": "one", "id": "a", "kind": "rude"}\n{"kind": "mild", "id": "b", "text": "two"}',
    "json": b'{"text": "one", "id": "a", "kind": "rude"}\r\n{"kind": "mild", "id": "b", "text": "two"}\r\n',
    "csv": b"id,text,kind\na,one,rude\nb,two,mild\n",
    "tsv": b"id\ttext\tkind\r\na\tone\trude\r\nb\ttwo\tmild",
    "parquet": parquet(id=["a", "b"], text=["one", "two"], kind=["rude", "mild"], other=[1, 2]),
}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("ending", CONTENTS)
def test_every_table_format_and_packing_gives_the_same_texts(tmp_path: Path, ending: str, packing: str) -> None:
    rows = rows_in(tmp_path, f"x.{ending}{packing}", PACK[packing](CONTENTS[ending]), id="id", category_column="kind")
    first = 2 if ending in ("csv", "tsv") else 1
    name = f"x.{ending}{packing}"
    assert rows == [SourceText("one", name, first, "a", "rude"), SourceText("two", name, first + 1, "b", "mild")]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("ending", ["txt", "md"])
def test_plain_text_gives_paragraphs_with_the_line_each_begins_on(tmp_path: Path, ending: str, packing: str) -> None:
    raw = "\n\n  one,\r\nstill one \r\n \t \r\n\r\nzwei mit ü\n\n".encode()
    rows = rows_in(tmp_path, f"x.{ending}{packing}", PACK[packing](raw), category="rude")
    name = f"x.{ending}{packing}"
    assert rows == [SourceText("one,\nstill one", name, 3, None, "rude"), SourceText("zwei mit ü", name, 7, None, "rude")]


def test_plain_text_as_one_document_per_file(tmp_path: Path) -> None:
    assert rows_in(tmp_path, "x.txt", b"\none\n\ntwo\n", unit="file") == [SourceText("one\n\ntwo", "x.txt", 1, None, None)]


@pytest.mark.parametrize("raw", [b"", b"\n \n"])
def test_an_empty_text_file_is_refused_as_a_document_and_holds_no_paragraph(tmp_path: Path, raw: bytes) -> None:
    assert refused(rows_in(tmp_path, "x.txt", raw, unit="file")) == [(1, "text is empty or only white space")]
    assert rows_in(tmp_path, "x.txt", raw, unit="paragraph") == []


@pytest.mark.parametrize("ending", ["jsonl", "csv", "jsonl.gz", "jsonl.zst"])
def test_an_empty_file_holds_nothing(tmp_path: Path, ending: str) -> None:
    assert rows_in(tmp_path, f"x.{ending}", b"") == []


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert texts(rows_in(tmp_path, "x.jsonl", b'\xef\xbb\xbf{"text": "one"}')) == ["one"]
    assert texts(rows_in(tmp_path, "x.csv", b'\xef\xbb\xbf"text"\none\n')) == ["one"]
    assert texts(rows_in(tmp_path, "x.txt", b"\xef\xbb\xbfone")) == ["one"]


def test_text_keeps_all_but_the_white_space_around_it(tmp_path: Path) -> None:
    inner = "a\u200fb\u202e \u00a0 \r\n\t\U0001f468\u200d\U0001f469 \ufeff é e\u0301"
    for ascii_only in (True, False):
        raw = json.dumps({"text": f" \n{inner}\u00a0\n"}, ensure_ascii=ascii_only).encode()
        assert texts(rows_in(tmp_path, "x.jsonl", raw)) == [inner]


def test_blank_lines_count_but_give_nothing(tmp_path: Path) -> None:
    rows = rows_in(tmp_path, "x.jsonl", b'\n{"text": "one"}\n\r\n  \n{"text": "two"}\n\n')
    assert [(row.line, row.text) for row in rows if isinstance(row, SourceText)] == [(2, "one"), (5, "two")]
    assert len(rows) == 2


BAD_OBJECTS = {
    b'{"text": "one"': "broken JSON: Expecting ',' delimiter at column 15",
    b"[": "broken JSON: Expecting value at column 2; the file must hold one JSON object per line",
    b'["one"]': "JSON is a list, not an object",
    b'"one"': "JSON is a string, not an object",
    b"null": "JSON is null, not an object",
    b"12": "JSON is a number, not an object",
    b'{"n": ' + b"1" * 5000 + b"}": "broken JSON: Exceeds the limit (4300 digits) for integer string conversion",
    b"{}": "text column 'text' is missing",
    b'{"Texts": "one"}': "text column 'text' is missing (nearest: 'Texts')",
    b'{"text": 3}': "text is a number, not a string",
    b'{"text": 3.5}': "text is a number, not a string",
    b'{"text": true}': "text is a boolean, not a string",
    b'{"text": null}': "text is null, not a string",
    b'{"text": ["one"]}': "text is a list, not a string",
    b'{"text": {"de": "one"}}': "text is an object, not a string",
    b'{"text": ""}': "text is empty or only white space",
    b'{"text": " \\n\\u00a0\\t"}': "text is empty or only white space",
    b'{"text": "one two three"}': "text longer than 10 characters: 13",
    b'{"text": "\xff"}': "invalid UTF-8 at byte offset 10 of the line",
    b'{"text": "\xc3\xa9\xc3"}': "invalid UTF-8 at byte offset 12 of the line",
    b'{"text": "\xed\xa0\x80"}': "invalid UTF-8 at byte offset 10 of the line",
    b'{"text": "a\\ud800b"}': "text holds a lone surrogate (\\ud800), which is no character",
    b'{"text": "a\\u0000b"}': "text holds NUL characters",
    b'{"text": "a\0b"}': "the line holds NUL characters; is the file UTF-16?",
    b'{"text": ' + b"[" * 200_000: "JSON nested too deeply",
    b"[" * 200_000 + b"]" * 200_000: "JSON nested too deeply",
}


@pytest.mark.parametrize(("raw", "reason"), BAD_OBJECTS.items(), ids=range(len(BAD_OBJECTS)))
def test_a_bad_line_is_set_aside_between_good_ones(tmp_path: Path, raw: bytes, reason: str) -> None:
    rows = rows_in(tmp_path, "x.jsonl", b'{"text": "one"}\n\n' + raw + b'\n{"text": "two"}', max_chars=10)
    assert [type(row) for row in rows] == [SourceText, BadRow, SourceText]
    found = rows[1]
    assert isinstance(found, BadRow)
    assert (found.file, found.line) == ("x.jsonl", 3)
    assert found.reason.startswith(reason)
    assert rows[2] == SourceText("two", "x.jsonl", 4, None, None)


def test_a_text_of_exactly_max_chars_is_taken(tmp_path: Path) -> None:
    assert texts(rows_in(tmp_path, "x.jsonl", b'{"text": " 0123456789 "}', max_chars=10)) == ["0123456789"]


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("7", "7"),
        ('"a b"', "a b"),
        ("123456789012345678901", "123456789012345678901"),
        ("7.0", "7"),
        ("-7e2", "-700"),
        ("7.5", "id is a number, not a string or whole number; cast the column to text"),
        ("9007199254740992.0", "id is a number, not a string or whole number; cast the column to text"),
        ("NaN", "id is a number, not a string or whole number; cast the column to text"),
        ("true", "id is a boolean, not a string or whole number; cast the column to text"),
        ("null", "id is null, not a string or whole number"),
        ("[7]", "id is a list, not a string or whole number; cast the column to text"),
        ('""', "id is empty or only white space"),
        ('"\\udfff"', "id holds a lone surrogate (\\udfff), which is no character"),
    ],
)
def test_ids_are_strings_or_whole_numbers(tmp_path: Path, value: str, outcome: str) -> None:
    (row,) = rows_in(tmp_path, "x.jsonl", f'{{"text": "one", "key": {value}}}'.encode(), id="key")
    assert (row.id if isinstance(row, SourceText) else row.reason) == outcome


def test_an_id_column_that_a_row_lacks_refuses_the_row(tmp_path: Path) -> None:
    assert refused(rows_in(tmp_path, "x.jsonl", b'{"text": "one"}', id="key")) == [(1, "id column 'key' is missing; this row has text")]


def test_a_category_is_that_of_its_column_or_the_constant_and_never_both(tmp_path: Path) -> None:
    raw = b'{"text": "one", "kind": " mild "}\n{"text": "two"}\n{"text": "three", "kind": ""}\n{"text": "four", "kind": 4}\n'
    rows = rows_in(tmp_path, "x.jsonl", raw, category_column="kind")
    assert rows[0] == SourceText("one", "x.jsonl", 1, None, "mild")
    assert refused(rows) == [
        (2, "category column 'kind' is missing; this row has text"),
        (3, "category is empty or only white space"),
        (4, "category is a number, not a string"),
    ]
    assert [row.category for row in rows_in(tmp_path, "x.jsonl", raw, category="rude") if isinstance(row, SourceText)] == ["rude"] * 4
    with pytest.raises(ValueError, match="both 'category', one for all rows, and 'category_column'"):
        SourceConfig(path="x.jsonl", category="rude", category_column="kind")


def written_as(name: str, rows: list[dict[str, str]]) -> bytes:
    """Rows in the format that the ending of `name` tells."""
    if name.endswith(".parquet"):
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), out)
        return out.getvalue()
    lines = {"csv": ["text", *(row["text"] for row in rows)], "txt": [f"{row['text']}\n" for row in rows]}
    raw = "\n".join(lines.get(name.split(".")[1]) or map(json.dumps, rows)).encode()
    return PACK[name[name.rindex(".") :] if name.endswith((".gz", ".zst")) else ""](raw)


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet", "x.txt", "x.jsonl.gz", "x.csv.zst"])
@pytest.mark.parametrize("how", ["rewritten", "grown", "replaced", "left", "gone"])
def test_a_file_that_is_written_to_while_it_is_read_is_told(tmp_path: Path, name: str, how: str) -> None:
    file, rows, told = tmp_path / name, [{"text": f"text {number}"} for number in range(200)], dict[str, bool]()
    file.write_bytes(written_as(name, rows))
    found = read_source(SourceConfig(path=name), tmp_path, told.__setitem__)
    next(found)
    match how:
        case "rewritten":
            file.write_bytes(written_as(name, rows[:100]))
        case "grown":
            with file.open("ab") as more:
                more.write(b"\n")
        case "replaced":
            (tmp_path / "new").write_bytes(file.read_bytes())
            (tmp_path / "new").replace(file)
        case "gone":
            file.unlink()
    for _ in found:
        pass
    assert told == {"rewritten": {name: False}, "grown": {name: True}, "replaced": {name: False}}.get(how, {})


def test_an_excerpt_shows_what_cannot_be_seen(tmp_path: Path) -> None:
    (row,) = rows_in(tmp_path, "x.jsonl", "a\x1b[31m\t\u202eé\x00\r\n".encode())
    assert isinstance(row, BadRow)
    assert row.excerpt == "a\\x1b[31m\\t\\u202eé\\x00"


def test_an_excerpt_ends_after_200_characters(tmp_path: Path) -> None:
    assert only_refusal(rows_in(tmp_path, "x.jsonl", ("\U0001f600" * 300).encode())).excerpt == "\U0001f600" * 200


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_utf16_is_refused_and_named(tmp_path: Path, ending: str, encoding: str) -> None:
    content = {"jsonl": '{"text": "one"}\n{"text": "twoé"}\n', "csv": "text\none\n", "txt": "one\n\ntwo\n"}[ending]
    rows = rows_in(tmp_path, f"x.{ending}", content.encode(encoding))
    assert rows
    assert all(isinstance(row, BadRow) for row in rows)
    assert any("UTF-16" in reason or "NUL" in reason for _, reason in refused(rows))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("break_", ["\n", "\r\n", "\r"])
def test_a_header_in_utf16_is_told_as_such_whatever_ends_its_lines(tmp_path: Path, encoding: str, break_: str) -> None:
    rows = rows_in(tmp_path, "x.csv", f"id\ttext{break_}1\tone{break_}".encode(encoding))
    assert refused(rows) == [(1, "the header cannot be read, so the file was skipped: NUL characters; is the file UTF-16?")]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_packed_table_whose_name_does_not_tell_is_told_as_such(tmp_path: Path, packing: str) -> None:
    rows = rows_in(tmp_path, "x.csv", PACK[packing](b"id,text\n1,one\n" * 50))
    flaw = f"it is compressed, whatever its name; rename it to x.csv{packing}"
    assert refused(rows) == [(1, f"the header cannot be read, so the file was skipped: {flaw}")]


def test_csv_keeps_quoted_newlines_and_gives_the_line_a_row_begins_on(tmp_path: Path) -> None:
    raw = b'\r\nid,text\r\n1,"a ""b"",\r\n\r\nc"\r\n\r\n2,d\r\n3,"e\n"\r\n'
    rows = rows_in(tmp_path, "x.csv", raw, id="id")
    assert rows == [
        SourceText('a "b",\r\n\r\nc', "x.csv", 3, "1", None),
        SourceText("d", "x.csv", 7, "2", None),
        SourceText("e", "x.csv", 8, "3", None),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        b'\xef\xbb\xbfid;text;note\r\n1;"one; and, more";x\r\n',  # as Excel writes it where the comma is the decimal mark
        b"id\ttext\n1\tone; and, more\n",
        b'id,text,"a;b;c;d"\n1,"one; and, more",x\n',
        b'"id, no";text\n"x";"one; and, more"\n',
    ],
)
def test_the_header_of_a_csv_tells_what_separates_its_cells(tmp_path: Path, raw: bytes) -> None:
    assert texts(rows_in(tmp_path, "x.csv", raw)) == ["one; and, more"]


def test_a_csv_with_one_column_is_read_though_its_texts_hold_semicolons(tmp_path: Path) -> None:
    assert texts(rows_in(tmp_path, "x.csv", b"text\none; two; three\n")) == ["one; two; three"]


def test_bad_csv_rows_are_set_aside(tmp_path: Path) -> None:
    raw = b'id,text\n1\n2,b,c\n3,"a "b" c"\n4,\n5,caf\xe9\n6,"x\n\xff\ny"\n7,nul\0\n8,ok\n9,"open\n10,x\n'
    rows = rows_in(tmp_path, "x.csv", raw, id="id")
    assert refused(rows) == [
        (2, "too few columns: 1, the header has 2"),
        (3, "too many columns: 3, the header has 2"),
        (4, "broken CSV: a quote within a quoted field is not doubled (line 4)"),
        (5, "text is empty or only white space"),
        (6, "invalid UTF-8 at byte offset 5 of the row"),
        (7, "invalid UTF-8 at byte offset 5 of the row"),
        (10, "text holds NUL characters"),
        (12, "broken CSV: a quoted field is never closed (lines 12 to 13)"),
    ]
    assert [row for row in rows if isinstance(row, SourceText)] == [SourceText("ok", "x.csv", 11, "8", None)]


def test_csv_reads_on_after_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    filler = b"1,no quote here\n" * (LONGEST_LINE // 16 + 2)
    rows = rows_in(tmp_path, "x.csv", b'id,text\n0,"open\n' + filler + b"2,last\n")
    first = only_refusal(rows[:1])
    assert first.line == 2
    assert first.reason.startswith("row longer than 1,114,112 bytes (lines 2 to ")
    assert first.reason.endswith("is a closing quote missing?")
    assert first.excerpt == '0,"open'
    assert texts(rows[1:])[-1] == "last"
    assert rows[-1].line == 2 + filler.count(b"\n") + 1


def test_csv_takes_fields_beyond_the_csv_module_limit(tmp_path: Path) -> None:
    long = "word " * 100_000 + "end"
    assert texts(rows_in(tmp_path, "x.csv", f'text\n"{long}"\n'.encode(), max_chars=10**6)) == [long]


@pytest.mark.parametrize("max_chars", [20_000, 200_000])
def test_a_text_of_max_chars_fits_however_json_escapes_it(tmp_path: Path, max_chars: int) -> None:
    text = "\U0001f600" * max_chars
    assert texts(rows_in(tmp_path, "x.jsonl", json.dumps({"text": text}).encode(), max_chars=max_chars)) == [text]


def test_absurdly_large_max_chars_work(tmp_path: Path) -> None:
    assert texts(rows_in(tmp_path, "x.csv", b"text\none\n", max_chars=10**30)) == ["one"]


def test_a_header_that_cannot_be_read_skips_the_file_only(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b"text\ntwo\n")
    for header in (b"te\xffxt", b'"text', b"t" * (LONGEST_LINE + 1), "text".encode("utf-16-le")):
        (tmp_path / "a.csv").write_bytes(header + b"\none\n")
        bad, good = rows_of(tmp_path, path="*.csv")
        assert isinstance(bad, BadRow)
        assert (bad.file, bad.line) == ("a.csv", 1)
        assert bad.reason.startswith("the header cannot be read, so the file was skipped: ") and bad.unread
        assert good == SourceText("two", "b.csv", 2, None, None)


def test_parquet_rows_of_the_wrong_kind_are_set_aside(tmp_path: Path) -> None:
    offsets = b"".join(n.to_bytes(4, "little") for n in (0, 2, 5))
    broken = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(b"okok\xff"))
    assert refused(rows_in(tmp_path, "x.parquet", parquet(text=broken))) == [(2, "text: invalid UTF-8 at byte offset 2 of the value")]
    assert refused(rows_in(tmp_path, "x.parquet", parquet(text=["a", None, " "]))) == [
        (2, "text is null, not a string"),
        (3, "text is empty or only white space"),
    ]
    assert refused(rows_in(tmp_path, "x.parquet", parquet(text=[b"a"]))) == [(1, "text is of type bytes, not a string")]
    *whole, part, none = rows_in(tmp_path, "x.parquet", parquet(text=["a", "b", "c", "d"], id=[1.0, -2.0, 2.5, None]), id="id")
    assert [row.id for row in whole if isinstance(row, SourceText)] == ["1", "-2"], "as pandas writes whole numbers of which one is missing"
    assert refused([part, none]) == [
        (3, "id is a number, not a string or whole number; cast the column to text"),
        (4, "id is null, not a string or whole number"),
    ]


def test_parquet_of_many_batches_keeps_rows_in_order_and_numbers_ids(tmp_path: Path) -> None:
    table = pa.table({"body": pa.array([f"text {n}" for n in range(5000)]).dictionary_encode(), "n": range(5000), "a.b": ["x"] * 5000})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=700)
    rows = rows_of(tmp_path, path="x.parquet", text="body", id="n", category_column="a.b")
    assert rows == [SourceText(f"text {n}", "x.parquet", n + 1, str(n), "x") for n in range(5000)]


FILES = ["b.txt", "a/c.txt.gz", "a/B.txt", ".hidden.txt", ".git/x.txt", "a/.y/z.txt", "notes.png", "a/deep/er/d.TXT"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        raw = name.encode()
        (tmp_path / "in" / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    (tmp_path / "in/table.csv").write_bytes(b"text\ntable.csv\n")
    return tmp_path


def test_a_folder_is_read_in_sorted_order_without_hidden_and_unknown_files(folder: Path) -> None:
    rows = rows_of(folder, path="in")
    assert texts(rows) == ["a/B.txt", "a/c.txt.gz", "a/deep/er/d.TXT", "b.txt", "table.csv"]
    assert [row.file for row in rows] == [f"in/{name}" for name in texts(rows)]


def test_a_folder_under_a_set_format_gives_only_files_of_that_format(folder: Path) -> None:
    assert texts(rows_of(folder, path="in", format="csv")) == ["table.csv"]


def test_a_glob_is_read_in_sorted_order(folder: Path) -> None:
    assert texts(rows_of(folder, path="in/**/*.txt*")) == ["a/B.txt", "a/c.txt.gz", "b.txt"]
    assert texts(rows_of(folder, path=f"{folder}/in/[a-b].txt")) == ["b.txt"]


def test_a_file_whose_name_looks_like_a_glob_is_read_as_a_file(tmp_path: Path) -> None:
    base = tmp_path / "base[1]"
    base.mkdir()
    assert texts(rows_in(base, "x[1].txt", b"one")) == ["one"]
    assert texts(rows_of(base, path="*.txt")) == ["one"]


def test_files_are_named_from_the_base_or_by_their_whole_path(folder: Path) -> None:
    assert rows_of(folder / "in", path=str(folder / "in/b.txt"))[0].file == "b.txt"
    assert rows_of(folder / "in/a", path="../b.txt")[0].file == str(folder / "in/b.txt")


def test_a_name_that_is_not_utf8_is_shown_escaped(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff.txt", "wb") as out:
        out.write(b"one")
    assert [row.file for row in rows_of(tmp_path, path=".")] == ["\\xff.txt"]


def test_a_set_format_reads_a_file_of_any_ending(tmp_path: Path) -> None:
    assert texts(rows_in(tmp_path, "x.dat", b'{"text": "one"}', format="jsonl")) == ["one"]
    assert texts(rows_in(tmp_path, "x.dat.gz", gzip.compress(b"text\none\n"), format="csv")) == ["one"]


def error_of(base: Path, **config: Any) -> str:
    with pytest.raises(SourceError) as caught:
        rows_of(base, **config)
    return str(caught.value)


def test_errors_come_before_the_first_row_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        read_source(SourceConfig(path="none.jsonl"), tmp_path)


def test_nothing_found_says_what_was_looked_for_and_where(tmp_path: Path) -> None:
    for path in ("none.jsonl", "*.jsonl", "bad\0name", "x" * 5000):
        said = error_of(tmp_path, path=path)
        assert path.replace("\0", "\\x00")[:200] in said
        assert str(tmp_path) in said
    (tmp_path / "empty").mkdir()
    assert "no file below this folder ends in .jsonl .ndjson .json .csv" in error_of(tmp_path, path="empty")


def test_an_unknown_ending_lists_the_known_ones(tmp_path: Path) -> None:
    for name in ("x.png", "x", "x.gz"):
        (tmp_path / name).write_bytes(b"x")
        said = error_of(tmp_path, path=name)
        assert said.startswith(f"{name}: the ending tells no format")
        assert ".parquet" in said


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_missing_column_names_the_nearest_and_lists_all(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"x.{ending}").write_bytes(CONTENTS[ending])
    said = error_of(tmp_path, path=f"x.{ending}", text="Texts")
    assert said.startswith(f"x.{ending}: no column 'Texts' (nearest: 'text'); columns: id, text, kind")
    assert "no column 'label'" in error_of(tmp_path, path=f"x.{ending}", category_column="label")


def test_a_column_name_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"text,text\na,b\n")
    assert error_of(tmp_path, path="x.csv") == "x.csv: two columns are named 'text'; rename one of them in the file; columns: text, text"


@pytest.mark.parametrize("header", [b",", b";\t", b'"", ,'])
def test_a_header_without_a_name_is_an_error(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(header + b"\na,b\n")
    assert error_of(tmp_path, path="x.csv").startswith("x.csv: the header names no column; write the names of the columns into the first line")


ITEMS = [{"text": "one"}, {"text": "two"}]
LEAVE_LIST = "'data' holds a list of objects: if those are the rows, leave only that list in the file, from its '[' to its ']'"


@pytest.mark.parametrize("form", ["one line", "many lines", "a long line"])
@pytest.mark.parametrize("before", [{}, {"version": "1.1", "tags": ["a"]}])
def test_an_object_around_the_rows_is_named_with_what_to_do(tmp_path: Path, form: str, before: dict[str, Any]) -> None:
    rows = [*ITEMS, {"text": "x" * LONGEST_LINE}] if form == "a long line" else ITEMS
    raw = json.dumps(before | {"data": rows}, indent=1 if form == "many lines" else None).encode()
    first, *others = rows_in(tmp_path, "x.json", raw)
    assert isinstance(first, BadRow) and first.line == 1 and first.reason.endswith(f"; {LEAVE_LIST}")
    assert not any(LEAVE_LIST in row.reason for row in others if isinstance(row, BadRow))
    if form == "one line":
        assert first.reason.startswith(f"text column 'text' is missing; this row has {', '.join([*before, 'data'])}; ")


def test_a_broken_first_line_is_not_taken_for_an_object_around_the_rows(tmp_path: Path) -> None:
    for broken in (b'{"text": one}', b"nonsense"):
        bad = rows_in(tmp_path, "x.jsonl", broken + b'\n{"text": "two", "said": [{"a": 1}]}\n')[0]
        assert isinstance(bad, BadRow) and bad.reason.startswith("broken JSON: ") and "holds a list" not in bad.reason


def test_what_is_said_of_a_column_survives_the_way_from_a_worker() -> None:
    said = pickle.loads(pickle.dumps(ColumnError("x.csv: no column 'a'", "set 'text' to one of them")))
    assert isinstance(said, ColumnError) and said.problem == "x.csv: no column 'a'"
    assert str(said) == "x.csv: no column 'a'; set 'text' to one of them"


def test_plain_text_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"one")
    assert "'category_column: kind' cannot be read" in error_of(tmp_path, path="x.txt", category_column="kind")
    assert "'id: key' cannot be read" in error_of(tmp_path, path="x.txt", id="key")


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst", "x.csv.gz", "x.parquet", "x.parquet.gz"])
@pytest.mark.parametrize("raw", [b"this is not what the ending says", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"])
def test_a_file_that_is_broken_from_its_start_is_an_error(tmp_path: Path, name: str, raw: bytes) -> None:
    (tmp_path / name).write_bytes(raw)
    assert error_of(tmp_path, path=name).startswith(f"{name}: cannot be ")


def test_parquet_files_that_are_cut_or_hold_a_broken_name_are_errors(tmp_path: Path) -> None:
    for raw in (b"", CONTENTS["parquet"][:-9], CONTENTS["parquet"].replace(b"text", b"t\xffxt")):
        (tmp_path / "x.parquet").write_bytes(raw)
        assert error_of(tmp_path, path="x.parquet").startswith("x.parquet: ")


def test_a_file_that_vanishes_before_its_turn_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "b.txt").write_bytes(b"two")
    rows = read_source(SourceConfig(path="*.txt"), tmp_path)
    assert next(rows).line == 1
    (tmp_path / "b.txt").unlink()
    with pytest.raises(SourceError, match=r"b\.txt: cannot be opened: No such file"):
        next(rows)


def lines_of_noise(count: int) -> list[str]:
    random = Random(7)
    return [f"{n} {random.getrandbits(128):x}" for n in range(count)]


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_damage_in_the_middle_of_gzip_is_one_bad_row_and_the_next_file_is_read(tmp_path: Path, ending: str, damage: str) -> None:
    noise = lines_of_noise(20_000)
    content = {"jsonl": "".join(f'{{"text": "{t}"}}\n' for t in noise), "csv": "text\n" + "\n".join(noise), "txt": "\n\n".join(noise)}[ending]
    packed = bytearray(gzip.compress(content.encode()))
    middle = len(packed) // 2
    packed[middle:] = b"" if damage == "cut" else b"\xff" * 4000 + packed[middle + 4000 :]
    (tmp_path / f"a.{ending}.gz").write_bytes(packed)
    (tmp_path / f"b.{ending}").write_bytes(content.encode()[: content.index("\n", 10)])
    rows = rows_of(tmp_path, path="*")
    of_a = [row for row in rows if row.file.startswith("a.")]
    intact = next(n for n, row in enumerate(of_a) if not isinstance(row, SourceText) or row.text != noise[n])
    assert intact > 6_000
    last = of_a[-1]
    assert isinstance(last, BadRow)
    assert "the file is damaged; nothing from this line on was read: " in last.reason
    assert last.unread and not any(row.unread for row in rows if isinstance(row, BadRow) and row is not last)
    assert texts(rows[len(of_a) :]) == noise[:1]
    if damage == "cut":  # what is overwritten may unpack to nonsense for a while, until a code or the checksum is wrong
        assert len(of_a) == intact + 1
        assert last.line == {"jsonl": intact + 1, "csv": intact + 2, "txt": 2 * intact + 1}[ending]


def test_a_small_cut_gzip_gives_all_whole_rows_before_the_cut(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"text": "one"}\n{"text": "two"}\n{"text": "thr', mtime=0)[:-4]
    rows = rows_in(tmp_path, "x.jsonl.gz", packed)
    assert texts(rows[:2]) == ["one", "two"]
    assert only_refusal(rows[2:]).line == 3


def test_a_small_gzip_gives_the_rows_before_its_damage(tmp_path: Path) -> None:
    noise = lines_of_noise(100)
    packed = bytearray(gzip.compress("".join(f'{{"text": "{t}"}}\n' for t in noise).encode(), mtime=0))
    packed[len(packed) * 3 // 4 :] = b"U" * (len(packed) // 4)
    with pytest.raises(zlib.error):  # unpacked in one go, nothing is left
        zlib.decompress(packed, 31)
    rows = rows_in(tmp_path, "x.jsonl.gz", bytes(packed))
    assert texts(rows[:25]) == noise[:25]
    assert "the file is damaged" in only_refusal(rows[-1:]).reason


def test_a_cut_zstd_stream_ends_in_one_bad_row(tmp_path: Path) -> None:
    whole = "".join(f'{{"text": "{t}"}}\n' for t in lines_of_noise(40_000)).encode()
    rows = rows_in(tmp_path, "x.jsonl.zst", zstd(whole) + zstd(whole)[:-500])
    assert len(texts(rows[:-1])) > 40_000
    assert only_refusal(rows[-1:]).line == len(rows) and only_refusal(rows[-1:]).unread


def test_packed_files_of_several_members_are_read_to_the_end(tmp_path: Path) -> None:
    for ending, pack in PACK.items():
        rows = rows_in(tmp_path, f"x.jsonl{ending}", pack(b'{"text": "one"}\n{"te') + pack(b'xt": "two"}\n'))
        assert texts(rows) == ["one", "two"]


def test_damage_in_the_middle_of_parquet_is_one_bad_row(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": lines_of_noise(20_000)}), buffer, row_group_size=2_000)
    raw = bytearray(buffer.getvalue())
    raw[len(raw) // 2 : len(raw) // 2 + 3000] = b"\xff" * 3000
    (tmp_path / "b.txt").write_bytes(b"next")
    (tmp_path / "a.parquet").write_bytes(raw)
    *good, bad, following = rows_of(tmp_path, path=".")
    assert texts(good) == lines_of_noise(20_000)[: len(good)]
    assert len(good) > 5_000
    assert isinstance(bad, BadRow)
    assert bad.line == len(good) + 1 and bad.unread
    assert bad.reason.startswith("the file is damaged; nothing from this row on was read: ")
    assert following.file == "b.txt"


def test_a_changed_byte_is_found_where_parquet_has_checksums(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["one", "two"]}), buffer, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True)
    assert texts(rows_in(tmp_path, "x.parquet", buffer.getvalue())) == ["one", "two"]
    bad = only_refusal(rows_in(tmp_path, "x.parquet", buffer.getvalue().replace(b"two", b"tvo")))
    assert bad.line == 1
    assert "CRC" in bad.reason


def test_damage_in_packed_parquet_is_one_bad_row(tmp_path: Path) -> None:
    packed = gzip.compress(parquet(text=lines_of_noise(5_000)))
    bad = only_refusal(rows_in(tmp_path, "x.parquet.gz", packed[: len(packed) // 2]))
    assert (bad.line, bad.reason[:43], bad.unread) == (1, "the file cannot be unpacked and was skipped", True)


@pytest.mark.parametrize("paragraph", [b"ab " * 500_000, b"ab "])
def test_damage_behind_a_paragraph_that_is_too_long_is_told_all_the_same(tmp_path: Path, paragraph: bytes) -> None:
    noise = "\n".join(lines_of_noise(3_000)).encode()
    packed = gzip.compress(b"one\n\n" + paragraph + b"\n" + noise, mtime=0)
    *_, last = rows_in(tmp_path, "x.txt.gz", packed[: len(packed) * 3 // 4], unit="paragraph")
    assert isinstance(last, BadRow) and last.unread and last.line == 3
    assert ("longer than" in last.reason) == (len(paragraph) > LONGEST_LINE) and "nothing from this line on was read" in last.reason


def test_files_are_closed_when_reading_stops_early(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.csv", "e.parquet", "f.txt"):
        ending, packing = name.split(".")[1], "." + name.split(".")[2] if name.count(".") == 2 else ""
        (tmp_path / name).write_bytes(PACK[packing](CONTENTS.get(ending, b"one\n\ntwo")))
        before = len(os.listdir("/proc/self/fd"))
        rows: Iterator[SourceText | BadRow] = read_source(SourceConfig(path=name), tmp_path)
        next(rows)
        del rows
        assert len(os.listdir("/proc/self/fd")) == before, name


TOO_LONG = f"line longer than {LONGEST_LINE:,} bytes"


@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_a_line_is_bounded_to_the_byte(tmp_path: Path, ending: str) -> None:
    before, after = {"jsonl": (b"", b'{"text": "one"}'), "csv": (b"text\n", b"one"), "txt": (b"", b"\none")}[ending]
    fits = b"x" * (LONGEST_LINE - 1) + b"\n"
    rows = rows_in(tmp_path, f"x.{ending}", before + fits + b"x" + fits + after if ending != "txt" else fits + b"\nx" + fits + after)
    assert len(rows) == 3
    (first, why_first), (second, why_second) = refused(rows)
    assert "line longer" not in why_first
    assert why_second == TOO_LONG
    assert isinstance(rows[2], SourceText)
    assert (first, second, rows[2].line) == {"jsonl": (1, 2, 3), "csv": (2, 3, 4), "txt": (1, 3, 5)}[ending]


def traced_peak_mib(base: Path, **config: Any) -> tuple[float, list[SourceText | BadRow]]:
    tracemalloc.start()
    try:
        rows = rows_of(base, **config)
        return tracemalloc.get_traced_memory()[1] / 2**20, rows
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_memory_is_flat_for_a_single_line_of_200_mb(tmp_path: Path, ending: str) -> None:
    with open(tmp_path / f"x.{ending}", "wb") as out:
        out.write(b"text\n" if ending == "csv" else b"")
        out.truncate(200_000_000)  # sparse: the rest reads as NULs
    peak, rows = traced_peak_mib(tmp_path, path=f"x.{ending}")
    assert only_refusal(rows).reason == TOO_LONG
    assert peak < 8


def test_memory_is_flat_for_a_json_array_and_for_an_element_that_never_ends(tmp_path: Path) -> None:
    with open(tmp_path / "x.json", "wb") as out:
        out.write(b"[" + b'{"text": "one"},' * 100_000 + b'{"text": "')
        out.truncate(200_000_000)
    tracemalloc.start()
    count, last = 0, None
    for row in read_source(SourceConfig(path="x.json"), tmp_path):
        count, last = count + 1, row
    peak_mib = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert count == 100_001 and isinstance(last, BadRow) and last.line == count
    assert peak_mib < 8


def test_memory_is_flat_for_a_gzip_that_unpacks_to_200_mb(tmp_path: Path) -> None:
    bomb = gzip.compress(b"x" * 2**20) * 200 + gzip.compress(b'\n{"text": "after"}\n')
    assert len(bomb) < 300_000
    (tmp_path / "x.jsonl.gz").write_bytes(bomb)
    peak, rows = traced_peak_mib(tmp_path, path="x.jsonl.gz")
    assert refused(rows) == [(1, TOO_LONG)]
    assert rows[1] == SourceText("after", "x.jsonl.gz", 2, None, None)
    assert peak < 8


def test_memory_is_flat_for_a_quoted_field_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b'id,text\n1,"open\n' + (b"x" * 999 + b"\n") * 15_000)
    tracemalloc.start()
    count = sum(1 for _ in read_source(SourceConfig(path="x.csv"), tmp_path))
    peak_mib = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert count > 13_000  # reading went on after the first MiB
    assert peak_mib < 10


MEASURE = """
import sys
from pathlib import Path
from safer_instruct.config import SourceConfig
from safer_instruct.sources import read_source

def peak_mib():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024

base = Path(sys.argv[1])
list(read_source(SourceConfig(path="small" + sys.argv[2]), base))
before = peak_mib()
rows = sum(1 for _ in read_source(SourceConfig(path="large" + sys.argv[2]), base))
print(rows, peak_mib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the kernel's own peak, which counts Arrow's memory too")
@pytest.mark.parametrize("ending", [".jsonl.zst", ".parquet"])
def test_resident_memory_is_flat_where_arrow_reads(tmp_path: Path, ending: str) -> None:
    if ending == ".parquet":
        noise = pa.table({"text": [os.urandom(1000).hex() for _ in range(5_000)]})
        for name, parts in (("small", [noise]), ("large", [noise] * 10)):  # one row group each
            pq.write_table(pa.concat_tables(parts), tmp_path / f"{name}.parquet", use_dictionary=False)
    else:
        (tmp_path / "small.jsonl.zst").write_bytes(zstd(b"x" * 4_000_000))
        (tmp_path / "large.jsonl.zst").write_bytes(zstd(b"x" * 4_000_000) * 50)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path), ending], capture_output=True, text=True, check=True)
    rows, grown_mib = done.stdout.split()
    assert int(rows) == (50_000 if ending == ".parquet" else 1)
    assert float(grown_mib) < 40  # the large ones unpack to 100 and 200 MB


def blank(line: bytes) -> bool:
    return not line.strip()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(codec=None)),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)
json_lines = st.dictionaries(st.sampled_from(["text", "id", "x"]), json_values).map(lambda row: json.dumps(row).encode())
text_lines = st.text().map(lambda text: json.dumps({"text": text, "id": 1}, ensure_ascii=False).encode())
junk_lines = st.binary().map(lambda raw: raw.replace(b"\n", b""))


@settings(max_examples=200)
@given(st.lists(text_lines | json_lines | junk_lines), st.sampled_from([b"\n", b"\r\n"]), st.sampled_from(list(PACK)), st.booleans())
def test_any_lines_give_one_result_each_and_never_an_exception(lines: list[bytes], end: bytes, packing: str, bom: bool) -> None:
    content = b"\xef\xbb\xbf" * bom + end.join(lines)
    assume(not end.join(lines).lstrip().startswith(b"["))  # an array, of which every element is a row
    with TemporaryDirectory() as base:
        rows = rows_in(Path(base), f"x.jsonl{packing}", PACK[packing](content), id="id")
    expected = [n for n, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1) if not blank(line)]
    assert [row.line for row in rows] == expected
    assert all(row.reason for row in rows if isinstance(row, BadRow))
    assert all(row.text and row.text == row.text.strip() and row.text.encode() for row in rows if isinstance(row, SourceText))


@settings(max_examples=100)
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))), st.sampled_from(["csv", "tsv"]))
def test_what_the_csv_module_writes_comes_back_whole(written: list[str], ending: str) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter="," if ending == "csv" else "\t")
    writer.writerow(["id", "text"])
    begins = []
    for n, text in enumerate(written):
        begins.append(out.getvalue().count("\n") + 1)
        writer.writerow([f"r{n}", text])
    with TemporaryDirectory() as base:
        rows = rows_in(Path(base), f"x.{ending}", out.getvalue().encode(), id="id")
    assert [row.line for row in rows] == begins
    assert [row.text if isinstance(row, SourceText) else "" for row in rows] == [text.strip() for text in written]


@settings(max_examples=150)
@given(st.binary(max_size=400), st.sampled_from(["csv", "tsv", "txt"]))
def test_any_bytes_give_rows_in_order_and_never_an_exception(junk: bytes, ending: str) -> None:
    with TemporaryDirectory() as base:
        rows = rows_in(Path(base), f"x.{ending}", (b"" if ending == "txt" else b"text\n") + junk)
    numbers = [row.line for row in rows]
    assert numbers == sorted(set(numbers))
    assert all(row.reason for row in rows if isinstance(row, BadRow))


@settings(max_examples=150)
@given(st.data())
def test_damaged_bytes_of_a_packed_or_parquet_file_are_reported_never_a_crash(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["x.jsonl.gz", "x.jsonl.zst", "x.parquet"]))
    lines = [f"text {n}" for n in range(500)]
    packing = "." + name.rpartition(".")[2]
    raw = bytearray(parquet(text=lines) if packing == ".parquet" else PACK[packing]("".join(f'{{"text": "{t}"}}\n' for t in lines).encode()))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), min_size=1, max_size=4)):
        raw[at] = byte
    with TemporaryDirectory() as base:
        try:
            rows = rows_in(Path(base), name, bytes(raw))
        except SourceError:
            return
    assert rows


def test_where_a_relative_path_begins_is_told_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"; a path in a config is relative to the folder of the config$"):
        list(read_source(SourceConfig(path="nowhere.csv"), tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"; a relative path begins in that folder$"):
        list(read_source(SourceConfig(path="nowhere.csv"), Path()))
