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
    a killed computation gives the very numbers of an undisturbed one. Several processes share the batches, each with a file of its own.

    Args:
        model: The reference, in the state in which it is to stay.
        sequences: What to score.
        key: Names the model's weights and their precision.
        folder: Where files are kept, by key and data.
        note: Told of each batch: sequences done, and in all, of this process.
    """
    import torch

    rank, ranks = _place()
    name = _digest(key, sequences)
    own = folder / f"{name}-{rank}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    _cut(own)
    found: dict[int, float] = {}
    for file in sorted(folder.glob(f"{name}-*.jsonl")):
        found.update(_read(file))
    order = {id(e): number for number, e in enumerate(sequences)}
    work = [[order[id(e)] for e in batch] for batch in batches(sequences)][rank::ranks]
    model.eval()
    done, mine = 0, sum(map(len, work))
    with own.open("a", encoding="utf-8") as out, torch.no_grad():
        for numbers in work:
            if not all(n in found for n in numbers):
                values = sequence_logps(model, [sequences[n] for n in numbers]).tolist()
                found.update(zip(numbers, values, strict=True))
                out.write(json.dumps({"sequences": numbers, "logps": values}) + "\n")
                out.flush()
            done += len(numbers)
            note(done, mine)
    return [found[n] for n in range(len(sequences))] if ranks == 1 else _everyones(found, ranks, len(sequences))


def _place() -> tuple[int, int]:
    """Which of how many processes this is."""
    import torch

    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if several else (0, 1)


def _everyones(found: dict[int, float], ranks: int, count: int) -> list[float]:
    import torch

    parts: list[dict[int, float]] = [{}] * ranks
    torch.distributed.all_gather_object(parts, found)
    together = {n: value for part in parts for n, value in part.items()}
    return [together[n] for n in range(count)]


def _digest(key: str, sequences: Sequence[Encoded]) -> str:
    content = [key, [(e.prompt, e.completion) for e in sequences]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _cut(file: Path) -> None:
    """Cut off a last line that a kill cut short, so that the next one begins on its own."""
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            file.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")


def _read(file: Path) -> dict[int, float]:
    """What the whole lines of a file hold."""
    found: dict[int, float] = {}
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            row = json.loads(line)
            found.update(zip(row["sequences"], row["logps"], strict=True))
    return found
