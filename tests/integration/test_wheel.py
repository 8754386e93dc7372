"""The wheel and the sdist: all of the package is in them and nothing else, and what is installed from them does what the checkout does."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "safer_instruct"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t", "sdist", "-t", "wheel"], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed in, without what it depends on."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    ours = {str(path.relative_to(ROOT / "src")) for path in SOURCE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert packed == ours and {f"safer_instruct/{name}" for name in ("py.typed", "detect/wording.json", "review/static/index.html")} <= packed
        assert all(archive.read(name) == (ROOT / "src" / name).read_bytes() for name in packed)


def test_the_metadata_names_licences_readme_pythons_and_every_extra(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        told = message_from_bytes(archive.read(metadata))
        licences = {Path(name).name for name in archive.namelist() if ".dist-info/licenses/" in name}
    assert told["License-Expression"] == "Apache-2.0" and told["Requires-Python"] == ">=3.11"
    assert {"LICENSE", "echarts-LICENSE", "echarts-NOTICE", "d3-LICENSE", "zrender-LICENSE"} == licences
    assert told["Description-Content-Type"] == "text/markdown" and str(told.get_payload()).startswith("# Safer-Instruct")
    assert "Typing :: Typed" in told.get_all("Classifier", []) and set(told.get_all("Provides-Extra", [])) >= {"local", "train", "review"}


def test_the_sdist_is_the_repository_and_no_more(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    assert packed - {"PKG-INFO"} <= set(tracked.stdout.splitlines())
    assert {"LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "CONTRIBUTING.md", "examples/civility.yaml", "tests/conftest.py"} <= packed


def test_what_is_installed_from_the_wheel_makes_the_pairs_of_the_checkout(installed: Path, embedded_name: str, tmp_path: Path) -> None:
    rows = (ROOT / "examples" / "civility-replies.jsonl").read_text("utf-8").splitlines(keepends=True)
    made = {}
    for name, where in (("wheel", installed), ("checkout", ROOT / "src")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "texts.jsonl").write_text("".join(rows[:2]), encoding="utf-8")
        call = _caller(where, folder)
        assert Path(call("-c", "import safer_instruct; print(safer_instruct.__file__)").strip()).is_relative_to(where)
        cli = ("-m", "safer_instruct.cli")
        said = [call(*cli, *words.split()) for words in ("--version", "domain list", "domain show safety-ailuminate", "--help")]
        call(*cli, "init", "civility", "--source", "texts.jsonl", "--id", "id", "--embedded")
        call(*cli, "run", "civility.yaml", "--out", "out")
        files = [folder / "civility.yaml", *(folder / "out" / file for file in ("pairs.jsonl", "examples.parquet", "run.yaml", "README.md"))]
        made[name] = [*said, *(file.read_bytes() for file in files)]
    assert made["wheel"] == made["checkout"] and made["wheel"][5].count(b"\n") > 0


def _caller(where: Path, folder: Path) -> Callable[..., str]:
    environment = {**os.environ, "PYTHONPATH": str(where), "COLUMNS": "120"}

    def call(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call
