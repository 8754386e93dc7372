"""Memory and speed of a step of DPO on a processor: TRL's trainer as it comes, and `train dpo`.

    bench/dpo.py --kind trl --micro 8      # 8 pairs of 200 + 200 tokens, all in memory at a time
    bench/dpo.py --kind ours               # the same batch, micro-batches by tokens, completions scored alone

One kind per process, so that the peak is its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL = "embedded:smollm2-135m-instruct"
PROMPT, RESPONSE, BATCH = 100, 100, 8


def pairs(count: int) -> list[tuple[list[int], list[int], list[int]]]:
    rng = random.Random(0)
    return [tuple([rng.randrange(10, 40_000) for _ in range(n)] for n in (PROMPT, RESPONSE, RESPONSE)) for _ in range(count)]  # type: ignore[misc]


def trl_alone(steps: int, micro: int) -> list[float]:
    import datasets
    import peft
    import transformers
    import trl

    from safer_instruct.tuning.bases import open_base

    class Ready(trl.DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.monotonic())

    times: list[float] = []
    base = open_base(MODEL, Path())
    args = trl.DPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=BATCH // micro,
        num_train_epochs=1,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        max_length=None,
        save_strategy="no",
    )
    rows = [{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in pairs(steps * BATCH)]
    lora = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    data = datasets.Dataset.from_list(rows)
    Ready(model=base.load(), args=args, train_dataset=data, processing_class=base.tokenizer, peft_config=lora, callbacks=[Clock()]).train()
    return times


def ours(steps: int, micro: int | None) -> list[float]:
    from safer_instruct.settings.preference import DpoConfig
    from safer_instruct.settings.training import Training
    from safer_instruct.training.data import EncodedPair
    from safer_instruct.training.objective import Preferences
    from safer_instruct.tuning.bases import open_base
    from safer_instruct.tuning.train import train

    times: dict[int, float] = {}
    config = DpoConfig(model=MODEL, data=("-",), batch_size=BATCH, evaluations_per_epoch=1, training=Training(micro_batch=micro), out="-")  # type: ignore[arg-type]
    encoded = [EncodedPair(tuple(p), tuple(c), tuple(r), "random") for p, c, r in pairs(steps * BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        objective = Preferences(encoded, encoded[:1], config, Path(folder) / "reference")
        train(open_base(MODEL, Path()), objective, config, lambda p: times.setdefault(p.step, time.monotonic()), checkpoints=Path(folder) / "c")
    return [times[step] for step in range(1, steps + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kind", choices=("trl", "ours"), default="ours")
    parser.add_argument("--micro", type=int, help="pairs in memory at a time")
    parser.add_argument("--steps", type=int, default=2)
    given = parser.parse_args()
    times = trl_alone(given.steps, given.micro or BATCH) if given.kind == "trl" else ours(given.steps, given.micro)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"kind": given.kind, "peak_gb": round(peak, 2), "s_per_step": round((times[-1] - times[0]) / max(1, len(times) - 1), 1)}))


if __name__ == "__main__":
    main()
