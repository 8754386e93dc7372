"""Tuning on the processor: this package's training beside a plain loop of PyTorch and PEFT, and beside TRL as it comes.

    flock /tmp/cpu.lock python bench/tune.py            # about four minutes on 2 cores, needs the extra 'train' and the embedded model

Each runs in a process of its own on the same random tokens: SmolLM2-135M, LoRA of rank 8 on every linear layer, batches of 8
sequences of 200 tokens, 150 of prompt and 50 of completion. `ours` computes as `dtype: auto` says (bfloat16 on processors with AMX, and on
AMD's since Zen 5), all others in float32 unless their name says bfloat16. The first step is left out of the speed; processor time is told
too, for machines that are not idle; peak memory is the process's (ru_maxrss).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Stamp = tuple[float, float]  # wall clock, processor time of this process, seconds
MODEL, BATCH, PROMPT, COMPLETION, RANK = "embedded:smollm2-135m-instruct", 8, 150, 50, 8


def rows(steps: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    rng = random.Random(0)
    return [tuple(tuple(rng.randrange(100, 40_000) for _ in range(n)) for n in (PROMPT, COMPLETION)) for _ in range(BATCH * steps)]  # type: ignore[misc]


def stamp() -> Stamp:
    return time.monotonic(), time.process_time()


def base_model() -> Any:
    from safer_instruct.tuning.bases import open_base

    return open_base(MODEL, Path())


def lora(model: Any) -> Any:
    import peft

    return peft.get_peft_model(model, peft.LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))


def plain(steps: int, dtype: str = "float32") -> list[Stamp]:
    """Padded batch, `model(input_ids, labels)`, AdamW; in bfloat16 under autocast, the adapter in float32."""
    import torch

    model = lora(base_model().load(dtype))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    data = rows(steps)
    times: list[Stamp] = []
    model.train()
    for step in range(steps):
        batch = data[step * BATCH : (step + 1) * BATCH]
        ids = torch.tensor([p + c for p, c in batch])
        labels = torch.tensor([(-100,) * len(p) + c for p, c in batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(stamp())
    return times


def trl_alone(steps: int) -> list[Stamp]:
    """`SFTTrainer` as it comes, but in float32 and without gradient checkpointing, which makes it slower still."""
    import datasets
    import transformers
    import trl

    base = base_model()
    times: list[Stamp] = []
    callback = type("Times", (transformers.TrainerCallback,), {"on_step_end": lambda *_, **__: times.append(stamp())})
    data = [{"input_ids": [*p, *c], "labels": [-100] * len(p) + list(c)} for p, c in rows(steps)]
    with tempfile.TemporaryDirectory() as folder:
        given = {"gradient_checkpointing": False, "bf16": False, "use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}
        given |= {"per_device_train_batch_size": BATCH, "max_steps": steps, "max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
        rows_ = datasets.Dataset.from_list(data)
        trainer = trl.SFTTrainer(
            lora(base.load()), trl.SFTConfig(folder, **given), train_dataset=rows_, processing_class=base.tokenizer, callbacks=[callback()]
        )
        trainer.train()
    return times


def ours(steps: int, dtype: str = "auto") -> list[Stamp]:
    """`tuning.train.train`, its held-out evaluations and checkpoint included in memory and left out of the speed."""
    from safer_instruct.config import PairSource, TuneConfig
    from safer_instruct.settings.training import Lora
    from safer_instruct.tuning.loss import Encoded
    from safer_instruct.tuning.train import train
    from safer_instruct.tuning.trainer import Completions

    times: dict[int, Stamp] = {}
    config = TuneConfig(model=MODEL, data=(PairSource(path="-"),), lora=Lora(rank=RANK), epochs=1, batch_size=BATCH, out="-", dtype=dtype)
    pairs = [Encoded(p, c, "random") for p, c in rows(steps)]
    with tempfile.TemporaryDirectory() as folder:
        train(base_model(), Completions(pairs, pairs[:2]), config, lambda p: times.setdefault(p.step, stamp()), checkpoints=Path(folder))
    return [times[step] for step in range(1, steps + 1)]


KINDS: dict[str, Callable[[int], list[Stamp]]] = {
    "ours": ours,
    "ours-float32": lambda steps: ours(steps, "float32"),
    "ours-bfloat16": lambda steps: ours(steps, "bfloat16"),
    "plain": plain,
    "plain-bfloat16": lambda steps: plain(steps, "bfloat16"),
    "trl": trl_alone,
}


def measured(kind: str, steps: int) -> dict[str, float]:
    times = KINDS[kind](steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tokens = (steps - 1) * BATCH * (PROMPT + COMPLETION)
    wall, cpu = (last - first for first, last in zip(times[0], times[-1], strict=True))
    return {"tokens_per_s": tokens / wall, "cpu_s_per_1000": 1000 * cpu / tokens, "peak_gb": peak / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--alone", choices=list(KINDS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(measured(given.alone, given.steps)))
        return
    found: dict[str, dict[str, float]] = {}
    for kind in given.kinds:
        command = [sys.executable, __file__, "--alone", kind, "--steps", str(given.steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        found[kind] = json.loads(done.stdout.splitlines()[-1])
        row = found[kind]
        print(f"{kind:14} {row['tokens_per_s']:6.0f} tokens/s  {row['cpu_s_per_1000']:5.1f} CPU s per 1000 tokens  peak {row['peak_gb']:.2f} GB", flush=True)
    for kind in found if "plain" in found else ():
        print(f"{kind} / plain: {found[kind]['tokens_per_s'] / found['plain']['tokens_per_s']:.2f} times the tokens/s")


if __name__ == "__main__":
    main()
