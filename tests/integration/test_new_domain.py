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
    exported = (tmp_path / "runs" / "evasive" / "export-messages" / "train.jsonl").read_text("utf-8").splitlines()
    assert len(exported) == summary["pairs"] and (tmp_path / "runs" / "evasive" / "report.html").is_file()


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("safer-instruct domain new Evasive --no-input", "'Evasive' cannot name a domain; use small letters"),
        ("safer-instruct domain check evasive-domain.yml", "evasive-domain.yml"),
        ("safer-instruct domain check typo.yaml", "typo.yaml:5: unknown key 'categories.reply.guidline'; did you mean 'guideline'?"),
        ("safer-instruct init evasive --source replys.csv", "no file, folder or glob match"),
        ("safer-instruct init evasive --source replies.csv", "no column 'text'; columns: id, reply"),
        ("safer-instruct init evasive --source replies.csv --txt reply", "No such option"),
        ("safer-instruct run evasive.yaml", "evasive.yaml: no such file"),
        ("safer-instruct run wrong.yaml", "no column 'text'; columns: id, reply"),
        ("safer-instruct report runs/evasive", "safer-instruct run CONFIG --out runs/evasive"),
        ("safer-instruct export runs/evasive --format messages", "safer-instruct run CONFIG --out runs/evasive"),
        ("safer-instruct export runs/evasive --format mesages", "messages"),
    ],
)
def test_a_wrong_step_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str, said: str
) -> None:
    (tmp_path / "replies.csv").write_text("id,reply\ne1,It depends on many things.\n", encoding="utf-8")
    typo = "name: x\ndescription: d\ncategories:\n  reply:\n    guidline: g\n    definition: d\n    guideline: g\n"
    (tmp_path / "typo.yaml").write_text(typo, encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text(
        "domain: civility\nsource: {path: replies.csv}\nmodels: {inducer: 'scripted:', expert: 'scripted:', scorer: 'scripted:'}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert typed(shlex.split(step)) != 0
    told = capsys.readouterr()
    assert said in " ".join((told.err + told.out).replace("│", " ").split()) and "Traceback" not in told.err
