"""`safer-instruct tune`: pairs in, adapter folder out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safer_instruct.config import TuneConfig
from safer_instruct.errors import ConfigError
from safer_instruct.extras import require
from safer_instruct.models import adapter_path, store
from safer_instruct.models.codec import Codec
from safer_instruct.models.convert import dequantise, unpermute
from safer_instruct.models.embedded import EmbeddedModel
from safer_instruct.tuning.data import Prepared, prepare
from safer_instruct.tuning.pairs import Pair
from safer_instruct.tuning.prompting import Prompting, load_prompting
from safer_instruct.tuning.train import Encoded, Progress, Trained, train


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What `tune` did.

    Attributes:
        adapter: Folder with the PEFT adapter, its card and `tuning.json`.
        before: Held-out loss of the base model, nats per completion token.
        after: Held-out loss of the adapter that was kept.
        train_pairs: How many pairs were trained on.
        held_out_pairs: How many were held out.
        seconds: Wall time of training and evaluation.
        embedded: Held-out loss of the adapter as the embedded engine sees it: merged, in int8. It differs from `after` by
            the quantisation error.
    """

    adapter: Path
    before: float
    after: float
    train_pairs: int
    held_out_pairs: int
    seconds: float
    embedded: float


def tune(config: TuneConfig, base: Path, report: Callable[[Progress], None] = lambda _: None) -> TuneResult:
    """Tune an adapter as `config` says; its paths are relative to `base`.

    Raises:
        ConfigError: The config names something that does not exist.
        SourceError: The data is not usable.
        MissingExtraError: The extra `train` is not installed.
        ModelError: The base model has not been pulled.
    """
    name = embedded_name(config.model)
    folder, _ = store.converted(name)
    codec = Codec(folder)
    prompting = load_prompting(config, base)
    prepared = prepare(config.data, config.clean, config.holdout, base)
    train_pairs, held_out = prepared.train, prepared.held_out
    encode = encoder(codec, prompting, config.max_tokens)
    dtype = base_dtype(config)
    start = adapter_path(config.start, base) if config.start else None
    start_digest = store.adapter_digest(start) if start else None
    held_out_encoded = [encode(p) for p in held_out]
    trained = train(load_base(name, dtype), [encode(p) for p in train_pairs], held_out_encoded, config, report, start=start)
    out = (base / config.out).resolve()
    _save_weights(trained.model, out)
    embedded = embedded_loss(EmbeddedModel(name, out), held_out_encoded)
    _save_record(out, _record(config, prompting, prepared, trained) | {"dtype": dtype, "start_sha256": start_digest, "embedded_loss": embedded})
    return TuneResult(out, trained.evaluations[0].loss, trained.best.loss, len(train_pairs), len(held_out), trained.seconds, embedded)


def embedded_loss(model: EmbeddedModel, pairs: list[Encoded]) -> float:
    """Mean negative log-likelihood per completion token in nats, as the embedded engine sees it."""
    logprobs = [value for pair in pairs for value in model.token_logprobs(pair.prompt, pair.completion)]
    return -sum(logprobs) / len(logprobs)


def embedded_name(model: str) -> str:
    """The cache name in `embedded:NAME`.

    Raises:
        ConfigError: The string is of another form.
    """
    provider, _, name = model.partition(":")
    if provider != "embedded" or not name:
        raise ConfigError(f"model '{model}': tuning starts from a model of the cache, 'embedded:NAME' (see: safer-instruct models list)")
    return name


def base_dtype(config: TuneConfig) -> str:
    """The dtype of the frozen weights: the config's, or the faster one of this machine."""
    if config.dtype != "auto":
        return config.dtype
    torch = require("torch", extra="train", purpose="tuning")
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def load_base(name: str, dtype: str = "float32") -> Any:
    """The model `name` as a transformers `LlamaForCausalLM`, dequantised from its GGUF file, on the GPU if there is one.

    Raises:
        MissingExtraError: torch, transformers or gguf is not installed.
    """
    torch = require("torch", extra="train", purpose="tuning")
    transformers = require("transformers", extra="train", purpose="tuning")
    gguf = require("gguf", extra="local", purpose="reading GGUF weights")
    reader = gguf.GGUFReader(store.gguf_path(name))
    meta = {key: reader.fields[key].contents() for key in reader.fields if key.startswith("llama.")}
    heads, kv_heads = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
    weights = {t.name: dequantise(t) for t in reader.tensors}
    config = transformers.LlamaConfig(
        vocab_size=meta["llama.vocab_size"],
        hidden_size=meta["llama.embedding_length"],
        intermediate_size=meta["llama.feed_forward_length"],
        num_hidden_layers=meta["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=meta["llama.context_length"],
        rms_norm_eps=meta["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": meta["llama.rope.freq_base"]},
        tie_word_embeddings="output.weight" not in weights,
        dtype="float32",
    )
    model = transformers.LlamaForCausalLM(config)
    state = {}
    for key, weight in weights.items():
        if key.endswith("attn_q.weight"):
            weight = unpermute(weight, heads)
        elif key.endswith("attn_k.weight"):
            weight = unpermute(weight, kv_heads)
        state[_hugging_face_name(key)] = torch.from_numpy(weight.copy())
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model.to(dtype=getattr(torch, dtype), device="cuda" if torch.cuda.is_available() else "cpu")


_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}


def _hugging_face_name(name: str) -> str:
    top = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
    if name in top:
        return top[name]
    _, layer, module, _ = name.split(".")
    return f"model.layers.{layer}.{_NAMES[module]}.weight"


def encoder(codec: Codec, prompting: Prompting, max_tokens: int) -> Callable[[Pair], Encoded]:
    """What turns a pair into token ids, each side cut at `max_tokens`."""

    def encode(pair: Pair) -> Encoded:
        prompt, completion = prompting.render(pair)
        context = codec.prompt(prompt if isinstance(prompt, str) else [asdict(turn) for turn in prompt])
        target = codec.continuation(completion, end=True)
        return Encoded(tuple(context[:max_tokens]), tuple(target[:max_tokens]), pair.source)

    return encode


def _record(config: TuneConfig, prompting: Prompting, prepared: Prepared, trained: Trained) -> dict[str, Any]:
    return {
        "task": config.task,
        "base": config.model,
        "base_sha256": store.stored(embedded_name(config.model)).sha256,
        **prompting.record(),
        "domain": config.domain,
        "category": config.category,
        "data_sha256": prepared.sha256,
        "data": asdict(prepared.funnel),
        "train_pairs": len(prepared.train),
        "held_out_pairs": len(prepared.held_out),
        "config": config.model_dump(mode="json"),
        "evaluations": [asdict(e) for e in trained.evaluations],
        "best": asdict(trained.best),
    }


def _save_weights(model: Any, out: Path) -> None:
    """Write the adapter in half precision: half the bytes, and far below the int8 error of the engine."""
    torch = require("torch", extra="train", purpose="tuning")
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(out)


def _save_record(out: Path, record: dict[str, Any]) -> None:
    (out / "tuning.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(_card(record), encoding="utf-8")


def _card(record: dict[str, Any]) -> str:
    before, best = record["evaluations"][0], record["best"]
    rows = "\n".join(f"| {source} | {before['by_source'][source]:.3f} | {loss:.3f} |" for source, loss in best["by_source"].items())
    what = (
        "the instruction that a response answers, P(prompt | response)"
        if record["task"] == "induce"
        else "a response as the domain's guideline asks, P(response | prompt)"
    )
    config = record["config"]
    started = f"- Started from: adapter `{config['start']}`, SHA-256 `{record['start_sha256']}`\n" if config["start"] else ""
    return f"""# Adapter: {Path(config["out"]).name}

A LoRA adapter (rank {config["lora"]["rank"]}) for `{record["base"]}`, written by `safer-instruct tune`. It generates {what}.

- Base weights, SHA-256: `{record["base_sha256"]}`
{started}- Template: `{record["template"]}`, digest `{record["template_digest"]}`
- Pairs: {record["train_pairs"]} trained on, {record["held_out_pairs"]} held out; data SHA-256 `{record["data_sha256"]}`
- Kept: step {best["step"]}, the lowest held-out loss (mean negative log-likelihood per completion token, nats)

| held-out pairs of | base | tuned |
|---|---|---|
| all | {before["loss"]:.3f} | {best["loss"]:.3f} |
{rows}

The embedded engine, with the adapter merged and quantised to int8, gives the same held-out pairs {record["embedded_loss"]:.3f}.

Every evaluation, the seed and all settings are in `tuning.json`.
"""
