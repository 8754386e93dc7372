"""The model that tuning starts from: one of the cache, or a transformers model of a folder or hub name."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safer_instruct.errors import ConfigError, ModelError
from safer_instruct.extras import require
from safer_instruct.models import store
from safer_instruct.models.codec import Codec, Message
from safer_instruct.models.convert import dequantise, unpermute
from safer_instruct.nearest import did_you_mean
from safer_instruct.wholefile import sha256_of


@dataclass(frozen=True, slots=True)
class Base:
    """A model to tune.

    Attributes:
        name: As the config names it.
        digest: SHA-256 of its weights, or the commit of a hub repository.
        codec: Text to tokens, as in serving.
        tokenizer: The same vocabulary as transformers knows it; it is saved beside merged weights.
        embedded: Its name in the cache, or None.
        load: Loads the weights: dtype, and for QLoRA the quantisation, as `from_pretrained` takes it.
    """

    name: str
    digest: str
    codec: Codec
    tokenizer: Any
    embedded: str | None
    load: Callable[..., Any]


def open_base(model: str, base: Path, *, attention: str | None = None) -> Base:
    """The base that `model` names: `embedded:NAME`, a folder relative to `base`, or a hub name.

    Raises:
        ConfigError: The string is of another form.
        MissingExtraError: The extra `train` is not installed.
        ModelError: The model is not there.
    """
    require("transformers", extra="train", purpose="tuning").utils.logging.disable_progress_bar()
    provider, colon, name = model.partition(":")
    if colon and provider != "embedded":
        raise ConfigError(f"model '{model}': tuning starts from 'embedded:NAME' (see: safer-instruct models list), a model folder or a hub name")
    if provider == "embedded" and name:
        return _of_cache(name, attention)
    folder = base / model
    if not folder.is_dir() and "/" not in model and (meant := did_you_mean(model, store.CATALOG)) and not _in_hub_cache(model):
        meant = meant.replace("'", "'embedded:", 1)
        raise ConfigError(f"model '{model}': no such folder at {folder}; {meant} A model of the hub is named with its owner: OWNER/NAME")
    return _of_transformers(str(folder.resolve()) if folder.is_dir() else model, model, attention)


def _in_hub_cache(model: str) -> bool:
    """Whether it was fetched before: then it is what is meant, whatever else it resembles."""
    hub = require("huggingface_hub", extra="train", purpose="tuning")
    try:
        return isinstance(hub.try_to_load_from_cache(model, "config.json"), str)
    except ValueError:  # no name that the hub could have
        return False


@contextmanager
def quiet_about_renames() -> Iterator[None]:
    """Transformers 5.24 warns users of names that PEFT and TRL still call it by."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


class PretrainedCodec(Codec):
    """A transformers tokenizer, seen as a codec: raw prompts begin with its token of beginning if it puts one there itself."""

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.is_fast or tokenizer.eos_token is None:
            raise ModelError(f"the tokenizer of {tokenizer.name_or_path} has no tokenizer.json or no end token; save it as a fast tokenizer with an eos_token")
        self._tokenizer, self._pretrained = tokenizer.backend_tokenizer, tokenizer
        self.eos = tokenizer.eos_token
        begins = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
        self._bos = tokenizer.bos_token if begins else None

    @property
    def begins(self) -> bool:
        """Whether raw prompts begin with the token of beginning."""
        return self._bos is not None

    def prompt(self, prompt: str | Sequence[Message]) -> list[int]:
        """As `Codec.prompt`; chats go through the tokenizer's own template."""
        if isinstance(prompt, str):
            return super().prompt(prompt)
        from jinja2 import TemplateError

        if not self._pretrained.chat_template:
            raise ModelError(f"{self._pretrained.name_or_path} has no chat template; use a template of form 'raw'")
        messages = [{"role": m["role"], "content": self._defused(m["content"])} for m in prompt]
        try:
            return self.encode(self._pretrained.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except TemplateError as exc:  # some templates know no system role
            raise ModelError(f"the chat template of {self._pretrained.name_or_path} refuses this conversation: {exc}") from exc


def _of_cache(name: str, attention: str | None) -> Base:
    transformers = require("transformers", extra="train", purpose="tuning")
    folder, _ = store.converted(name)
    codec = Codec(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token=codec.eos, pad_token=codec.eos)
    tokenizer.chat_template = (folder / "chat.jinja").read_text(encoding="utf-8") or None

    def load(dtype: str = "float32", quantization: Any = None) -> Any:
        if quantization is not None:
            raise ConfigError(f"model 'embedded:{name}': QLoRA starts from a transformers model; a model of the cache is small enough for 'method: lora'")
        return load_base(name, dtype, attention=attention)

    return Base(f"embedded:{name}", store.stored(name).sha256, codec, tokenizer, name, load)


def _of_transformers(where: str, name: str, attention: str | None) -> Base:
    transformers = require("transformers", extra="train", purpose="tuning")
    try:
        config = transformers.AutoConfig.from_pretrained(where)
        tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError) as exc:
        said = str(exc).strip().splitlines()[0]
        cache = "" if "/" in name else f"; one of the cache is written 'embedded:{name}' (see: safer-instruct models list)"
        raise ModelError(f"model '{name}' is no folder with a transformers model and no hub name that can be read: {said}{cache}") from exc
    local = Path(where)
    digest = _folder_digest(local) if local.is_dir() else str(getattr(config, "_commit_hash", ""))

    def load(dtype: str = "float32", quantization: Any = None) -> Any:
        given = {"quantization_config": quantization, "attn_implementation": attention}
        if quantization is not None:  # 4-bit weights stay on the GPU that they are loaded to
            given["device_map"] = {"": require("accelerate", extra="train", purpose="tuning").PartialState().device}
        return transformers.AutoModelForCausalLM.from_pretrained(where, dtype=dtype, **{name: value for name, value in given.items() if value is not None})

    return Base(name, digest, PretrainedCodec(tokenizer), tokenizer, None, load)


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()


def load_base(name: str, dtype: str = "float32", *, attention: str | None = None) -> Any:
    """The cached model `name` as a transformers `LlamaForCausalLM` on the CPU, dequantised from its GGUF file.

    Raises:
        MissingExtraError: torch, transformers or gguf is not installed.
    """
    torch = require("torch", extra="train", purpose="tuning")
    transformers = require("transformers", extra="train", purpose="tuning")
    gguf = require("gguf", extra="local", purpose="reading GGUF weights")
    reader = gguf.GGUFReader(store.gguf_path(name))
    meta = {key: reader.fields[key].contents() for key in reader.fields if key.startswith("llama.")}
    heads, kv_heads = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
    tensors = {t.name: t for t in reader.tensors}
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
        tie_word_embeddings="output.weight" not in tensors,
        dtype=dtype,
        attn_implementation=attention or "sdpa",
    )
    model = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype))
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():  # one at a time: the floats of a second copy would be the peak of memory
        weight = dequantise(tensor)
        if key.endswith("attn_q.weight"):
            weight = unpermute(weight, heads)
        elif key.endswith("attn_k.weight"):
            weight = unpermute(weight, kv_heads)
        with torch.no_grad():
            parameters.pop(_hugging_face_name(key)).copy_(torch.from_numpy(weight.copy()))
    if parameters:
        raise ModelError(f"{store.gguf_path(name)} has no weights for {', '.join(sorted(parameters)[:3])}")
    return model


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
