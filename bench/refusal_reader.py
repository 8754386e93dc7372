"""How far a small language model that is tuned on labelled answers tells refusals, alone and beside the words that ship.

    python bench/refusal_reader.py OUT [--epochs 3]      about an hour on two cores without AVX-512; needs the extra `train`

The upper ten layers of SmolLM2-135M-Instruct learn by LoRA (Hu et al. 2021, arXiv 2106.09685), and a head of three classes on the state of the last
token; what the lower twenty make of each answer is computed once and kept (0.4 GB). Learnt from: `refusals-mistakable-*.jsonl` and a hundred good
answers of `../shared/data`. Prints, after each epoch, agreement on sets that nothing is fitted on. A measurement: nothing of it ships yet.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from refusal_fit import REAL, Row
from refusal_fit import read as read_all
from refusals import read

from safer_instruct.detect import refusal, wording
from safer_instruct.tuning.bases import open_base

DATA = Path(__file__).parent / "data"
TEST = ("unseen", "unseen-products", "unseen-sensitive", "last", "unseen-varied", "unseen-models")
FROZEN, RANK, RATE, SMOOTHED, WARM_UP = 20, 16, 0.001, 0.05, 20
BATCH_TOKENS, ANSWER_TOKENS, ANSWER_END, PROMPT_TOKENS, PADDED_TO = 1024, 140, 50, 50, 8
BESIDE_WORDS = (0.5, 0.7, 1.0)  # weight of the reader's shares beside 1 for those that ship
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CLASSES: list[str] = list(refusal.CLASSES)


@dataclass(frozen=True)
class Batch:
    """Rows by their number, [rows, tokens, width] states below the layers that learn, and where each row's last token is."""

    rows: list[int]
    states: torch.Tensor
    last: torch.Tensor


class Reader:
    """The model: lower layers as they are, upper ones with LoRA, a head of three classes."""

    def __init__(self) -> None:
        base = open_base("embedded:smollm2-135m-instruct", Path())
        model = base.load()
        model.requires_grad_(False)
        layers = list(range(FROZEN, model.config.num_hidden_layers))
        self.tuned = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, layers_to_transform=layers, target_modules=LINEAR, task_type="CAUSAL_LM"))
        self._inner, self._tokenizer = model.model, base.tokenizer
        self.head = torch.nn.Linear(model.config.hidden_size, len(CLASSES))
        with torch.no_grad():  # begins as what the model itself would write
            self.head.weight.copy_(model.lm_head.weight[[self._tokenizer.encode(f" {name}")[0] for name in CLASSES]])
            self.head.bias.zero_()

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Those that learn."""
        return [*(p for p in self.tuned.parameters() if p.requires_grad), *self.head.parameters()]

    def encode(self, row: Row) -> list[int]:
        """Prompt and answer, of a long one beginning and end, and the beginning of what is said of it."""
        encode = self._tokenizer.encode
        answer, prompt = encode(row["text"].strip()), encode(row.get("prompt", "").strip())
        if len(answer) > ANSWER_TOKENS:
            answer = answer[: ANSWER_TOKENS - ANSWER_END] + answer[-ANSWER_END:]
        return [*encode("Request: "), *prompt[-PROMPT_TOKENS:], *encode("\nAnswer: "), *answer, *encode("\nThis answer is a")]

    def below(self, rows: Sequence[Row]) -> list[Batch]:
        """Rows of like length together, with the states that the lower layers make."""
        encoded = [self.encode(row) for row in rows]
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
        states = self._through(self._inner.embed_tokens(tokens), self._inner.layers[:FROZEN])
        return Batch(numbers, states.half(), torch.tensor([len(row) - 1 for row in encoded]))

    def __call__(self, batch: Batch) -> torch.Tensor:
        """[rows, 3] Logits."""
        states = self._through(batch.states.float(), self._inner.layers[FROZEN:])
        return self.head(self._inner.norm(states[torch.arange(len(states)), batch.last]))  # type: ignore[no-any-return]

    def _through(self, states: Any, layers: Any) -> Any:
        """What is padded stands behind the last token, which looks only back: so no mask is needed."""
        places = self._inner.rotary_emb(states, torch.arange(states.shape[1])[None])
        for layer in layers:
            found = layer(states, position_embeddings=places, attention_mask=None)
            states = found[0] if isinstance(found, tuple) else found
        return states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    reader, rng = Reader(), random.Random(0)
    rows = [row for path in sorted(DATA.glob("refusals-mistakable-*.jsonl")) for row in read(path)]
    good = random.Random(1).sample(read_all(REAL)[::2], 100)
    rows += [{"text": row["output"], "prompt": row["instruction"], "label": "compliance"} for row in good]
    labels, batches = torch.tensor([CLASSES.index(row["label"]) for row in rows]), reader.below(rows)
    tests = {name: read(DATA / f"refusals-{name}.jsonl") for name in TEST}
    kept = {name: reader.below(test) for name, test in tests.items()}
    steps, done, began = options.epochs * len(batches), 0, time.monotonic()
    optimizer = torch.optim.AdamW(reader.parameters, weight_decay=0.01)
    for epoch in range(options.epochs):
        rng.shuffle(batches)
        for batch in batches:
            optimizer.param_groups[0]["lr"] = RATE * min(1, (done + 1) / WARM_UP) * max(0.02, (1 + math.cos(math.pi * done / steps)) / 2)
            torch.nn.functional.cross_entropy(reader(batch), labels[batch.rows], label_smoothing=SMOOTHED).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(reader.parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done % 25 == 0:
                print(f"step {done} of {steps}, {(time.monotonic() - began) / done:.1f} s each", flush=True)
        print(f"\nepoch {epoch + 1}")
        for name, test in tests.items():
            compare(name, test, shares(reader, kept[name], len(test)))
    reader.tuned.save_pretrained(options.out)
    torch.save(reader.head.state_dict(), options.out / "head.pt")


@torch.no_grad()
def shares(reader: Reader, batches: Sequence[Batch], rows: int) -> list[list[float]]:
    """Probability of each class, row by row."""
    found: list[list[float]] = [[]] * rows
    for batch in batches:
        for number, row in zip(batch.rows, reader(batch).softmax(-1).tolist(), strict=True):
            found[number] = row
    return found


def compare(name: str, rows: Sequence[Row], by_reader: Sequence[Sequence[float]]) -> None:
    """One line: right by the reader alone, by what ships, and by both."""
    shipped = [refusal.shares(row["text"], wording.shipped(), row.get("prompt", "")) for row in rows]
    words = [[by[label] for label in refusal.CLASSES] for by in shipped]

    def right(weight: float, beside: float) -> str:
        said = [[weight * a + beside * b for a, b in zip(*both, strict=True)] for both in zip(by_reader, words, strict=True)]
        return f"{sum(CLASSES[max(range(3), key=one.__getitem__)] == row['label'] for one, row in zip(said, rows, strict=True))}"

    both = ", ".join(f"{right(weight, 1)} at {weight}" for weight in BESIDE_WORDS)
    print(json.dumps({"set": name, "rows": len(rows), "reader": right(1, 0), "shipped": right(0, 1), "both": both}), flush=True)


if __name__ == "__main__":
    main()
