"""The tutorial docs/new-domain.md, as somebody does it who has nothing else: its commands, in its order, with the embedded model."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest

from safer_instruct.cli import main
from safer_instruct.domain import load_domain

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "new-domain.md").read_text("utf-8")
ROWS = 4  # of the corpus: enough to see that each command works, and few enough for every day


def commands() -> list[list[str]]:
    """What the tutorial has its reader type, below the marks."""
    blocks = re.findall(r"<!-- tutorial -->\n```sh\n(.*?)```", TUTORIAL, re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def typed(command: list[str]) -> int:
    assert command[0] == "safer-instruct"
    with pytest.raises(SystemExit) as stopped:
        main(command[1:])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_the_tutorial_leads_from_nothing_to_exported_pairs(
    embedded_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(csv.reader((ROOT / "examples" / "evasive" / "replies.csv").read_text("utf-8").splitlines()))
    with (tmp_path / "replies.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows[: ROWS + 1])
    monkeypatch.chdir(tmp_path)
    steps = commands()
    assert [step[1] for step in steps] == ["domain", "domain", "domain", "init", "run", "filters", "report", "export", "export", "audit"]
    for step in steps:
        code = typed(step)
        # an audit ends with 1 where it finds something bad, which in so small a set it does
        assert code == 0 or (code, step[1]) == (1, "audit"), (step, capsys.readouterr().err)
        if step[:3] == ["safer-instruct", "domain", "new"]:
            examples = re.search(r"```yaml\n(    examples:\n.*?)```", TUTORIAL, re.S)
            file = tmp_path / "evasive-domain.yaml"
            assert examples and "    examples: []\n" in file.read_text("utf-8")
            file.write_text(file.read_text("utf-8").replace("    examples: []\n", examples[1]), encoding="utf-8")
            assert len(load_domain(file.name, tmp_path).categories["reply"].examples) == 2
    summary = json.loads((tmp_path / "runs" / "evasive" / "summary.json").read_text("utf-8"))
    assert summary["rows"] == ROWS == summary["pairs"] + summary["dropped"]
    exported = (tmp_path / "runs" / "evasive" / "export.messages.jsonl").read_text("utf-8").splitlines()
    assert len(exported) == summary["pairs"] > 0 and (tmp_path / "runs" / "evasive" / "report.html").is_file()
