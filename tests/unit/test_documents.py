"""HTML, PDF and DOCX as sources: passages with their places, and every document that cannot be read set aside with the reason."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pypdf
import pytest
from made_documents import docx, pdf

from safer_instruct.config import SourceConfig
from safer_instruct.equipment import count_rows
from safer_instruct.errors import MissingExtraError, SourceError
from safer_instruct.settings.documents import DocumentConfig
from safer_instruct.sources import BadRow, SourceText, read_rows, read_source
from safer_instruct.sources.html import read_html
from safer_instruct.sources.passages import Block, cut

KETTLE = "You may bring a kettle back within thirty days, and we will gladly look at it with you."
LAMP = "A lamp that flickers is repaired in two days, and the bulb is on us this time."


def read(folder: Path, name: str, content: bytes, **documents: object) -> list[SourceText | BadRow]:
    (folder / name).write_bytes(content)
    config = SourceConfig(path=name, documents=DocumentConfig.model_validate({"min_words": 3, **documents}))
    return list(read_source(config, folder))


def told(rows: list[SourceText | BadRow]) -> list[tuple[str, str, int]]:
    return [(row.text, row.place, row.line) if isinstance(row, SourceText) else ("", row.reason, row.line) for row in rows]


def test_a_document_that_nobody_meant_is_named_where_its_reader_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mammoth", None)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.json").write_text('[{"text": "one"}]')
    (tmp_path / "texts" / "notes.docx").write_bytes(b"PK")
    needs = "texts/notes.docx: reading DOCX needs mammoth, which is not installed; run: pip install 'safer-instruct[docs]'"
    others = "; or, if that file is not meant, name the others with a glob, such as 'path: {}/*.json'"
    for path, remedy in (("texts", others.format("texts")), ("texts/*", others.format("FOLDER")), ("texts/notes.docx", "")):
        with pytest.raises(MissingExtraError) as caught:
            list(read_source(SourceConfig(path=path), tmp_path))
        assert str(caught.value) == needs + remedy and caught.value.extra == "docs"
    (row,) = read_source(SourceConfig(path="texts/*.json"), tmp_path)
    assert isinstance(row, SourceText) and row.text == "one"


def reason(rows: list[SourceText | BadRow]) -> str:
    (row,) = rows
    assert isinstance(row, BadRow), row
    return row.reason


@pytest.mark.parametrize("name", ["a.html", "a.HTM", "a.pdf", "a.docx", "a.WARC", "a.warc.gz", "a.Wet"])
def test_a_document_is_not_taken_apart_to_count_what_it_holds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(b"never opened")
    monkeypatch.setattr(Path, "open", None)
    assert count_rows(SourceConfig(path=name), tmp_path) is None


@pytest.mark.parametrize(("name", "set_"), [("a.TXT", {}), ("a.jsonl", {}), ("a.html", {"format": "text"})])
def test_rows_and_lines_are_counted_whatever_the_case_of_the_ending(name: str, set_: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"text": "One kettle."}\n\n{"text": "Another one."}\n', encoding="utf-8")
    assert count_rows(SourceConfig.model_validate({"path": name, **set_}), tmp_path) == 2


# --- what a document gives

PAGE = f"""<!doctype html><title>Shop</title><nav><ul><li>Home page<li>Our whole shop</ul></nav><h1>Returns</h1><p>{KETTLE}</p>
<h2>Lamps<a href="#lamps">\u00b6</a></h2>
<p>{LAMP.replace(" is ", " <b>is</b>&nbsp;")}</p><ul><li>one small lamp<li>two large lamps</ul>
<script>let x = 'not a word of this';</script>
<p hidden>Nobody can see this line.</p><h1>Visit</h1>
<table><tr><th>Day<th>Open<tr><td>Monday<td>nine to five</table><footer>All rights reserved here</footer>"""


def test_a_page_gives_its_paragraphs_below_their_headings_without_menus_and_scripts(tmp_path: Path) -> None:
    assert told(read(tmp_path, "a.html", PAGE.encode())) == [
        (KETTLE, "Returns, paragraph 1", 1),
        (f"{LAMP}\n\n- one small lamp\n- two large lamps", "Returns > Lamps, paragraph 2", 2),
        ("Day | Open\n\nMonday | nine to five", "Visit, paragraph 5", 5),
    ]


def test_by_paragraph_each_stands_by_itself_and_short_ones_are_set_aside_with_their_place(tmp_path: Path) -> None:
    rows = told(read(tmp_path, "a.html", PAGE.encode(), by="paragraph", min_words=10))
    assert [text for text, _, _ in rows if text] == [KETTLE, LAMP]
    assert rows[2] == ("", "Returns > Lamps, paragraph 3: a passage of 4 words, fewer than 10 (source.documents.min_words)", 3)


def test_a_word_document_gives_its_paragraphs_below_their_headings(tmp_path: Path) -> None:
    content = docx([("Heading1", "Returns"), ("", KETTLE), ("Heading2", "Lamps"), ("", LAMP), ("", KETTLE)])
    assert told(read(tmp_path, "a.docx", content)) == [
        (KETTLE, "Returns, paragraph 1", 1),
        (f"{LAMP}\n\n{KETTLE}", "Returns > Lamps, paragraph 2", 2),
    ]


def test_a_pdf_gives_its_paragraphs_with_their_pages_without_running_heads(tmp_path: Path) -> None:
    pages = [
        ["The shop's handbook", "You may bring a kettle back within thirty days, and we will glad-", "ly look at it with you.", "", LAMP, "Page 1"],
        ["The shop's handbook", "Whoever comes on a Monday finds us in the garden behind the", "house and may have", "Page 2"],
        ["The shop's handbook", "a cup of tea there.", "Page 3"],
    ]
    rows = told(read(tmp_path, "a.pdf", pdf(pages), by="paragraph"))
    assert rows == [
        (KETTLE, "page 1, paragraph 1", 1),
        (LAMP, "page 1, paragraph 2", 2),
        ("Whoever comes on a Monday finds us in the garden behind the house and may have a cup of tea there.", "page 2, paragraph 3", 3),
    ]


def test_bookmarks_of_a_pdf_are_its_headings(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(io.BytesIO(pdf([[KETTLE], [LAMP]])))
    above = writer.add_outline_item(title="Returns", page_number=0)
    writer.add_outline_item(title="Lamps", page_number=1, parent=above)
    out = io.BytesIO()
    writer.write(out)
    assert [place for _, place, _ in told(read(tmp_path, "a.pdf", out.getvalue()))] == [
        "page 1, Returns, paragraph 1",
        "page 2, Returns > Lamps, paragraph 2",
    ]


def test_a_folder_of_documents_is_read_by_endings_and_packed_ones_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for name, content in (("a.html", PAGE.encode()), ("b.docx", docx([("", KETTLE)])), ("c.pdf", pdf([[LAMP]])), ("d.htm.gz", gzip.compress(PAGE.encode()))):
        (tmp_path / "all" / name).write_bytes(content)
    rows = list(read_source(SourceConfig(path="all", documents=DocumentConfig(min_words=3)), tmp_path))
    assert [row.file for row in rows] == ["all/a.html"] * 3 + ["all/b.docx", "all/c.pdf"] + ["all/d.htm.gz"] * 3
    assert all(isinstance(row, SourceText) for row in rows)


def test_a_folder_of_tables_is_read_as_before_beside_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n')
    (tmp_path / "a.html").write_text(PAGE)
    assert [row.file for row in read_rows(SourceConfig(path="."), tmp_path)] == ["a.jsonl"]
    with pytest.raises(SourceError, match=r"a\.html: a document has no columns"):
        read_rows(SourceConfig(path="a.html"), tmp_path)


@pytest.mark.parametrize("key", ["id", "category_column", "license_column"])
def test_columns_of_a_document_are_an_error_that_names_the_key(tmp_path: Path, key: str) -> None:
    (tmp_path / "a.html").write_text(PAGE)
    with pytest.raises(SourceError, match=f"a document has no columns, so '{key}: x' cannot be read"):
        list(read_source(SourceConfig.model_validate({"path": "a.html", key: "x"}), tmp_path))


# --- what cannot be read


def test_broken_documents_are_set_aside_whole(tmp_path: Path) -> None:
    whole_pdf, whole_docx = pdf([[KETTLE], [LAMP]]), docx([("", KETTLE)])
    for name, content in (("a.pdf", b"no pdf at all"), ("b.pdf", whole_pdf[:60]), ("c.docx", b"no docx"), ("d.docx", whole_docx[: len(whole_docx) // 2])):
        assert "damaged" in reason(read(tmp_path, name, content)) or "broken" in reason(read(tmp_path, name, content))
    assert reason(read(tmp_path, "e.docx", docx([("", KETTLE + "</w:t><oops>")]))).startswith("the document is broken: ")
    assert reason(read(tmp_path, "f.html", b"")) == "the document holds no text"
    assert "cannot be decoded: the page says utf-8" in reason(read(tmp_path, "g.html", b"<meta charset=utf-8><p>caf\xe9 is a word too many</p>"))


def test_an_encrypted_pdf_is_set_aside_and_one_that_is_only_locked_is_read(tmp_path: Path) -> None:
    contents = {}
    for user in ("secret", ""):
        writer = pypdf.PdfWriter(io.BytesIO(pdf([[KETTLE]])))
        writer.encrypt(user, "owner", algorithm="RC4-128")
        out = io.BytesIO()
        writer.write(out)
        contents[user] = out.getvalue()
    assert reason(read(tmp_path, "a.pdf", contents["secret"])) == "the document is encrypted; save it without a password"
    assert told(read(tmp_path, "b.pdf", contents[""])) == [(KETTLE, "page 1, paragraph 1", 1)]


def test_an_encrypted_or_old_word_document_is_set_aside(tmp_path: Path) -> None:
    assert reason(read(tmp_path, "a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))).startswith("the document is encrypted, or an old .doc")


def test_an_old_word_document_of_a_folder_or_a_glob_is_set_aside_and_one_that_is_named_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,n\none,1\n")
    for name in ("b.doc", "c.DOC.gz", "d.png"):
        (tmp_path / name).write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    for path in (".", "[a-c]*"):
        row, *old = read_source(SourceConfig(path=path, id="n"), tmp_path)
        assert isinstance(row, SourceText) and [(bad.file, bad.line) for bad in old] == [("b.doc", 1), ("c.DOC.gz", 1)]
        assert all(isinstance(bad, BadRow) and bad.reason.startswith("an old .doc is not read; ") for bad in old)
    with pytest.raises(SourceError, match=r"^b\.doc: an old \.doc is not read; open it in a word processor and save it as \.docx$"):
        read_source(SourceConfig(path="b.doc"), tmp_path)
    assert [row.file for row in read_rows(SourceConfig(path="."), tmp_path)] == ["a.csv"]
    (tmp_path / "e.doc").write_text("one")
    assert [row.text for row in read_source(SourceConfig(path="e.doc", format="text"), tmp_path) if isinstance(row, SourceText)] == ["one"]


def test_a_pdf_of_pictures_is_told_to_need_ocr(tmp_path: Path) -> None:
    assert reason(read(tmp_path, "a.pdf", pdf([[], []]))).startswith("none of its 2 pages has a text layer; they are pictures: run OCR")


def test_documents_beyond_their_bounds_are_set_aside_before_they_are_unpacked(tmp_path: Path) -> None:
    bomb = docx([("", KETTLE)], word__xml=b" " * (3 << 20))
    assert len(bomb) < 10_000
    assert reason(read(tmp_path, "a.docx", bomb, max_mb=2)).startswith("the document unpacks to 3 MB from 0.0 MB, more than 2 MB")
    assert reason(read(tmp_path, "b.html", b"<p>word " * 200_000, max_mb=1)) == "the document is larger than 1 MB (source.documents.max_mb)"
    assert reason(read(tmp_path, "c.pdf", pdf([[KETTLE]] * 3), max_pages=2)).startswith("the document has 3 pages, more than 2")


def test_a_page_that_nests_without_end_is_set_aside_at_once(tmp_path: Path) -> None:
    assert reason(read(tmp_path, "a.html", b"<div>" * 300_000 + b"text")) == "the page is broken: its tags nest deeper than 2,000"
    assert told(read(tmp_path, "b.html", b"<div>" * 1_500 + b"<p>three little words" * 3)) != []


# --- cutting


def test_passages_keep_to_their_length_and_no_word_is_lost() -> None:
    sentences = [" ".join([f"s{n}w{i}" for i in range(n)]) + "." for n in (4, 9, 30, 2, 7)]
    blocks = [Block(" ".join(sentences)), Block("one more of them"), Block("Head", "heading", 1), Block("the end of it")]
    passages = list(cut(blocks, DocumentConfig(min_words=1, max_words=12)))
    assert all(len(p.text.split()) <= 12 for p in passages)
    assert " ".join(p.text for p in passages).split() == " ".join(b.text for b in blocks if b.kind != "heading").split()
    assert [p.place for p in passages][-1] == "Head, paragraph 3" and passages[0].paragraph == passages[1].paragraph == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_pages_are_decoded_by_what_they_say(encoding: str) -> None:
    head = '<meta charset="iso-8859-1">' if encoding == "cp1252" else ""
    assert [b.text for b in read_html(f"{head}<p>caf\u00e9</p>".encode(encoding))] == ["caf\u00e9"]
