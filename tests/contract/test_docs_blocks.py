"""Every block of the docs is executed, or listed with a reason; what is not run is read by the program's own parser, configs by their models.

The running is done by tests/integration/test_docs_run.py.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from doc_configs import read_yaml
from doc_parsers import read_command
from doc_rules import ELSEWHERE, NOT_RUN, OTHER_PACKAGES, SHOWN, shown, why_not_run
from documented import ROOT, Block, blocks, commands, pages, spans

EXECUTED = ("sh", "python")  # by test_docs_run.py
READ = ("yaml", "json", "jsonl", "toml")  # here


@pytest.mark.parametrize("page", pages())
def test_every_block_is_executed_or_read_or_listed(page: str) -> None:
    left = [block for block in blocks(page) if block.kind not in (*EXECUTED, *READ) and not commands(block) and not shown(block)]
    assert not left, f"name the language behind the fence, or list it in SHOWN of tests/doc_rules.py: {[f'{b}: {b.text[:60]!r}' for b in left]}"


@pytest.mark.parametrize("page", pages())
def test_every_command_is_one_that_its_program_takes(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in [command for block in blocks(page) for command in commands(block)]:
        try:
            read_command(command.text, whole=True, monkeypatch=monkeypatch)
        except (AssertionError, pytest.fail.Exception) as exc:
            raise AssertionError(f"{command}\n{exc}") from exc


@pytest.mark.parametrize("page", pages())
def test_commands_that_the_running_text_names_exist_with_their_options(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in spans(page):
        try:
            read_command(command.text, whole=False, monkeypatch=monkeypatch)
        except (AssertionError, pytest.fail.Exception) as exc:
            raise AssertionError(f"{command}\n{exc}") from exc


@pytest.mark.parametrize("page", pages())
def test_every_block_of_data_is_what_the_package_reads(page: str, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.kind == "yaml":
            read_yaml(block, tmp_path)
        elif block.kind == "json":
            json.loads(block.text)
        elif block.kind == "jsonl":
            assert [json.loads(line) for line in block.text.splitlines()]
        elif block.kind == "toml":
            tomllib.loads(block.text)


def test_no_entry_of_the_lists_is_stale() -> None:
    every = [block for page in pages() for block in blocks(page)]
    typed = [*(command for block in every for command in commands(block)), *(span for page in pages() for span in spans(page))]
    used = {why_not_run(command) for command in typed}
    assert [page for page, test in ELSEWHERE.items() if Path(page).name not in (ROOT / test).read_text("utf-8")] == []
    assert [rule for rule in NOT_RUN if rule not in used] == []
    assert [entry for entry in SHOWN if entry.page in pages() and entry not in {shown(block) for block in every}] == []
    text = " ".join(command.text for command in typed)
    assert [name for name in OTHER_PACKAGES if name not in text] == []


@pytest.mark.parametrize(
    "text",
    [
        "safer-instruct runn x.yaml",
        "safer-instruct run",
        "safer-instruct run a.yaml b.yaml",
        "safer-instruct run a.yaml --ouut x",
        "safer-instruct run a.yaml --sample many",
        "safer-instruct run examples/gone.yaml",
        "safer-instruct train ppo x.yaml",
        "pip install 'safer-instruct[nothing]'",
        "pip install something-else",
        "make coffee",
        "bench/gone.py",
        "python bench/calls.py --cals 3",
        "python bench/dedup.py --rows many",
    ],
)
def test_a_command_that_is_none_is_found(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        read_command(text, whole=True, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    "text",
    [
        "filter: {promt: {}}",
        "nothing: 1",
        "domain: civility\nseed: x",
        "expert: {modell: x}",
        "categories: {a: {guidlines: x}}",
        "models: {expert: 'openay:x'}",
        "filter: {text: {languag: {}}}",
    ],
)
def test_a_config_that_is_none_is_found(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        read_yaml(Block("docs/x.md", 1, "yaml", text), tmp_path)


def test_blocks_are_found_in_lists_and_without_a_fence() -> None:
    found = blocks("docs/cluster.md")
    assert len(found) > 5 and all(block.kind == "sh" for block in found)
    lines = (ROOT / "docs" / "cluster.md").read_text("utf-8").splitlines()
    assert all(block.text.splitlines()[0] in lines[block.line - 1] for block in found)
