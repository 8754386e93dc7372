"""What a served model's server is started with: config, weights, digests, command lines."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from safer_instruct.config import ModelConfig, ServeConfig
from safer_instruct.errors import ConfigError, ModelError
from safer_instruct.models import open_model
from safer_instruct.models.serving import llama_child, weights
from safer_instruct.models.serving.process import ServerProcess, new_log
from safer_instruct.models.serving.spec import ServerSpec, serve_spec

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with weights and adapters of either kind, and programs on the PATH."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFER_INSTRUCT_CACHE", str(tmp_path / "cache"))
    for name in ("bin", "my model", "lora", "lo,ra"):
        Path(name).mkdir()
    Path("my model/config.json").write_text("{}")
    Path("my model/model.safetensors").write_bytes(b"weights")
    Path("tiny.Q4.gguf").write_bytes(b"GGUF weights")
    Path("lora.gguf").write_bytes(b"GGUF adapter")
    for name, rank in (("lora", {"r": 8}), ("lo,ra", {"r": 8, "rank_pattern": {"q_proj": 48}})):
        Path(name, "adapter_config.json").write_text(json.dumps(rank))
        Path(name, "adapter_model.safetensors").write_bytes(name.encode())
    for name in ("vllm", "llama-server"):
        Path("bin", name).write_text("#!/bin/sh\n")
        Path("bin", name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def spec(what: str = "my model", adapter: str | None = None, **serve: object) -> ServerSpec:
    return serve_spec(ModelConfig(model=f"served:{what}", adapter=adapter, serve=ServeConfig.model_validate(serve)), Path())[0]


def fingerprint(what: str = "my model", adapter: str | None = None, *, want_logprobs: bool = False, **serve: object) -> str:
    config = ModelConfig(model=f"served:{what}", adapter=adapter, serve=ServeConfig.model_validate(serve))
    return open_model(config, Path(), want_logprobs=want_logprobs).fingerprint


# --- config


def test_serve_is_for_served_models_only() -> None:
    with pytest.raises(ValidationError, match="'serve' is for models 'served:PATH', not for 'openai:m'"):
        ModelConfig.model_validate({"model": "openai:m", "serve": {}})


@pytest.mark.parametrize(
    "flag", ["--host", "--port", "--api-key", "--api-key=sk-1", "--api_key", "--served-model-name", "--alias", "-m", "--lora-modules", "--hf-token"]
)
def test_flags_that_are_ours_or_secret_are_refused(flag: str) -> None:
    with pytest.raises(ValidationError, match="is not for 'args'") as caught:
        ServeConfig(args=(flag, "x"))
    assert "sk-1" not in caught.value.errors(include_input=False)[0]["msg"]


@pytest.mark.parametrize("wrong", [{"gpu_memory": 0}, {"gpu_memory": 1.5}, {"port": 65536}, {"slots": 0}, {"engine": "ollama"}, {"adapters": {"a b": "x"}}])
def test_values_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServeConfig.model_validate(wrong)


def test_equal_settings_are_one_key() -> None:
    one, other = (ModelConfig(model="served:m", serve=ServeConfig(adapters={"a": "x"}, args=("--n", 1))) for _ in range(2))
    assert {one: 1}[other] == 1


# --- the command line of vLLM, checked against the parser of vLLM 0.33.0


def test_the_least_command_of_vllm() -> None:
    assert spec().command(8123) == [
        str(Path("bin/vllm").absolute()),
        *("serve", str(Path("my model").absolute()), "--host", "127.0.0.1", "--port", "8123", "--served-model-name", "my-model"),
        *("--generation-config", "vllm", "--disable-uvicorn-access-log"),
    ]


def test_every_setting_has_its_flag() -> None:
    full = spec(tensor_parallel=2, context=8192, slots=64, gpu_memory=0.85, args=("--dtype", "bfloat16", "--seed", 7), adapters={"b": "lo,ra", "a": "lora"})
    assert full.command(1)[12:] == [
        *("--tensor-parallel-size", "2", "--max-model-len", "8192", "--max-num-seqs", "64", "--gpu-memory-utilization", "0.85"),
        *("--enable-lora", "--max-loras", "2", "--max-lora-rank", "64", "--lora-modules", f"a={Path('lora').absolute()}"),
        json.dumps({"name": "b", "path": str(Path("lo,ra").absolute())}),  # vLLM reads a comma as JSON
        *("--dtype", "bfloat16", "--seed", "7"),
    ]


def test_the_calls_go_to_the_adapter_by_name_or_by_path() -> None:
    config = ModelConfig(model="served:my model", adapter="nice", serve=ServeConfig(adapters={"nice": "lora"}))
    assert serve_spec(config, Path()) == (spec(adapters={"nice": "lora"}), "nice")
    found, chosen = serve_spec(ModelConfig(model="served:my model", adapter="lora"), Path())
    assert chosen == "lora" and found.adapters == (("lora", Path("lora")),)


# --- the command line of llama.cpp


def test_the_least_command_of_llama() -> None:
    assert spec("tiny.Q4.gguf").command(8123) == [
        *(str(Path("bin/llama-server").absolute()), "--model", str(Path("tiny.Q4.gguf").absolute()), "--alias", "tiny.Q4"),
        *("--host", "127.0.0.1", "--port", "8123", "--parallel", "8", "--ctx-size", "32768", "--log-verbosity", "1"),
    ]


def test_llama_is_given_context_for_every_slot_and_the_one_adapter_that_is_wanted() -> None:
    command = spec("tiny.Q4.gguf", "b", slots=2, context=512, args=("-ngl", 99), adapters={"a": "missing.gguf", "b": "lora.gguf"}).command(1)
    assert command[9:] == ["--parallel", "2", "--ctx-size", "1024", "--log-verbosity", "1", "--lora", str(Path("lora.gguf").absolute()), "-ngl", "99"]


# --- what does not fit


@pytest.mark.parametrize(
    ("what", "adapter", "serve", "said"),
    [
        ("my model", None, {"engine": "llama.cpp"}, "llama.cpp serves GGUF files"),
        ("tiny.Q4.gguf", None, {"tensor_parallel": 2}, "serve.tensor_parallel is a setting of vLLM"),
        ("tiny.Q4.gguf", None, {"gpu_memory": 0.5}, "serve.gpu_memory is a setting of vLLM"),
        ("tiny.Q4.gguf", "lora", {}, "convert_lora_to_gguf.py"),
        ("my model", "lora.gguf", {}, "vLLM needs a PEFT folder"),
        ("my model", "missing", {}, "adapter_config.json"),
        ("my model", None, {"adapters": {"my-model": "lora"}}, "the name of the model itself"),
    ],
)
def test_settings_that_do_not_fit_the_engine_are_refused(what: str, adapter: str | None, serve: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        spec(what, adapter, **serve)


def test_weights_that_are_not_there_are_looked_for_by_name_and_path(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="served:nothing: no weights at") as caught:
        spec("nothing")
    assert str(tmp_path / "nothing") in str(caught.value) and str(tmp_path / "cache") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"), [({"model.gguf": b"PK\3\4"}, "no GGUF file"), ({"x/readme": b""}, "no config.json"), ({"x/config.json": b"{}"}, "no weights")]
)
def test_what_is_no_model_is_refused(content: dict[str, bytes], said: str) -> None:
    for name, data in content.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(data)
    with pytest.raises(ModelError, match=said):
        spec(next(iter(content)).removesuffix("/readme").removesuffix("/config.json"))


def test_a_missing_shard_is_named() -> None:
    Path("m-00001-of-00002.gguf").write_bytes(b"GGUF one")
    with pytest.raises(ModelError, match=r"m-00002-of-00002\.gguf is not beside it"):
        spec("m-00001-of-00002.gguf")


# --- fingerprints


def test_the_fingerprint_is_that_of_what_answers_depend_on() -> None:
    same = {
        fingerprint(),
        fingerprint(port=9),
        fingerprint(slots=4),
        fingerprint(gpu_memory=0.5),
        fingerprint(tensor_parallel=2),
        fingerprint(start_timeout_s=9.0),
    }
    same |= {fingerprint(adapters={"a": "lora"}), fingerprint(engine="vllm")}
    others = [fingerprint("tiny.Q4.gguf"), fingerprint(adapter="lora"), fingerprint(adapter="lo,ra"), fingerprint(context=512)]
    others += [fingerprint(args=("--dtype", "float16")), fingerprint(want_logprobs=True)]
    assert len(same) == 1 and len({*same, *others}) == 1 + len(others)


@pytest.mark.parametrize(("file", "counts"), [("model.safetensors", True), ("tokenizer.json", True), ("README.md", False), (".cache/x", False)])
def test_the_digest_of_a_folder_is_that_of_its_files(file: str, counts: bool) -> None:
    before = weights.digest(Path("my model"))
    path = Path("my model", file)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"something else")
    assert (weights.digest(Path("my model")) != before) is counts


def test_a_moved_or_renamed_file_is_the_same_and_every_shard_counts() -> None:
    before = weights.digest(Path("tiny.Q4.gguf"))
    assert weights.digest(Path("tiny.Q4.gguf").rename("other.gguf")) == before
    for i in (1, 2):
        Path(f"m-0000{i}-of-00002.gguf").write_bytes(b"GGUF %d" % i)
    both = weights.digest(Path("m-00001-of-00002.gguf"))
    Path("m-00002-of-00002.gguf").write_bytes(b"GGUF other")
    assert weights.digest(Path("m-00001-of-00002.gguf")) != both


def test_a_digest_is_taken_once_and_again_after_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = Path("tiny.Q4.gguf"), []
    take = weights.hashlib.file_digest
    monkeypatch.setattr(weights.hashlib, "file_digest", lambda *a: read.append(1) or take(*a))
    first = weights.digest(path)
    assert weights.digest(path) == first and len(read) == 1
    path.write_bytes(b"GGUF other weights")
    assert weights.digest(path) != first and len(read) == 2
    for record in Path("cache/digests").iterdir():
        record.write_text("damaged")
    assert weights.digest(path) != first and len(read) == 3


# --- the process


def test_a_log_is_shown_without_its_control_codes_and_without_the_key() -> None:
    log = new_log("m")
    log.write_text("an older life: out of memory\n")
    code = r"print('Value \x1b[31mhunter2\x1b[0m'); print('No CUDA GPUs are available')"
    process = ServerProcess([sys.executable, "-c", code], {}, log, "hunter2")
    try:
        asyncio.run(process.ended())
        assert "Value [31m[key] [0m | No CUDA" in process.evidence() and "older life" not in process.evidence()
        assert "finds no GPU" in process.hint() and process.status() == 0
    finally:
        process.stop_soon()


def test_old_logs_go() -> None:
    for _ in range(60):
        new_log("m")
    assert len(list(Path("cache/logs").iterdir())) == 50


# --- llama.cpp's server out of the wheel


def test_options_are_read_as_llama_server_reads_them() -> None:
    line = ["--model", "a b.gguf", "-ngl", "-1", "--no-warmup", "--flash-attn=on", "--cont-batching", "--threads", "4"]
    expected = [("model", "a b.gguf"), ("ngl", "-1"), ("no_warmup", None), ("flash_attn", "on"), ("cont_batching", None), ("threads", "4")]
    assert list(llama_child.options(line)) == expected


def test_options_are_set_on_the_real_parameters() -> None:
    engine = pytest.importorskip("xllamacpp", reason="the extra serve is not installed")
    params = engine.CommonParams()
    line = "--model m.gguf --alias m --host 127.0.0.1 --port 8123 --parallel 2 --ctx-size 1024 --threads 3 --no-warmup --cache-prompt off --lora a.gguf"
    for name, value in llama_child.options([*line.split(), "--lora", "b.gguf", "-ngl", "7", "--yarn-ext-factor", "0.5"]):
        llama_child.apply(params, name, value, engine)
    assert (params.model.path, params.model_alias, params.hostnames, params.port) == ("m.gguf", {"m"}, ["127.0.0.1"], 8123)
    assert (params.n_parallel, params.n_ctx, params.cpuparams.n_threads, params.n_gpu_layers) == (2, 1024, 3, 7)
    assert params.warmup is False and params.cache_prompt is False and params.yarn_ext_factor == 0.5
    assert [(lora.path, lora.scale) for lora in params.lora_adapters] == [("a.gguf", 1.0), ("b.gguf", 1.0)]
    for name, value in (("foo", "1"), ("port", "x"), ("port", None), ("warmup", "maybe"), ("flash_attn_type", "1")):
        with pytest.raises((AttributeError, TypeError, ValueError)):
            llama_child.apply(params, name, value, engine)
