"""What README and docs have their reader type is typed, page by page in its order, in a folder with what it names; Python blocks are executed.

What is not run, and why, is listed in tests/doc_rules.py; tests/contract/test_docs_blocks.py has that read by the program's own parser.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Cli, caller
from doc_desk import answer_sheet, fill_in, fill_sheet, first_id, first_key, lay_out, read_pairs_as_a_person, write_domain
from doc_rules import ELSEWHERE, why_not_run
from documented import Block, Command, blocks, commands, pages


def executed(block: Block) -> bool:
    """Whether it holds something that is run here."""
    return block.kind == "python" or any(not why_not_run(command) for command in commands(block))


RUN = [page for page in pages() if page not in ELSEWHERE and any(map(executed, blocks(page)))]
# What is missing where a page begins, because it has its reader make it.
MADE_ON_THE_PAGE = dict.fromkeys(("README.md", "docs/index.md"), ("mydomain.yaml", "runs/mydomain"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("docs") / "desk")


@pytest.fixture
def desk(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder for one page, which is where commands are typed."""
    folder = shutil.copytree(template, tmp_path / "desk", symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    return folder


@pytest.mark.parametrize("page", RUN)
def test_a_page_does_what_it_says(page: str, desk: Path, capfd: pytest.CaptureFixture[str], embedded_name: str) -> None:
    for name in MADE_ON_THE_PAGE.get(page, ()):
        path = desk / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    cli = caller(capfd)
    for block in blocks(page):
        if block.kind == "python":
            execute(block)
        for command in commands(block):
            if not why_not_run(command):
                type_in(command, desk, cli)
            act_as_reader(command, desk)


def execute(block: Block) -> None:
    """Run a Python block where the pages' commands are run; a block that is a module of a user's own is only imported so."""
    exec(compile(block.text, str(block), "exec"), {"__name__": "docs"})


def type_in(command: Command, desk: Path, cli: Cli) -> None:
    words = shlex.split(command.text)
    assert words[0] == "safer-instruct", f"{command}: neither run nor listed in NOT_RUN of tests/doc_rules.py"
    said = cli(*(real(word, words, desk) for word in words[1:]))
    no_threshold = words[1] == "calibrate" and any(part in said.out for part in ("nothing was chosen", "no score reaches"))
    expected = 1 if "--strict" in words or no_threshold else 0  # pairs and labels here are made up, and audit and calibrate say so
    assert said.code == expected and "Traceback" not in said.err, f"{command}\n{said.out[-2000:]}{said.err[-2000:]}"
    if words[1] == "export" and said.out.startswith(tuple("123456789")):
        assert Path(said.out.strip().rpartition(": ")[2]).exists(), f"{command}\n{said.out}"
    if command.shown is not None:
        assert looks_like(said.out, command.shown), f"{command}\nprinted:\n{said.out}\nthe page says:\n{command.shown}"


def real(word: str, words: list[str], desk: Path) -> str:
    """What a reader types for a word that stands for something."""
    if word in ("KEY", "ID"):
        return (first_key if word == "KEY" else first_id)(desk / words[2])
    return "evaluate.yaml" if word == "CONFIG" else word


def looks_like(printed: str, shown: str) -> bool:
    """Whether that was printed; `...` stands for anything, and spaces for spaces."""
    pattern = r".*?".join(re.escape(part) for part in " ".join(shown.split()).split("..."))
    return re.search(pattern.replace(r"\ ", r"\s+"), " ".join(printed.split())) is not None


def act_as_reader(command: Command, desk: Path) -> None:
    """Do what a page leaves to its reader after a command: label, review, answer, name models."""
    for pattern, do in AFTERWARDS.items():
        if found := re.search(pattern, command.text):
            do(desk / found[1])


AFTERWARDS: dict[str, Callable[[Path], None]] = {
    r"^safer-instruct review ([\w/]+)(?!.*--labels)": read_pairs_as_a_person,
    r"^safer-instruct calibrate .*--sheet (\S+)": fill_sheet,
    r"^safer-instruct evaluate .*--sheet (\S+)": answer_sheet,
    r"^safer-instruct domain new (parking)$": write_domain,
    r"^safer-instruct init (mydomain|parking)\b": lambda path: fill_in(path.with_suffix(".yaml")),
}
