"""Tuning on completion tokens only, through TRL, PEFT and accelerate, on a CPU, a GPU or several; a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safer_instruct.config import TuneConfig
from safer_instruct.errors import ConfigError
from safer_instruct.extras import require
from safer_instruct.models import store
from safer_instruct.tuning.bases import Base
from safer_instruct.tuning.launch import is_first
from safer_instruct.tuning.loss import Encoded, Evaluation, completion_nll, evaluate
from safer_instruct.tuning.order import Bucketed
from safer_instruct.tuning.progress import Progress, evaluation, watcher
from safer_instruct.tuning.trainer import completion_trainer

__all__ = ["Encoded", "Evaluation", "Progress", "Trained", "completion_nll", "evaluate", "train"]

_MICRO_TOKENS = {"cpu": 512, "cuda": 16384}


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gives.

    Attributes:
        model: The model at its best state; for LoRA a PEFT model.
        state: Its trained weights, gathered from all processes; None on processes other than the first.
        evaluations: Every evaluation in order; the first is that of the base model alone.
        best: The one whose state was kept.
        seconds: Wall time, of the part that this process did.
        main: Whether this is the process that writes files.
    """

    model: Any
    state: dict[str, Any] | None
    evaluations: tuple[Evaluation, ...]
    best: Evaluation
    seconds: float
    main: bool


def train(
    base: Base,
    train_set: Sequence[Encoded],
    held_out: Sequence[Encoded],
    config: TuneConfig,
    report: Callable[[Progress], None],
    *,
    checkpoints: Path,
    start: Path | None = None,
) -> Trained:
    """Tune `base`, fresh or from the adapter `start`, and keep the state with the lowest held-out loss.

    Args:
        base: What to tune.
        train_set: Pairs to train on.
        held_out: Pairs for early stopping.
        config: How; its `training` says how the steps are carried out.
        report: Is told of each step.
        checkpoints: Folder for checkpoints; if it holds some of the same run, training goes on from the last whole one.
        start: A PEFT adapter to go on from.

    Raises:
        ConfigError: The batch does not divide, or the method does not run here.
        MissingExtraError: torch, peft, trl or accelerate is not installed.
    """
    started = time.monotonic()
    model, evaluations = _prepared(base, held_out, config, start)
    first = evaluations[-1]
    folder = checkpoints / _run_digest(base, train_set, held_out, config, start)
    trainer = _trainer(model, base, train_set, held_out, config, folder)
    origin = _trainable(model) if config.training.method != "full" else None
    main = bool(trainer.is_world_process_zero())
    trainer.add_callback(watcher(report if main else _silent, evaluations, config.training.save_steps))
    trainer.train(resume_from_checkpoint=_last_whole(folder))
    evaluations += [evaluation(entry) for entry in trainer.state.log_history if "eval_loss" in entry]
    best = min(evaluations[evaluations.index(first) :], key=lambda e: e.loss)
    if best is first and origin is not None:
        model.load_state_dict(origin, strict=False)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_fsdp_enabled else trainer.model.state_dict()
    return Trained(trainer.model, state if main else None, tuple(evaluations), best, time.monotonic() - started, main)


def _silent(progress: Progress) -> None:
    """Only the first of several processes reports."""


def device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    torch = require("torch", extra="train", purpose="tuning")
    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_dtype(config: TuneConfig) -> str:
    """The dtype of matrix products: the config's, or the faster one of this machine.

    On processors bfloat16 was slower than float32, 40 times without AVX512-BF16 or AMX and still with them, so there it must
    be asked for.
    """
    if config.dtype != "auto":
        return config.dtype
    torch = require("torch", extra="train", purpose="tuning")
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def micro_batch(config: TuneConfig, longest: int, processes: int = 1) -> int:
    """Sequences in memory at a time on each device: the config's, or the largest that divides the batch and keeps to the budget of tokens.

    Raises:
        ConfigError: `batch_size` cannot be divided so.
    """
    share, rest = divmod(config.batch_size, processes)
    if rest or not share:
        raise ConfigError(f"batch_size {config.batch_size} is no multiple of {processes} processes; set it to one")
    if config.training.micro_batch:
        if share % config.training.micro_batch:
            raise ConfigError(f"training.micro_batch {config.training.micro_batch} does not divide the {share} sequences of a step on each device")
        return config.training.micro_batch
    fits = max(1, _MICRO_TOKENS[device()] // longest)
    return max(m for m in range(1, share + 1) if share % m == 0 and m <= fits)


def _prepared(base: Base, held_out: Sequence[Encoded], config: TuneConfig, start: Path | None) -> tuple[Any, list[Evaluation]]:
    """The model with what will be trained, and its losses before: of the base, and of `start` where there is one."""
    torch = require("torch", extra="train", purpose="tuning")
    torch.manual_seed(config.seed)
    method = config.training.method
    full = method == "full"
    loaded = base.load("float32" if full else compute_dtype(config), _four_bits(config) if method == "qlora" else None)
    if method != "qlora":
        loaded.to(require("accelerate", extra="train", purpose="tuning").PartialState(cpu=device() == "cpu").device)
    evaluations = [evaluate(loaded, held_out, step=0)]
    if full:
        if start:
            raise ConfigError("'start' names an adapter, and 'training.method: full' trains none; remove one of them")
        return loaded, evaluations
    peft = require("peft", extra="train", purpose="tuning")
    if method == "qlora":
        loaded = peft.prepare_model_for_kbit_training(loaded, use_gradient_checkpointing=False)
    if start:
        model = peft.PeftModel.from_pretrained(loaded, start, is_trainable=True)
        return model, [*evaluations, evaluate(model, held_out, step=0)]
    lora = config.lora
    fresh = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(loaded, fresh), evaluations


def _four_bits(config: TuneConfig) -> Any:
    torch = require("torch", extra="train", purpose="tuning")
    if not torch.cuda.is_available():
        raise ConfigError("training.method 'qlora' needs a CUDA GPU, and none is visible here; use 'lora'")
    require("bitsandbytes", extra="qlora", purpose="training.method 'qlora'")
    transformers = require("transformers", extra="train", purpose="tuning")
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=getattr(torch, compute_dtype(config))
    )


def _trainer(model: Any, base: Base, train_set: Sequence[Encoded], held_out: Sequence[Encoded], config: TuneConfig, folder: Path) -> Any:
    datasets = require("datasets", extra="train", purpose="tuning")
    transformers = require("transformers", extra="train", purpose="tuning")
    rows = [{"input_ids": [*e.prompt, *e.completion], "labels": [-100] * len(e.prompt) + list(e.completion)} for e in train_set]
    trainer = completion_trainer()(
        model=model,
        args=_arguments(config, [e.length for e in train_set], folder),
        train_dataset=datasets.Dataset.from_list(rows),
        eval_dataset=datasets.Dataset.from_list(rows[:1]),  # `evaluate` has its own; the trainer insists on one
        processing_class=base.tokenizer,
        callbacks=[transformers.EarlyStoppingCallback(config.patience), *_tensorboard(config, folder.parents[1])],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.held_out = held_out
    trainer.order = Bucketed([e.length for e in train_set], config.batch_size, config.seed)
    if device() == "cpu":
        trainer.score_completions_only()
    return trainer


def _tensorboard(config: TuneConfig, out: Path) -> list[Any]:
    """TensorBoard's callback, beside the checkpoints, which go."""
    for tracker in config.training.trackers:
        require(tracker, extra="trackers", purpose=f"training.trackers '{tracker}'")
    if "tensorboard" not in config.training.trackers or not is_first():
        return []
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return [TensorBoardCallback(SummaryWriter(str(out / "tensorboard")))]


def _arguments(config: TuneConfig, lengths: Sequence[int], folder: Path) -> Any:
    trl = require("trl", extra="train", purpose="tuning")
    accelerate = require("accelerate", extra="train", purpose="tuning")
    training, on_gpu = config.training, device() == "cuda"
    processes = accelerate.PartialState(cpu=not on_gpu).num_processes
    micro = micro_batch(config, max(lengths), processes)
    steps_per_epoch = math.ceil(len(lengths) / config.batch_size)
    every = max(1, steps_per_epoch // config.evaluations_per_epoch)
    checkpointing = on_gpu if training.gradient_checkpointing == "auto" else training.gradient_checkpointing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers 5.23 renames `gradient_checkpointing`, which older ones know by no other name
        return trl.SFTConfig(
            output_dir=str(folder),
            num_train_epochs=config.epochs,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=config.batch_size // (micro * processes),
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=int(steps_per_epoch * config.epochs * config.warmup),
            weight_decay=0.0,
            max_grad_norm=1.0,
            bf16=compute_dtype(config) == "bfloat16",
            fp16=False,
            use_cpu=not on_gpu,
            dataloader_pin_memory=on_gpu,
            gradient_checkpointing=checkpointing,
            padding_free=training.batching == "packed",
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},  # token ids and labels are ready
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="steps",
            save_steps=every,
            save_total_limit=2,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            greater_is_better=False,
            restore_callback_states_from_checkpoint=True,
            logging_steps=1,
            seed=config.seed,
            ddp_find_unused_parameters=False,
            report_to=[t for t in training.trackers if t != "tensorboard"] or "none",
            disable_tqdm=True,
        )


def _last_whole(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: the trainer's state comes last."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)
    return next((str(path) for path in found if _readable(path / "trainer_state.json")), None)


def _readable(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _run_digest(base: Base, train_set: Sequence[Encoded], held_out: Sequence[Encoded], config: TuneConfig, start: Path | None) -> str:
    """Names a run by all that its result depends on, so that no other run's checkpoints are taken up."""
    settings = config.model_dump(mode="json", exclude={"out"})
    what = [base.digest, store.adapter_digest(start) if start else None, settings, [[asdict(e) for e in side] for side in (train_set, held_out)]]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _trainable(model: Any) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
