"""One adapter, served in four forms: the same log-probabilities and the same words from each, for each family of models."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("peft", reason="the extra train is not installed")

import tiny_models

from safer_instruct.config import ModelConfig, ServeConfig
from safer_instruct.errors import ConfigError, ModelError
from safer_instruct.models import open_model
from safer_instruct.models.embedded import EmbeddedModel
from safer_instruct.models.protocol import Completion, Generation, Sampling
from safer_instruct.tuning.bases import open_base
from safer_instruct.tuning.export import export_model
from safer_instruct.tuning.loss import Encoded, completion_nll

PROMPT, INSTRUCTION = "Below is a response. My lamp is broken.\n\n### Instruction:\n", "Where is my parcel? It's 42 na\u00efve \u2603"
CHAT = [{"role": "user", "content": PROMPT}]
TOKENS = 12


def tuned(family: str, folder: Path) -> Any:
    """A tiny model of `family` in folder/base with a random adapter in folder/adapter; the PEFT model of both."""
    import peft
    import torch

    tiny_models.save_tiny(family, folder / "base")
    torch.manual_seed(1)
    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = peft.get_peft_model(open_base("base", folder).load(), lora)
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "tuning.json").write_text(json.dumps({"base": "base", "base_folder": str(folder)}), encoding="utf-8")
    return model.eval()


def logprobs(model: Any, codec: Any) -> list[float]:
    pair = Encoded(tuple(codec.prompt(PROMPT)), tuple(codec.continuation(INSTRUCTION, end=True)), "test")
    return [-value for value in completion_nll(model, [pair]).tolist()]


def greedy(model: Any, codec: Any) -> tuple[str, float]:
    """What transformers writes, and the mean log-probability of its tokens."""
    import torch

    ids = torch.tensor([codec.prompt(PROMPT)])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, eos_token_id=codec.token_id(codec.eos))
    new = tuple(out[0, ids.shape[1] :].tolist())
    nll = completion_nll(model, [Encoded(tuple(ids[0].tolist()), new, "test")])
    return codec.decode(new), -float(nll.mean())


def llama_cpp(folder: Path, model: str, adapter: str | None = None) -> Completion:
    async def ask() -> Completion:
        served = open_model(ModelConfig(model=f"served:{model}", adapter=adapter, serve=ServeConfig(context=256)), folder, want_logprobs=True)
        try:
            return (await served.generate(Generation(PROMPT, Sampling(max_tokens=TOKENS, temperature=0.0)))).completions[0]
        finally:
            await served.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("family", [f for f in tiny_models.FAMILIES if f != "gemma2"])
def test_every_form_gives_the_same_instruction_logprobs(family: str, tmp_path: Path) -> None:
    """Float32 to rounding, bfloat16 and int8 within their errors."""
    import ctranslate2

    model = tuned(family, tmp_path)
    codec = open_base("base", tmp_path).codec
    expected = logprobs(model, codec)
    export_model(tmp_path / "adapter", "merged", tmp_path / "merged")
    merged = open_base("merged", tmp_path)
    assert logprobs(merged.load(), merged.codec) == pytest.approx(expected, abs=0.25), "bfloat16"
    for quantization, tolerance in (("float32", 1e-4), ("int8", 0.25)):
        out = export_model(tmp_path / "adapter", "embedded", tmp_path / quantization, quantization=quantization)
        engine = EmbeddedModel(str(out))
        prompt, continuation = codec.prompt(PROMPT), codec.continuation(INSTRUCTION, end=True)
        assert engine._codec.prompt(PROMPT) == prompt and engine._codec.continuation(INSTRUCTION, end=True) == continuation
        assert engine._codec.prompt(CHAT) == codec.prompt(CHAT)
        if quantization == "float32":
            generator = ctranslate2.Generator(str(out), compute_type="float32")
            values = generator.score_batch([engine._codec.tokens([*prompt, *continuation])])[0].log_probs[len(prompt) - 1 :]
        else:
            values = engine.token_logprobs(prompt, continuation)
        assert values == pytest.approx(expected, abs=tolerance)


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="llama.cpp is not installed (extra serve)")
@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_llama_cpp_writes_what_transformers_writes(family: str, tmp_path: Path) -> None:
    model = tuned(family, tmp_path)
    codec = open_base("base", tmp_path).codec
    text, logprob = greedy(model, codec)
    export_model(tmp_path / "adapter", "gguf", tmp_path / "merged.gguf", quantization="f32")
    export_model(tmp_path / "adapter", "gguf-lora", tmp_path / "lora.gguf")
    export_model(tmp_path / "base", "gguf", tmp_path / "base.gguf", quantization="f32")
    for answer in (llama_cpp(tmp_path, "merged.gguf"), llama_cpp(tmp_path, "base.gguf", "lora.gguf")):
        assert answer.text == text.strip() or answer.text == text
        assert answer.logprob == pytest.approx(logprob, abs=0.02)


def test_an_export_says_what_stands_in_its_way(tmp_path: Path) -> None:
    tuned("llama", tmp_path)
    with pytest.raises(ConfigError, match="exists; name a place"):
        export_model(tmp_path / "adapter", "merged", tmp_path / "base")
    with pytest.raises(ConfigError, match="'gguf' knows no quantisation 'int8'; write one of f32, f16, bf16, q8_0"):
        export_model(tmp_path / "adapter", "gguf", tmp_path / "x.gguf", quantization="int8")
    with pytest.raises(ConfigError, match="whole model and no adapter"):
        export_model(tmp_path / "base", "gguf-lora", tmp_path / "x.gguf")
    with pytest.raises(ModelError, match="expected a folder that 'safer-instruct models export"):
        EmbeddedModel(str(tmp_path / "base"))
    tuned("gemma2", tmp_path / "gemma2")
    with pytest.raises(ModelError, match="soft caps of Gemma 2"):
        export_model(tmp_path / "gemma2" / "adapter", "embedded", tmp_path / "x")
