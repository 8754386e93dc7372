"""docs/export.md names every format, and each of its commands does what it says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from safer_instruct.cli import main
from safer_instruct.config import load_config
from safer_instruct.export import FORMATS
from safer_instruct.export.rows import PROVENANCE
from safer_instruct.pipeline import run

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
NOUNS = ["kettle", "parcel", "lamp", "cake", "umbrella", "printer", "clock", "ladder", "teapot", "carpet"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of ten pairs."""
    folder = tmp_path_factory.mktemp("project")
    rows = [{"text": f"Number {i}: the {noun} works, you merely {NOUNS[i - 1]}ed it, as {NOUNS[i - 2]} owners do."} for i, noun in enumerate(NOUNS)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    models = dict.fromkeys(("inducer", "expert", "scorer"), "scripted:")
    config = {"domain": "civility", "source": {"path": "texts.jsonl"}, "models": models, "filter": {"prompt": {"language": None}, "consistency": None}}
    (folder / "civility.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert run(load_config(folder / "civility.yaml"), folder / "runs" / "civility").summary["pairs"] == len(NOUNS)
    return folder


def test_the_page_names_every_format_and_column() -> None:
    assert {format_ for command in COMMANDS for format_ in re.findall(r"--format (\S+)", command)} == set(FORMATS)
    assert all(f"`{column}`" in PAGE for column in PROVENANCE)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_writes_ten_pairs(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(command, comments=True)[1:])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    counted, _, path = said.out.strip().rpartition(": ")
    assert counted.startswith("10 pairs") and Path(path).exists()
