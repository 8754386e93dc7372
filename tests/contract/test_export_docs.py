"""docs/export.md names every format and column; its commands are run by tests/integration/test_docs_run.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from documented import ROOT, blocks, commands
from made_runs import made_up, write_run

from safer_instruct.export import FORMATS, dialogues, export_pairs, registry
from safer_instruct.export.rows import CORRECTED, PROVENANCE


def test_the_page_names_every_format_and_column() -> None:
    typed = [command.text for block in blocks("docs/export.md") for command in commands(block)]
    assert {format_ for command in typed for format_ in re.findall(r"--format (\S+)", command)} == set(FORMATS)
    page = (ROOT / "docs" / "export.md").read_text("utf-8")
    assert all(f"`{column}`" in page for column in PROVENANCE | CORRECTED)


def test_the_two_pieces_of_the_page_make_a_format_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = next(block.text for block in blocks("docs/export.md") if block.text.startswith("# src/safer_instruct/export/dialogues.py"))
    function, line = re.split(r"# src/safer_instruct/export/registry.py.*\n", example)
    monkeypatch.setattr(dialogues, "swift", None, raising=False)  # taken away again at the end of the test
    exec(function, vars(dialogues))
    ((name, form),) = eval("{" + line + "}", vars(registry)).items()
    monkeypatch.setitem(FORMATS, name, form)
    run = write_run(tmp_path / "run", list(made_up(50)))
    exported = export_pairs(run, "swift")
    first = json.loads(exported.path.read_text("utf-8").splitlines()[0])
    assert exported.path.name == "export.swift.jsonl" and exported.pairs > 10
    assert [turn["role"] for turn in first["messages"]] == ["user", "assistant"] and {"rejected_response", "category", "id"} <= set(first)
