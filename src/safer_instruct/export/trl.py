"""TRL's data types: preference and unpaired preference, each standard (text) and conversational (messages).

https://huggingface.co/docs/trl/dataset_formats
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from safer_instruct import conversation
from safer_instruct.export.lines import beside
from safer_instruct.export.messages import answered, asked
from safer_instruct.export.rows import Row


def standard(row: Row) -> Iterator[Any]:
    """Preference, standard: for DPO, reward models and their kin."""
    yield row


def conversational(row: Row) -> Iterator[Any]:
    """Preference, conversational: the trainer applies the model's chat template."""
    yield conversation.conversational(row)


def unpaired(row: Row) -> Iterator[Any]:
    """Unpaired preference, standard: two rows a pair, for KTO."""
    for side, label in (("chosen", True), ("rejected", False)):
        yield {"prompt": row["prompt"], "completion": row[side], "label": label, **beside(row)}


def unpaired_conversational(row: Row) -> Iterator[Any]:
    """Unpaired preference, conversational."""
    for record in unpaired(row):
        yield {**record, "prompt": asked(row), "completion": [answered(record["completion"])]}
