"""Axolotl: data files, and the YAML that loads them (https://docs.axolotl.ai/docs/rlhf.html)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from safer_instruct.export.lines import Reshape, beside, write_lines
from safer_instruct.export.messages import answered, asked
from safer_instruct.export.rows import Finished, Row
from safer_instruct.export.trl import unpaired
from safer_instruct.models.codec import defused

_HEAD = "# Add these keys to your Axolotl config, and start Axolotl in the folder where this file is (or write the paths out).\n"
_KTO_HEAD = "# 'chatml' is the chat template that is written into the texts; 'llama3.prompt_pairs' writes that of Llama 3.\n"
_TURNS_HEAD = "# 'chatml' is the chat template that is written into the texts, the earlier turns of these conversations included.\n"
_CHATML = "<|im_end|>\n<|im_start|>{role}\n{content}"
_CONTROL = ("<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")  # of ChatML and Llama 3


def write_dpo(finished: Finished, folder: Path) -> None:
    """For `rl: dpo`, `ipo` and their kin: the model's own chat template is applied."""
    loaded = {"type": "chat_template.default", "field_messages": "messages", "field_chosen": "chosen", "field_rejected": "rejected"}
    _write(finished, folder, _dpo, {"rl": "dpo"}, loaded, _HEAD)


def write_kto(finished: Finished, folder: Path) -> None:
    """For `rl: kto`: Axolotl has no type for it that applies the model's own chat template."""
    head = _HEAD + (_TURNS_HEAD if finished.conversations else _KTO_HEAD)
    _write(finished, folder, _kto, {"rl": "kto", "remove_unused_columns": False}, {"type": "chatml.prompt_pairs"}, head)


def _write(finished: Finished, folder: Path, reshape: Reshape, config: dict[str, Any], loaded: dict[str, str], head: str) -> None:
    entries = []
    for split in finished.counts:
        write_lines(folder / f"{split}.jsonl", finished.rows(split), reshape)
        entries.append({"path": f"{split}.jsonl", "ds_type": "json", "split": "train", **loaded})  # a file has the one split 'train'
    config = {**config, "datasets": entries[:1], **({"test_datasets": entries[1:]} if entries[1:] else {})}
    (folder / "axolotl.yaml").write_text(head + yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _dpo(row: Row) -> Iterator[Any]:
    yield {"messages": asked(row), "chosen": answered(row["chosen"]), "rejected": answered(row["rejected"]), **beside(row)}


def _kto(row: Row) -> Iterator[Any]:
    """`prompt_pairs` writes ChatML around one message of the user; what was said before stands within it, up to where that message ends.

    Control tokens that a text spells out are broken up: here the chat template is text as well, so they would end its turn.
    """
    first, *others = ({"role": message["role"], "content": defused(message["content"], _CONTROL)} for message in asked(row))
    prompt = first["content"] + "".join(_CHATML.format_map(message) for message in others)
    yield from unpaired({**row, "prompt": prompt, **{side: defused(row[side], _CONTROL) for side in ("chosen", "rejected")}})
