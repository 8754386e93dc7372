"""Log-probabilities under the reference, computed once and kept on disk: a training that is given again does not compute them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safer_instruct.tuning.loss import Encoded, batches, completion_nll

Note = Callable[[int, int], None]
"""Is told how many sequences are done, and of how many."""


def sequence_logps(model: Any, batch: Sequence[Encoded]) -> Any:
    """Log-probability of each completion of the batch given its prompt, shape (sequences,), in nats."""
    import torch

    nll = completion_nll(model, batch)
    return -torch.stack([part.sum() for part in nll.split([len(e.completion) for e in batch])])


def reference_logps(model: Any, sequences: Sequence[Encoded], key: str, folder: Path, note: Note = lambda done, of: None) -> list[float]:
    """Log-probability of each sequence's completion under `model`, in order; what `folder` holds of the same is not computed again.

    Each batch is written as it is done. The batches follow from the sequences alone, and a batch that was cut short is computed whole, so
    a killed computation gives the very numbers of an undisturbed one.

    Args:
        model: The reference, in the state in which it is to stay.
        sequences: What to score.
        key: Names the model's weights and their precision.
        folder: Where files are kept, one per key and data.
        note: Told of each batch.
    """
    import torch

    file = folder / f"{_digest(key, sequences)}.jsonl"
    found = _read(file)
    order = {id(e): number for number, e in enumerate(sequences)}
    work = [[order[id(e)] for e in batch] for batch in batches(sequences)]
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    done = 0
    with file.open("a", encoding="utf-8") as out, torch.no_grad():
        for numbers in work:
            if not all(n in found for n in numbers):
                values = sequence_logps(model, [sequences[n] for n in numbers]).tolist()
                found.update(zip(numbers, values, strict=True))
                out.write(json.dumps({"sequences": numbers, "logps": values}) + "\n")
                out.flush()
            done += len(numbers)
            note(done, len(sequences))
    return [found[n] for n in range(len(sequences))]


def _digest(key: str, sequences: Sequence[Encoded]) -> str:
    content = [key, [(e.prompt, e.completion) for e in sequences]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _read(file: Path) -> dict[int, float]:
    """What a file holds; a line that was cut short is left out, and cut off, so that the next one begins on its own."""
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    found: dict[int, float] = {}
    for line in whole.splitlines():
        row = json.loads(line)
        found.update(zip(row["sequences"], row["logps"], strict=True))
    return found
