"""A whole run of direction `chosen` over documents and over rows with licences: place and licence reach export and card."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from made_documents import docx, pdf

from safer_instruct.cli import main
from safer_instruct.config import load_config
from safer_instruct.export import Options, export_pairs
from safer_instruct.pipeline import run

PAGE = "<h1>Kettles</h1><p>A kettle is best cleaned with vinegar, one part to two parts of water, left to stand for an hour.</p><p>Too short.</p>"
LAMPS = "A lamp that flickers has a loose bulb nine times out of ten, so turn it once before you call anybody."
BREAD = "Bread keeps for four days in a linen bag, and for four weeks in the freezer if it was cut into slices before."


def config(folder: Path, source: dict[str, object]) -> Path:
    models = dict.fromkeys(("inducer", "student", "scorer"), "scripted:")
    made = {"domain": "answers", "source": source, "models": models, "filter": {"prompt": None, "consistency": None}, "verify": {"form": "contrast"}}
    (folder / "c.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
    return folder / "c.yaml"


def test_passages_become_pairs_and_keep_their_place(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.html").write_text(PAGE, encoding="utf-8")
    (tmp_path / "docs" / "b.docx").write_bytes(docx([("Heading1", "Lamps"), ("", LAMPS)]))
    (tmp_path / "docs" / "c.pdf").write_bytes(pdf([[], [BREAD[:60], BREAD[60:].strip()]]))
    (tmp_path / "docs" / "d.pdf").write_bytes(b"%PDF-1.4 and nothing else")
    source = {"path": "docs", "documents": {"by": "paragraph", "min_words": 5}}
    result = run(load_config(config(tmp_path, source)), tmp_path / "out")
    assert (result.summary["rows"], result.summary["set_aside"], result.summary["pairs"]) == (5, 2, 3)
    aside = [json.loads(line) for line in (tmp_path / "out" / "rejected_rows.jsonl").read_text("utf-8").splitlines()]
    assert [(row["file"], row["reason"].split(":")[0]) for row in aside] == [
        ("docs/a.html", "Kettles, paragraph 2"),
        ("docs/d.pdf", "the document is broken"),
    ]
    rows = pq.read_table(export_pairs(tmp_path / "out", "parquet", options=Options(provenance=True)).path).to_pylist()
    assert [(row["source_file"], row["source_place"], row["chosen"] != row["rejected"]) for row in rows] == [
        ("docs/a.html", "Kettles, paragraph 1", True),
        ("docs/b.docx", "Lamps, paragraph 1", True),
        ("docs/c.pdf", "page 2, paragraph 1", True),
    ]


def test_the_licence_of_each_text_reaches_its_row_and_the_card(tmp_path: Path) -> None:
    texts = [{"text": LAMPS, "terms": "cc-by-4.0"}, {"text": BREAD, "terms": ""}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    run(load_config(config(tmp_path, {"path": "t.jsonl", "license_column": "terms", "license": "mit"})), tmp_path / "out")
    rows = pq.read_table(export_pairs(tmp_path / "out", "parquet", options=Options(provenance=True)).path).to_pylist()
    assert [row["source_license"] for row in rows] == ["cc-by-4.0", "mit"]
    assert "cc-by-4.0 (1 pair)" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_an_audit_of_a_run_is_strict_where_asked_and_writes_markdown_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"What is {i}?", "chosen": "The same again, and again.", "rejected": f"No {i} here."} for i in range(60)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path, out = str(tmp_path / "pairs.jsonl"), tmp_path / "new" / "audit.md"

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["audit", *arguments])
        return int(ended.value.code or 0), capsys.readouterr().out

    code, said = call(path, "--out", str(out))
    assert code == 0 and "BAD" in said and "contamination was not asked" in said
    assert "| repeats | BAD | 1.7% of the chosen responses are unique" in out.read_text("utf-8")
    code, said = call(path, "--json", "--strict")
    found = {check["check"]: check for check in json.loads(said)["checks"]}
    assert code == 1 and found["repeats"]["rows"] == 60 and found["repeats"]["where"][0]["line"] == 1
    code, said = call(path, "--show", "repeats", "--sample", "2")
    assert code == 0 and "2 of 60 rows of 'repeats'" in said and "stands 60 times" in said
    assert call(path, "--show", "nothing")[0] == 2 and call(str(tmp_path / "gone.jsonl"))[0] == 2
