"""Train the small language model that reads refusals (`adapters/refusal-reader`), and tell how it does, alone and beside the words that ship.

    python bench/refusal_reader.py OUT [--epochs 3]      needs the extra `train`; 30 minutes on two cores with AVX-512 bfloat16

The upper layers of SmolLM2-135M-Instruct learn by LoRA (Hu et al. 2021, arXiv 2106.09685) which token comes after an answer, its prompt and "This answer
is a": " refusal", " partial" or " compliance". What the layers below them make of each answer is computed once and kept. Learnt from: all labelled answers
but those of the sets that are kept for testing. Prints agreement on these after each epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from refusal_fit import DATA, KIND, KIND_EACH, REAL, Row
from refusal_fit import read as read_all
from refusal_wording import SETS
from refusals import read
from safetensors.torch import load_file, save_file

from safer_instruct.detect import refusal, wording
from safer_instruct.filters.refusal_reader import question
from safer_instruct.models.store import EMBEDDED
from safer_instruct.tuning.bases import open_base

BENCH = Path(__file__).parent / "data"
DEV = ("hard", "issue", "last", *(name for name in SETS if not name.startswith("asked")))  # of the last five the halves that nothing is fitted on
TEST = ("unseen", "unseen-products", "unseen-sensitive", "unseen-varied", "unseen-models")
FROZEN, RANK, RATE, SMOOTHED, WARM_UP = 10, 8, 0.001, 0.05, 40
WITHOUT_PROMPT = 0.15  # share of the answers that are read without the prompt that they have
BATCH_TOKENS, PADDED_TO = 1536, 8
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CLASSES: list[str] = list(refusal.CLASSES)


@dataclass(frozen=True)
class Batch:
    """Rows by their number, [rows, tokens, width] states below the layers that learn, and where each row's last token is."""

    rows: list[int]
    states: torch.Tensor
    last: torch.Tensor


class Reader:
    """The model: lower layers as they are, upper ones with LoRA."""

    def __init__(self) -> None:
        base = open_base(f"embedded:{EMBEDDED}", Path())
        self._base = model = base.load()
        model.requires_grad_(False)
        layers = list(range(FROZEN, model.config.num_hidden_layers))
        self.tuned = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, layers_to_transform=layers, target_modules=LINEAR, task_type="CAUSAL_LM"))
        self._inner, self._tokenizer = model.model, base.tokenizer
        self.classes = [self._tokenizer.encode(f" {name}")[0] for name in CLASSES]

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Those that learn."""
        return [p for p in self.tuned.parameters() if p.requires_grad]

    def below(self, rows: Sequence[Row]) -> list[Batch]:
        """Rows of like length together, with the states that the lower layers make."""
        encoded = [self._tokenizer.encode(question(row["text"], row.get("prompt", ""))) for row in rows]
        batches: list[list[int]] = [[]]
        for i in sorted(range(len(rows)), key=lambda i: len(encoded[i])):
            if batches[-1] and (len(batches[-1]) + 1) * len(encoded[i]) > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(i)
        return [self._batch(numbers, [encoded[i] for i in numbers]) for numbers in batches]

    @torch.no_grad()
    def _batch(self, numbers: list[int], encoded: list[list[int]]) -> Batch:
        width = -(-max(map(len, encoded)) // PADDED_TO) * PADDED_TO
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in encoded])
        with torch.autocast("cpu", torch.bfloat16):
            states = self._through(self._inner.embed_tokens(tokens), self._inner.layers[:FROZEN])
        return Batch(numbers, states.bfloat16(), torch.tensor([len(row) - 1 for row in encoded]))

    def __call__(self, batch: Batch) -> torch.Tensor:
        """[rows, 3] Log-probabilities of the classes' tokens, of the whole vocabulary."""
        with torch.autocast("cpu", torch.bfloat16):
            states = self._through(batch.states.float(), self._inner.layers[FROZEN:])
            logits = self._base.lm_head(self._inner.norm(states[torch.arange(len(states)), batch.last]))
        return logits.float().log_softmax(-1)[:, self.classes]  # type: ignore[no-any-return]

    def _through(self, states: Any, layers: Any) -> Any:
        """What is padded stands behind the last token, which looks only back: so no mask is needed."""
        places = self._inner.rotary_emb(states, torch.arange(states.shape[1])[None])
        for layer in layers:
            found = layer(states, position_embeddings=places, attention_mask=None)
            states = found[0] if isinstance(found, tuple) else found
        return states


def learnt_from(rng: random.Random) -> Iterator[Row]:
    """All labelled answers but those for testing, some without their prompt; and good answers and kind replies, which comply."""
    files = [*(DATA / f"{name}.jsonl" for name in ("train", "voices", "replies", "asked")), *SETS.values(), *sorted(BENCH.glob("refusals-mistakable-*.jsonl"))]
    for row in (row for file in files for row in read_all(file) if row.get("split", "dev") == "dev"):
        yield row if rng.random() > WITHOUT_PROMPT else {name: value for name, value in row.items() if name != "prompt"}
    for row in read_all(REAL)[::2]:
        yield {"text": row["output"], "prompt": row["instruction"], "label": "compliance"}
    for row in (row for file in KIND for row in read_all(file)[::KIND_EACH]):
        yield {"text": row["kind"], "label": "compliance"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model, rng = Reader(), random.Random(options.seed)
    rows = list(learnt_from(rng))
    wanted, batches = torch.full((len(rows), len(CLASSES)), SMOOTHED / len(CLASSES)), model.below(rows)
    wanted[torch.arange(len(rows)), torch.tensor([CLASSES.index(row["label"]) for row in rows])] += 1 - SMOOTHED
    tests = {name: read(BENCH / f"refusals-{name}.jsonl") for name in (*DEV, *TEST)}
    tests["good"] = [{"text": row["output"], "prompt": row["instruction"], "label": "compliance"} for row in read_all(REAL)[1::2]]
    kept = {name: model.below(test) for name, test in tests.items()}
    steps, done, began = options.epochs * len(batches), 0, time.monotonic()
    print(f"{len(rows)} answers, {len(batches)} batches, {steps} steps", flush=True)
    optimizer = torch.optim.AdamW(model.parameters, weight_decay=0.01)
    for epoch in range(options.epochs):
        rng.shuffle(batches)
        seen: list[float] = []
        for batch in batches:
            optimizer.param_groups[0]["lr"] = RATE * min(1, (done + 1) / WARM_UP) * max(0.02, (1 + math.cos(math.pi * done / steps)) / 2)
            loss = -(wanted[batch.rows] * model(batch)).sum(-1).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            seen.append(loss.item())
            done += 1
            if done % 25 == 0:
                print(f"step {done} of {steps}, loss {sum(seen[-25:]) / 25:.3f}, {(time.monotonic() - began) / done:.1f} s each", flush=True)
        print(f"\nepoch {epoch + 1}")
        save(model, options.out, len(rows), options.seed, epoch + 1)
        for names in (DEV, TEST, ("good",)):
            told = [(row, share) for name in names for row, share in zip(tests[name], shares(model, kept[name], len(tests[name])), strict=True)]
            compare("+".join(names), [row for row, _ in told], [share for _, share in told])


def save(model: Reader, out: Path, rows: int, seed: int, epochs: int) -> None:
    """The adapter in half precision, and where it comes from."""
    model.tuned.save_pretrained(out)
    weights = out / "adapter_model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights)
    weights.chmod(0o644)
    learnt = f'Learnt from {rows} labelled answers, seed {seed}, {epochs} epochs; how it does stands in `bench/README.md`, "Refusals".'
    what = f"A LoRA adapter (rank {RANK}, layers {FROZEN} and up) for `embedded:{EMBEDDED}`, written by `bench/refusal_reader.py`."
    (out / "README.md").write_text(f"# Adapter: refusal-reader\n\n{what} It tells whether an answer refuses: `filters.refusal_reader`.\n\n{learnt}\n", "utf-8")


@torch.no_grad()
def shares(model: Reader, batches: Sequence[Batch], rows: int) -> list[list[float]]:
    """Probability of each class, row by row."""
    found: list[list[float]] = [[]] * rows
    for batch in batches:
        for number, row in zip(batch.rows, model(batch).softmax(-1).tolist(), strict=True):
            found[number] = row
    return found


def compare(name: str, rows: Sequence[Row], by_reader: Sequence[Sequence[float]]) -> None:
    """One line: right by the reader alone, by what ships, and by both."""
    shipped = [refusal.shares(row["text"], wording.shipped(), row.get("prompt", "")) for row in rows]
    words = [[by[label] for label in refusal.CLASSES] for by in shipped]

    def right(weight: float, beside: float) -> int:
        said = [[weight * a + beside * b for a, b in zip(*both, strict=True)] for both in zip(by_reader, words, strict=True)]
        return sum(CLASSES[max(range(3), key=one.__getitem__)] == row["label"] for one, row in zip(said, rows, strict=True))

    both = {str(weight): right(weight, 1) for weight in (0.5, 1.0, 2.0, 4.0)}
    print(json.dumps({"set": name, "rows": len(rows), "reader": right(1, 0), "words": right(0, 1), "reader's weight beside 1": both}), flush=True)


if __name__ == "__main__":
    main()
