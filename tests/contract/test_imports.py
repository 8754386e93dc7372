"""Imports point downwards only, heavy modules are imported late, and the public names cost nothing (DESIGN.md, section 2)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "safer_instruct"

# Lowest first. A module may import from lower ranks and from its own, never from a higher one. A folder stands for all in it.
RANKS = (
    ("errors", "example", "extras", "nearest", "oneline", "scratch", "seeds", "visible", "wholefile"),
    ("detect", "yamlfile", "sandbox"),
    ("selectconfig", "settings", "thresholds"),
    ("templates", "conversation", "config", "domain", "prices"),
    ("models", "ledger", "sources", "budget", "storage"),
    ("embed", "minilm", "selection"),
    ("filters", "reverse", "routing"),
    ("choosing", "stages", "tuning"),
    ("barrier", "rundir", "card", "tally", "state", "roles", "running", "margins"),
    ("accounts", "analysis", "progress", "remote", "stored", "target", "uniqueids", "variety"),
    ("twins", "ordered"),
    ("collect", "distinct", "equipment"),
    ("pipeline", "runners", "evaluation", "training"),
    ("study",),
    (
        "export",
        "selected",
        "calibration",
        "judging",
        "starter",
        "doctor",
        "terminal",
        "bars",
        "estimate",
        "evaluateview",
        "ledgerview",
        "filterview",
        "story",
        "tuneview",
        "domaincheck",
        "domainfile",
        "review",
    ),
    ("domaincli", "liveview", "reviewview", "studyview", "trainview"),
    ("report",),
    ("audit",),
    ("auditing",),
    ("studycli", "traincli"),
    ("cli", "__init__"),
)
# What stages and filters must know nothing of, although some of it ranks below them.
UNKNOWN_TO_STAGES = {"ledger", "sources", "rundir", "pipeline", "tuning", "budget", "state", "accounts"}
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

Import = tuple[str, bool, int]  # dotted name, whether it runs when the module is imported, line


def module_name(path: Path) -> str:
    """Dotted name below the package; the package itself is `__init__`."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imports(tree: ast.AST, *, runs: bool = True) -> Iterator[Import]:
    """Every import below `tree`, in functions and under TYPE_CHECKING too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, runs, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from ((f"{node.module}.{alias.name}", runs, node.lineno) for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, runs=False)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(ast.Module([*node.body], []), runs=False)
            yield from imports(ast.Module([*node.orelse], []), runs=runs)
        else:
            yield from imports(node, runs=runs)


def own(name: str) -> str | None:
    """The module of this package that an imported dotted name leads to, or None for another package's."""
    if name.partition(".")[0] != "safer_instruct":
        return None
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "__init__"


def rank(module: str) -> int:
    top = module.partition(".")[0]
    found = [i for i, names in enumerate(RANKS) if top in names]
    assert found, f"'{top}' has no rank: add it to RANKS in {Path(__file__).name}"
    return found[0]


def upward(module: str, source: str) -> list[str]:
    """Imports of `source`, read as `module`, that point upwards."""
    found = [(own(name), line) for name, _, line in imports(ast.parse(source))]
    return [f"{module}:{line} imports {target}" for target, line in found if target and rank(target) > rank(module)]


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


@pytest.mark.parametrize("names", RANKS)
def test_the_table_holds_no_module_that_is_gone(names: tuple[str, ...]) -> None:
    assert set(names) <= {module.partition(".")[0] for module in MODULES}


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
