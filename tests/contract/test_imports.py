"""Imports point downwards only, heavy modules are imported late, and the public names cost nothing (DESIGN.md, section 2)."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest
from scripts import script

rooms = script("tools/reference/rooms.py")  # its table of rooms is the one of docs/architecture.md
MODULES, imports, own, layer = rooms.MODULES, rooms.imports, rooms.own, rooms.layer

# What stages and filters must know nothing of, although some of it ranks below them.
UNKNOWN_TO_STAGES = {"ledger", "sources", "rundir", "derived", "tables", "pipeline", "tuning", "budget", "bounds", "spent", "state", "accounts"}
HEAVY = {
    "ray",
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "ctranslate2",
    "numpy",
    "pyarrow",
    "pyreqwest",
    "uvloop",
    "certifi",
    "tokenizers",
    "safetensors",
    "gguf",
    "rensa",
    "pycld2",
    "huggingface_hub",
    "xllamacpp",
    "obstore",
    "fsspec",
    "litellm",
    "sentence_transformers",
    "wordllama",
    "sklearn",
    "scipy",
    "starlette",
    "uvicorn",
    "pypdf",
    "mammoth",
    "selectolax",
    "fastwarc",
    "resiliparse",
}
SERVER = {"review.app", "review.guard"}  # made of starlette from top to bottom


def upward(module: str, source: str) -> list[str]:
    """Imports of `source`, read as `module`, that point upwards."""
    found = [(own(one.name), one.line) for one in imports(ast.parse(source))]
    return [f"{module}:{line} imports {target}" for target, line in found if target and layer(target) < layer(module)]


def heavy(source: str) -> list[str]:
    """Heavy packages that are imported as soon as the module is."""
    return [f"line {line}: {name}" for name, runs, line in imports(ast.parse(source)) if runs and name.partition(".")[0] in HEAVY]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module: str) -> None:
    assert upward(module, MODULES[module].read_text("utf-8")) == []


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_are_imported_inside_functions_only(module: str) -> None:
    found = heavy(MODULES[module].read_text("utf-8"))
    assert [f for f in found if module not in SERVER or "starlette" not in f] == []


@pytest.mark.parametrize("module", MODULES)
def test_the_server_is_imported_inside_functions_only(module: str) -> None:
    at_once = {own(name) for name, runs, _ in imports(ast.parse(MODULES[module].read_text("utf-8"))) if runs}
    assert module in SERVER or not at_once & SERVER


def test_no_two_modules_import_each_other() -> None:
    graph = {module: {t for name, _, _ in imports(ast.parse(path.read_text("utf-8"))) if (t := own(name)) and t != module} for module, path in MODULES.items()}
    del graph["__init__"]  # every `from safer_instruct import module` passes through it; what it names is imported on first use
    for targets in graph.values():
        targets.discard("__init__")
    assert set(TopologicalSorter(graph).static_order()) >= set(graph)


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(("stages.", "filters."))])
def test_stages_and_filters_know_nothing_of_ledger_and_files(module: str) -> None:
    known = {(own(name) or "").partition(".")[0] for name, _, _ in imports(ast.parse(MODULES[module].read_text("utf-8")))}
    assert not known & UNKNOWN_TO_STAGES


@pytest.mark.parametrize(
    "source",
    [
        "from safer_instruct.pipeline import run",
        "from safer_instruct import pipeline",
        "import safer_instruct.pipeline as p",
        "def f():\n    from safer_instruct.pipeline import run",
        "class C:\n    def f(self):\n        import safer_instruct.pipeline",
        "if TYPE_CHECKING:\n    from safer_instruct.pipeline import run",
        "try:\n    from safer_instruct import pipeline\nexcept ImportError:\n    pass",
        "from safer_instruct import run",
    ],
)
def test_an_upward_import_is_found_wherever_it_stands(source: str) -> None:
    assert upward("filters.rules", source) != [] and upward("cli", source) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import numpy as np", True),
        ("from pyarrow import parquet", True),
        ("import pyarrow.parquet as pq", True),
        ("class C:\n    import torch", True),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", True),
        ("if TYPE_CHECKING:\n    import os\nelse:\n    import torch", True),
        ("if TYPE_CHECKING:\n    import torch", False),
        ("def f():\n    import torch", False),
        ("async def f():\n    with x:\n        import torch", False),
        ("import torchlike", False),
    ],
)
def test_a_heavy_import_is_found_where_it_runs_at_once(source: str, found: bool) -> None:
    assert bool(heavy(source)) is found


@pytest.mark.parametrize("code", ["import safer_instruct", "import safer_instruct.cli", "from safer_instruct.cli import main; main(['--help'])"])
def test_importing_the_package_or_asking_for_help_loads_nothing_heavy(code: str) -> None:
    program = f"""
import atexit, sys
before = set(sys.modules)
heavy = {sorted(HEAVY | {"pydantic"})}
atexit.register(lambda: sys.stderr.write(" ".join(m for m in heavy if m in set(sys.modules) - before)))
{code}
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
