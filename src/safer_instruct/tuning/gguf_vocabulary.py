"""A fast tokenizer as GGUF metadata: byte-level BPE (Llama 3, Qwen, Mistral Nemo) or pieces with byte fallback (Mistral, Gemma)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from safer_instruct.errors import ModelError

if TYPE_CHECKING:
    import gguf

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# What stands in the pattern that splits the text -> llama.cpp's name for the splitter
_SPLITTERS = ((r"\p{Lu}\p{Lt}", "tekken"), (r"\p{N}{1,3}", "llama-bpe"), (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|", "qwen2"))


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: Any, size: int, *, begins: bool) -> None:
    """Add the tokens, their merges or scores, the special tokens and the chat template.

    Args:
        writer: The file that is being written.
        tokenizer: A fast transformers tokenizer.
        size: Rows of the embedding matrix; places without a token are filled up.
        begins: Whether raw prompts begin with the token of beginning.

    Raises:
        ModelError: The tokenizer is of a kind that is not known here.
    """
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    model = document["model"]
    if model["type"] != "BPE":
        raise ModelError(f"a tokenizer of type '{model['type']}' cannot be written as GGUF here, only BPE; export 'merged' and convert that")
    merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    tokens, kinds = _tokens(document, size)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_token_scores(_scores(tokens, kinds, merges))
        writer.add_add_space_prefix("prepend" in json.dumps([document["normalizer"], document["pre_tokenizer"]]).lower())
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_splitter(document["pre_tokenizer"]))
        writer.add_token_merges([" ".join(m) for m in merges])
    for add, given in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if given is not None:
            add(given)
    writer.add_add_bos_token(begins)
    writer.add_add_eos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _tokens(document: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Every token by id, and its llama.cpp type."""
    import gguf

    kind = gguf.TokenType
    found: dict[int, tuple[str, int]] = {i: (token, kind.NORMAL) for token, i in document["model"]["vocab"].items()}
    if document["model"].get("byte_fallback"):
        found |= {i: (token, kind.BYTE) for i, (token, _) in found.items() if _BYTE.fullmatch(token)}
    found |= {t["id"]: (t["content"], kind.CONTROL if t["special"] else kind.USER_DEFINED) for t in document["added_tokens"]}
    unknown = document["model"].get("unk_token")
    found |= {i: (token, kind.UNKNOWN) for i, (token, _) in found.items() if unknown is not None and token == unknown}
    if max(found) >= size:
        raise ModelError(f"the tokenizer has token {max(found)}, and the model only {size}; they do not belong together")
    rows = [found.get(i, (f"[PAD{i}]", kind.UNUSED)) for i in range(size)]
    return [token for token, _ in rows], [int(k) for _, k in rows]


def _scores(tokens: list[str], kinds: list[int], merges: list[tuple[str, ...]]) -> list[float]:
    """llama.cpp merges the pair whose piece scores highest: the piece of the first merge gets the highest score."""
    import gguf

    ranks: dict[str, int] = {}
    for rank, parts in enumerate(merges):
        ranks.setdefault("".join(parts), rank)
    last = float(-len(merges) - 1)
    return [-float(ranks[t]) if t in ranks else last if k == gguf.TokenType.NORMAL else 0.0 for t, k in zip(tokens, kinds, strict=True)]


def _splitter(pre_tokenizer: Any) -> str:
    """llama.cpp's name for how the text is split before pieces are merged."""
    parts = list(_flat(pre_tokenizer))
    if any(p["type"] == "Digits" and p.get("individual_digits") for p in parts):
        return "smollm"
    for part in parts:
        pattern = part.get("pattern", {}).get("Regex", "") if part["type"] == "Split" else ""
        for mark, name in _SPLITTERS:
            if mark in pattern:
                return name
    raise ModelError("llama.cpp's name for this tokenizer's way to split text is not known here; export 'merged' and convert that")


def _flat(pre_tokenizer: Any) -> Iterator[dict[str, Any]]:
    if pre_tokenizer and pre_tokenizer["type"] == "Sequence":
        for part in pre_tokenizer["pretokenizers"]:
            yield from _flat(part)
    elif pre_tokenizer:
        yield pre_tokenizer
