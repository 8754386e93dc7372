"""Tiny random models of each family, with a tokenizer of their kind, made on the spot: no hub is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "My lamp is broken. So your lamp broke. How sad. Where is my parcel? It is late again, and nobody knows why.",
    "Below is a response to a certain instruction. Write the instruction that the response is trying to complete.",
    "### response: ### Instruction: kettle radio clock bell drum umbrella 0123456789 na\u00efve \u2603 \"so\" it's we'll don't",
] * 20
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level(pattern: str, *, bos: str | None) -> Any:
    """A byte-level BPE tokenizer that splits by `pattern`, as Llama 3 and Qwen have."""
    import tokenizers
    from tokenizers import AddedToken, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = [t for t in (bos, "<|im_start|>", "<|im_end|>", "<|endoftext|>") if t]
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=512,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(t, special=True) for t in specials],
    )
    bpe.train_from_iterator(CORPUS, trainer)
    if bos:
        bpe.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, bpe.token_to_id(bos))])
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=bos, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = CHAT
    return made


def pieces(*, prefix: bool) -> Any:
    """A BPE tokenizer over SentencePiece-like pieces with byte fallback, as Mistral and Gemma have."""
    import tokenizers
    from tokenizers import AddedToken, decoders, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<unk>", "<s>", "<|im_start|>", "<|im_end|>"]
    alphabet = [f"<0x{i:02X}>" for i in range(256)]
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Prepend("\u2581")] if prefix else []
    bpe.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *([decoders.Strip(" ", 1, 0)] if prefix else [])]
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=640, show_progress=False, special_tokens=[*[AddedToken(t, special=True) for t in specials], *alphabet], max_token_length=12
    )
    bpe.train_from_iterator(CORPUS, trainer)
    document = json.loads(bpe.to_str())
    document["added_tokens"] = [t for t in document["added_tokens"] if t["content"] in specials]  # byte pieces are plain entries of the vocabulary
    bpe = tokenizers.Tokenizer.from_str(json.dumps(document))
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bpe.token_to_id("<s>"))])
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="<|im_end|>", pad_token="<|im_end|>")
    made.chat_template = CHAT
    return made


def tokenizer_of(family: str) -> Any:
    """A tokenizer of the family's kind."""
    if family in ("mistral", "gemma", "gemma2", "gemma3_text"):
        return pieces(prefix=family == "mistral")
    return byte_level(LLAMA3, bos="<s>") if family == "llama" else byte_level(QWEN2, bos=None)


FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text")


def save_tiny(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Save a tiny random model of `family` and its tokenizer to `folder`; its weights are large, so that it prefers some tokens to others."""
    import torch
    import transformers

    tokenizer = tokenizer_of(family)
    head = {} if family in ("llama", "qwen2", "mistral") else {"head_dim": 24}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    more: dict[str, Any] = {"sliding_window": 64, "query_pre_attn_scalar": 24} if family in ("gemma2", "gemma3_text") else {}
    if family == "mistral":
        more = {"sliding_window": None}
    config = transformers.AutoConfig.for_model(family, vocab_size=len(tokenizer), **SHAPE, **head, **ids, **more)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
            else:
                weight.mul_(10 if "embed" in name or "lm_head" in name else 4)
            if name.endswith("bias"):
                weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
