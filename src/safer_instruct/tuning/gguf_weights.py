"""Weights and adapters of Llama, Qwen, Mistral and Gemma models as GGUF, in the layout that llama.cpp computes with.

Two conventions differ from transformers' (llama.cpp, `conversion/llama.py` and `gemma.py` of its converters): the Llama graph
rotates neighbouring rows of q and k, where transformers rotates the two halves of each head; and the Gemma graph multiplies by
the norm's weight, where transformers multiplies by one plus it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safer_instruct.errors import ModelError
from safer_instruct.tuning.gguf_vocabulary import add_vocabulary

if TYPE_CHECKING:
    import gguf
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

GgufType = Literal["f32", "f16", "bf16", "q8_0"]
# transformers' model type -> llama.cpp's architecture
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3"}
_OUTER = "base_model.model."


def write_model(model: Any, tokenizer: Any, out: Path, *, begins: bool, quantization: GgufType = "f16", name: str = "") -> None:
    """Write `model` (transformers, weights in memory) and its tokenizer as one GGUF file.

    Args:
        model: A causal LM of one of `ARCHITECTURES`.
        tokenizer: Its fast tokenizer.
        out: The file.
        begins: Whether raw prompts begin with the token of beginning.
        quantization: How matrices are stored; vectors stay float32.
        name: What the file calls the model.

    Raises:
        ModelError: The architecture or the tokenizer is of a kind that is not known here.
    """
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(out, _architecture(config))
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name or out.stem)
    _add_shape(writer, config)
    add_vocabulary(writer, tokenizer, config.vocab_size, begins=begins)
    names = _names(config)
    tied = bool(config.tie_word_embeddings)
    for key, weight in model.state_dict().items():
        if not (tied and key == "lm_head.weight"):
            _add(writer, _tensor_name(names, key), _laid_out(config, key, _numpy(weight)), quantization)
    if (factors := _rope_factors(config)) is not None:
        _add(writer, "rope_freqs.weight", factors, "f32")
    _write(writer)


def write_lora(adapter: Path, config: Any, out: Path) -> None:
    """Write a PEFT LoRA adapter of a model with `config` as a GGUF file that llama.cpp loads with `--lora`.

    Raises:
        ModelError: The adapter is of another kind, or the architecture is not known here.
    """
    import gguf

    from safer_instruct.models.convert import Lora

    lora = Lora(adapter)
    writer = gguf.GGUFWriter(out, _architecture(config))
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    names = _names(config)
    for module, a, b in _factors(lora.weights):
        writer_alpha = lora.scale * a.shape[0]  # llama.cpp divides by the rank
        target = _tensor_name(names, f"{module}.weight")
        _add(writer, f"{target}.lora_a", a, "f32")
        _add(writer, f"{target}.lora_b", _laid_out(config, f"{module}.weight", b), "f32")
    writer.add_float32("adapter.lora.alpha", writer_alpha)
    _write(writer)


def permute(weight: Matrix, heads: int) -> Matrix:
    """Rows of q or k from two halves per head to interleaved pairs: the inverse of `models.convert.unpermute`."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _architecture(config: Any) -> str:
    found = ARCHITECTURES.get(config.model_type)
    if found is None:
        raise ModelError(f"models of type '{config.model_type}' cannot be written as GGUF here, only {', '.join(ARCHITECTURES)}; export 'merged'")
    return found


def _names(config: Any) -> gguf.TensorNameMap:
    import gguf

    architecture = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == _architecture(config))
    return gguf.get_tensor_name_map(architecture, config.num_hidden_layers)


def _tensor_name(names: gguf.TensorNameMap, key: str) -> str:
    found: str | None = names.get_name(key, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise ModelError(f"llama.cpp has no place for the weight '{key}' of this model; export 'merged' and convert that")
    return found


def _laid_out(config: Any, key: str, weight: Matrix) -> Matrix:
    """`weight`, or the B factor of its LoRA update, as llama.cpp's graph wants it."""
    if config.model_type in ("llama", "mistral") and ".self_attn.q_proj." in key:
        return permute(weight, config.num_attention_heads)
    if config.model_type in ("llama", "mistral") and ".self_attn.k_proj." in key:
        return permute(weight, config.num_key_value_heads)
    if config.model_type.startswith("gemma") and key.endswith("norm.weight"):
        return weight + 1
    return weight


def _factors(weights: Mapping[str, Matrix]) -> Iterator[tuple[str, Matrix, Matrix]]:
    """(module, A, B) of every adapted layer."""
    import numpy as np

    ending = ".lora_A.weight"
    for key, a in sorted(weights.items()):
        if key.endswith(ending):
            stem = key.removesuffix(ending)
            b = weights[f"{stem}.lora_B.weight"]
            yield stem.removeprefix(_OUTER), a.astype(np.float32), b.astype(np.float32)


def _add_shape(writer: gguf.GGUFWriter, config: Any) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(config.vocab_size)
    _add_rope(writer, config)
    if config.model_type in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(config.sliding_window)
        if config.final_logit_softcapping:
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
        if config.attn_logit_softcapping:
            writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        if config.query_pre_attn_scalar != head:
            raise ModelError(f"query_pre_attn_scalar {config.query_pre_attn_scalar} differs from the head size {head}; llama.cpp's graph takes the head size")


def _add_rope(writer: gguf.GGUFWriter, config: Any) -> None:
    rope = config.rope_parameters
    if "full_attention" in rope:  # Gemma 3: one base for layers that see everything, another for windows
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind not in ("default", "llama3"):
        raise ModelError(f"rotary scaling of type '{kind}' cannot be written as GGUF here; export 'merged' and convert that")


def _rope_factors(config: Any) -> Matrix | None:
    """Llama 3.1's divisors of the rotary frequencies (Llama 3 herd of models, 2024), as transformers computes them."""
    import numpy as np

    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return None
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    wave = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, head, 2, dtype=np.float64) / head)
    length, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((length / wave - low) / (high - low), 0, 1)
    factors: Matrix = (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)
    return factors


def _numpy(weight: Any) -> Matrix:
    array: Matrix = weight.detach().float().cpu().numpy()
    return array


def _add(writer: gguf.GGUFWriter, name: str, values: Matrix, quantization: GgufType) -> None:
    import gguf
    import numpy as np

    kind = gguf.GGMLQuantizationType[quantization.upper()]
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    if values.ndim == 1:
        kind = gguf.GGMLQuantizationType.F32
    elif values.shape[-1] % block:
        kind = gguf.GGMLQuantizationType.F16
    writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
