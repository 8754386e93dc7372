"""The public names, and the tree of errors that a caller may rely on."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import safer_instruct
from safer_instruct import errors

pytestmark = pytest.mark.filterwarnings("error")


def test_the_public_names_are_these_four_in_order() -> None:
    assert safer_instruct.__all__ == ["load_config", "load_tune_config", "run", "tune"] == sorted(safer_instruct.__all__)


def test_every_public_name_can_be_imported_without_any_extra() -> None:
    code = (
        "from safer_instruct import load_config, load_tune_config, run, tune; import sys; "
        "print([f.__module__ for f in (load_config, load_tune_config, run, tune)], [m for m in ('torch', 'ctranslate2', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    homes = ["safer_instruct.config", "safer_instruct.config", "safer_instruct.pipeline", "safer_instruct.tuning.tune"]
    assert done.stdout == f"{homes} []\n"


def test_a_star_import_brings_exactly_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from safer_instruct import *", names)
    assert set(names) - {"__builtins__"} == set(safer_instruct.__all__)


def test_an_unknown_name_is_an_attribute_error_like_any_other() -> None:
    with pytest.raises(AttributeError, match="module 'safer_instruct' has no attribute 'rum'"):
        _ = safer_instruct.rum
    assert not hasattr(safer_instruct, "__wrapped__")


@pytest.mark.parametrize("name", safer_instruct.__all__)
def test_every_public_function_says_what_it_raises(name: str) -> None:
    function = getattr(safer_instruct, name)
    assert function.__name__ == name and "Raises:" in (inspect.getdoc(function) or "")
    signature = inspect.signature(function)
    assert "" not in {str(p.annotation).replace("<class 'inspect._empty'>", "") for p in signature.parameters.values()}


def test_every_function_of_the_reference_that_takes_a_path_takes_a_string() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "python.md").read_text("utf-8")
    signatures = re.findall(r"```python\n(?:async )?def (.*?)```", page, re.DOTALL)
    assert len(signatures) > 10 and sum("Path | str" in signature for signature in signatures) > 10
    taken = [signature for signature in signatures if re.search(r"\bPath\b(?! \| str)", signature.partition("->")[0])]
    assert taken == []


def test_the_signature_of_run_is_kept() -> None:
    assert [(p.name, p.kind.name) for p in inspect.signature(safer_instruct.run).parameters.values()] == [
        ("config", "POSITIONAL_OR_KEYWORD"),
        ("out", "POSITIONAL_OR_KEYWORD"),
        ("mode", "KEYWORD_ONLY"),
        ("watch", "KEYWORD_ONLY"),
        ("work", "KEYWORD_ONLY"),
    ]


def test_every_error_of_the_package_stands_in_the_tree_and_under_one_root() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]
    assert len(classes) >= 9 and all(issubclass(c, errors.SaferInstructError) for c in classes)
    assert all(f"{c.__name__} " in (errors.__doc__ or "") or f"{c.__name__}\n" in (errors.__doc__ or "") for c in classes)


def test_the_drawing_of_the_tree_is_the_tree() -> None:
    drawn = {}
    above = {0: "SaferInstructError"}
    for line in (errors.__doc__ or "").splitlines():
        if "├── " in line or "└── " in line:
            depth = (line.index("── ") - 1 - 4) // 4 + 1
            name = line.split("── ")[1].split()[0]
            drawn[name], above[depth] = above[depth - 1], name
    assert drawn == {name: getattr(errors, name).__base__.__name__ for name in drawn} and len(drawn) >= 8


def test_a_missing_extra_names_the_pip_command() -> None:
    error = errors.MissingExtraError("torch", "train", "tuning")
    assert str(error) == "tuning needs torch, which is not installed; run: pip install 'safer-instruct[train]'" and error.extra == "train"


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    assert (Path(safer_instruct.__file__).parent / "py.typed").is_file()
