"""What docs/scale.md and docs/crawls.md say is what the code says: the tables of the model, the config and the filters."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from safer_instruct.config import FilterConfig, SourceConfig
from safer_instruct.filters.registry import open_filters

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bench" / "scale_model.py"


def model(*arguments: str) -> str:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=True, cwd=ROOT).stdout


@pytest.fixture(scope="module")
def tables() -> str:
    return model()


def cells(tables: str, name: str) -> list[str]:
    (row,) = [line for line in tables.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in row.strip("|").split("|")[1:]]


def test_the_tables_of_the_page_are_those_of_the_model(tables: str) -> None:
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    assert page.split("<!-- model:begin -->\n")[1].split("\n<!-- model:end -->")[0] == tables.strip(), "run: python bench/scale_model.py --write docs/scale.md"


def test_writing_the_tables_leaves_the_rest_of_a_page_alone(tmp_path: Path, tables: str) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- model:begin -->\nold\n<!-- model:end -->\nbehind\n", encoding="utf-8")
    model("--write", str(page))
    assert page.read_text("utf-8") == f"before\n<!-- model:begin -->\n{tables.strip()}\n<!-- model:end -->\nbehind\n"


def test_every_measured_constant_names_a_script_that_there_is_and_every_other_says_that_it_is_assumed(tables: str) -> None:
    rows = [line.split(" | ") for line in tables.split("### Constants")[1].splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    for _, value, _, source in rows:
        assert float(value.replace(",", "")) > 0
        command = re.match(r"`(bench/\w+\.py)", source)
        assert (ROOT / command[1]).is_file() if command else source.startswith("*assumed*: ")


def test_the_model_answers_to_what_it_is_told(tables: str) -> None:
    slower = model("--set", "gpu_written_per_s=1250", "--set", "gpu_read_per_s=2500")
    assert float(cells(slower, "GPU hours")[0]) == pytest.approx(10 * float(cells(tables, "GPU hours")[0]), rel=0.05)
    assert cells(slower, "pairs") == cells(tables, "pairs")
    assert cells(model("--set", "ledger_calls_per_s=1"), "**first bottleneck**") == ["**one process: merged ledger**"] * 3
    refused = subprocess.run([sys.executable, str(SCRIPT), "--set", "gpu=1"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "there is no constant 'gpu'" in refused.stderr


def test_the_config_on_the_page_of_crawls_is_valid_and_its_filters_are_all_there_are() -> None:
    text = (ROOT / "docs" / "crawls.md").read_text("utf-8")
    config = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    SourceConfig.model_validate(config["source"], strict=False)
    filters = open_filters(FilterConfig.model_validate({**config["filter"], "prompt": None}, strict=False), ROOT).text
    assert {f"text.{name}" for name in re.findall(r"(?m)^\| `([a-z0-9-]+)` \|", text)} <= {check.name for check in filters}
