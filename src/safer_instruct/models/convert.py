"""Turn a Llama-family GGUF file, with or without a LoRA adapter, into a CTranslate2 model.

numpy does all the work: no torch, no transformers. The GGUF stores q and k rows in the interleaved rotary order
(llama.cpp, `convert_hf_to_gguf.py`, `LlamaModel.permute`); they are put back into the half-split order that
CTranslate2 and Hugging Face use, which is also the order in which a PEFT adapter was trained.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safer_instruct.errors import ModelError
from safer_instruct.models.adapterfiles import check_adapter

if TYPE_CHECKING:
    import gguf
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

VERSION = 1  # raise it when the output changes: it is part of the cache key
_BAD_MODEL = 2  # exit code that says: the last line is the message of a ModelError

# GGUF tensor suffix -> PEFT module name inside `model.layers.{i}.`
_MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class Lora:
    """A PEFT LoRA adapter read with numpy: `delta(layer, module)` is its weight update, or None.

    Attributes:
        scale: What the product of its factors is multiplied by.
        weights: The factors by PEFT's names.
    """

    def __init__(self, folder: Path) -> None:
        """Read `adapter_config.json` and `adapter_model.safetensors` from `folder`.

        Raises:
            ModelError: A file is missing or damaged, or the adapter is of a kind that cannot be merged here.
        """
        from safetensors.numpy import load_file

        check_adapter(folder)
        config_path, weights_path = folder / "adapter_config.json", folder / "adapter_model.safetensors"
        config = json.loads(config_path.read_text(encoding="utf-8"))
        if config.get("peft_type") != "LORA" or config.get("use_dora"):
            raise ModelError(f"{config_path}: only plain LoRA adapters can be merged, not {config.get('peft_type')}")
        rank = int(config["r"])
        self.scale = float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)
        self.weights = load_file(weights_path)
        self._used: set[str] = set()

    def delta(self, layer: int, module: str) -> Matrix | None:
        """The update of one linear layer, shape (out, in): scale * B @ A (Hu et al. 2021, section 4.1)."""
        import numpy as np

        stem = f"base_model.model.model.layers.{layer}.{module}"
        key_a, key_b = f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"
        if key_a not in self.weights:
            return None
        self._used.update((key_a, key_b))
        a, b = self.weights[key_a].astype(np.float32), self.weights[key_b].astype(np.float32)
        merged: Matrix = self.scale * (b @ a)
        return merged

    def check_all_used(self) -> None:
        """Raise `ModelError` if the adapter holds weights that no layer asked for."""
        left = sorted(set(self.weights) - self._used)
        if left:
            raise ModelError(f"adapter weights that this model has no place for: {', '.join(left[:3])} ...")


def convert(gguf_path: Path, out: Path, *, adapter: Path | None = None, quantization: str = "int8") -> None:
    """Write `out/model.bin`, `out/config.json`, `out/vocabulary.json`, `out/tokenizer.json`, `out/chat.jinja`.

    Args:
        gguf_path: A GGUF file of architecture `llama` with a byte-level BPE vocabulary.
        out: An empty folder.
        adapter: A PEFT LoRA folder to merge into the weights before they are quantised.
        quantization: `int8`, or `float32` for none.

    Raises:
        ModelError: The file is no such model, or the adapter does not fit it.
    """
    import gguf

    reader = gguf.GGUFReader(gguf_path)
    meta = {name: field.contents() for name, field in reader.fields.items()}
    if meta.get("general.architecture") != "llama" or meta.get("tokenizer.ggml.model") != "gpt2":
        raise ModelError(f"{gguf_path}: the embedded engine reads Llama-family GGUF files with a byte-level BPE vocabulary only")
    tensors = {t.name: t for t in reader.tensors}
    spec = _spec(meta, tensors, Lora(adapter) if adapter else None, quantization)
    spec.validate()
    spec.optimize()  # everything is quantised by now; this joins what is stored twice
    spec.save(str(out))
    _tokenizer(meta).save(str(out / "tokenizer.json"))
    (out / "chat.jinja").write_text(meta.get("tokenizer.chat_template", ""), encoding="utf-8")


def convert_apart(gguf_path: Path, out: Path, *, adapter: Path | None = None, quantization: str = "int8") -> None:
    """`convert` in a process of its own: the memory that it takes (about 750 MB for 135M parameters) goes back when it is done.

    Raises:
        ModelError: As `convert`.
    """
    command = [sys.executable, "-P", "-m", __name__, str(gguf_path), str(out), quantization, *([str(adapter)] if adapter else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ModelError(said[-1] if done.returncode == _BAD_MODEL else f"converting {gguf_path} failed (exit code {done.returncode}): {said[-1]}")


def dequantise(tensor: gguf.ReaderTensor) -> Matrix:
    """The tensor as float32, in row-major (out, in) order."""
    import gguf
    import numpy as np

    values: Matrix = np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
    return values


def unpermute(weight: Matrix, heads: int) -> Matrix:
    """Undo llama.cpp's rotary permutation of q or k rows: interleaved pairs back to two halves per head."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def _spec(meta: dict[str, Any], tensors: dict[str, gguf.ReaderTensor], lora: Lora | None, quantization: str) -> Any:
    """The model, each matrix quantised as soon as it is read: one layer's floats are held at a time."""
    import numpy as np

    spec = _empty_spec(meta)
    heads, kv_heads = int(meta["llama.attention.head_count"]), int(meta["llama.attention.head_count_kv"])

    def linear(layer: int, name: str) -> Matrix:
        weight = dequantise(tensors[f"blk.{layer}.{name}.weight"])
        if name == "attn_q":
            weight = unpermute(weight, heads)
        elif name == "attn_k":
            weight = unpermute(weight, kv_heads)
        delta = lora.delta(layer, _MODULES[name]) if lora else None
        return weight if delta is None else weight + delta

    def put(part: Any, weight: Matrix) -> None:
        part.weight = weight
        part.validate()
        part.optimize(quantization)

    decoder = spec.decoder
    decoder.scale_embeddings = False
    put(decoder.embeddings, dequantise(tensors["token_embd.weight"]))
    put(decoder.projection, dequantise(tensors.get("output.weight", tensors["token_embd.weight"])))
    decoder.layer_norm.gamma = dequantise(tensors["output_norm.weight"])
    for i, layer in enumerate(decoder.layer):
        attention, ffn = layer.self_attention, layer.ffn
        attention.layer_norm.gamma = dequantise(tensors[f"blk.{i}.attn_norm.weight"])
        put(attention.linear[0], np.concatenate([linear(i, n) for n in ("attn_q", "attn_k", "attn_v")]))
        put(attention.linear[1], linear(i, "attn_output"))
        ffn.layer_norm.gamma = dequantise(tensors[f"blk.{i}.ffn_norm.weight"])
        put(ffn.linear_0, linear(i, "ffn_gate"))
        put(ffn.linear_0_noact, linear(i, "ffn_up"))
        put(ffn.linear_1, linear(i, "ffn_down"))
    if lora:
        lora.check_all_used()
    return spec


def _empty_spec(meta: dict[str, Any]) -> Any:
    """A Llama of the file's shape and vocabulary, without weights."""
    import ctranslate2

    spec = ctranslate2.specs.TransformerDecoderModelSpec.from_config(
        int(meta["llama.block_count"]),
        int(meta["llama.attention.head_count"]),
        activation=ctranslate2.specs.Activation.SWISH,
        pre_norm=True,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=False,
        rotary_base=float(meta["llama.rope.freq_base"]),
        num_heads_kv=int(meta["llama.attention.head_count_kv"]),
    )
    vocabulary = list(meta["tokenizer.ggml.tokens"])
    spec.register_vocabulary(vocabulary)
    spec.config.bos_token = vocabulary[int(meta["tokenizer.ggml.bos_token_id"])]
    spec.config.eos_token = vocabulary[int(meta["tokenizer.ggml.eos_token_id"])]
    spec.config.unk_token = vocabulary[int(meta.get("tokenizer.ggml.unknown_token_id", 0))]
    spec.config.layer_norm_epsilon = float(meta["llama.attention.layer_norm_rms_epsilon"])
    return spec


def _tokenizer(meta: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    tokens = list(meta["tokenizer.ggml.tokens"])
    merges = [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    split: Callable[..., Any] = pre_tokenizers.Split
    if meta.get("tokenizer.ggml.pre") == "smollm":
        first = pre_tokenizers.Digits(individual_digits=True)
        rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        first = split(Regex(r"\p{N}{1,3}"), behavior="isolated")
        rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, rest])
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, meta["tokenizer.ggml.token_type"], strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    return tokenizer


if __name__ == "__main__":
    gguf_file, folder, wanted, *adapters = sys.argv[1:]
    try:
        convert(Path(gguf_file), Path(folder), adapter=Path(adapters[0]) if adapters else None, quantization=wanted)
    except ModelError as error:
        print(error, file=sys.stderr)
        sys.exit(_BAD_MODEL)
