"""Training through TRL, PEFT and accelerate, on a CPU, a GPU or several, whatever is learned; a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safer_instruct.errors import ConfigError, ModelError, RunDirectoryError
from safer_instruct.extras import require
from safer_instruct.models.adapterfiles import adapter_digest, check_adapter
from safer_instruct.oneline import one_line, shortened
from safer_instruct.settings.training import TrainerConfig
from safer_instruct.tuning.bases import Base, quiet_about_renames
from safer_instruct.tuning.launch import is_first
from safer_instruct.tuning.loss import Evaluation
from safer_instruct.tuning.objective import Objective, measure
from safer_instruct.tuning.order import Bucketed
from safer_instruct.tuning.progress import Progress, evaluation, watcher

__all__ = ["Evaluation", "Progress", "Trained", "compute_dtype", "device", "micro_batch", "train", "trained_weights"]

_MICRO_TOKENS = {"cpu": 512, "cuda": 16384}
_PADDED_TO = 64  # tokens, on processors: with a shape for every length memory grew by gigabytes over a training


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gives.

    Attributes:
        model: The model at its best state; for LoRA a PEFT model.
        state: Its trained weights, gathered from all processes; None on processes other than the first.
        evaluations: Every evaluation in order; the first is that of the base model alone, where it was evaluated.
        first: That of the state which training started from.
        best: The one whose state was kept.
        seconds: Wall time, of the part that this process did.
        main: Whether this is the process that writes files.
    """

    model: Any
    state: dict[str, Any] | None
    evaluations: tuple[Evaluation, ...]
    first: Evaluation
    best: Evaluation
    seconds: float
    main: bool


@quiet_about_renames()
def train(
    base: Base,
    objective: Objective,
    config: TrainerConfig,
    report: Callable[[Progress], None],
    *,
    checkpoints: Path,
    start: Path | None = None,
    callbacks: Sequence[Any] = (),
) -> Trained:
    """Train `base`, fresh or from the adapter `start`, and keep the state with the lowest held-out loss.

    Args:
        base: What to train.
        objective: What is learned, and from what.
        config: How; its `training` says how the steps are carried out.
        report: Is told of each step.
        checkpoints: Folder for checkpoints; if it holds some of the same run, training goes on from the last whole one.
        start: A PEFT adapter to go on from.
        callbacks: Further ones of transformers' trainer; the first process alone has them.

    Raises:
        ConfigError: The batch does not divide, or the method does not run here.
        MissingExtraError: torch, peft, trl or accelerate is not installed.
        RunDirectoryError: `checkpoints` holds some of another run alone, which would be given up without a word.
    """
    started = time.monotonic()
    folder = checkpoints / _run_digest(base, objective, config, start)
    _refuse_others(checkpoints, folder)
    model, evaluations = _prepared(base, objective, config, start)
    first = evaluations[-1]
    trainer = _trainer(model, base, objective, config, folder, callbacks)
    origin = trained_weights(model) if config.training.method != "full" else None
    main = bool(trainer.is_world_process_zero())
    trainer.add_callback(watcher(report if main else _silent, evaluations, config.training.save_steps))
    trainer.train(resume_from_checkpoint=_last_whole(folder))
    evaluations += [evaluation(entry) for entry in trainer.state.log_history if "eval_loss" in entry]
    best = min(evaluations[evaluations.index(first) :], key=lambda e: e.loss)
    if best is first and origin is not None:
        model.load_state_dict(origin, strict=False)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_fsdp_enabled else trainer.model.state_dict()
    return Trained(trainer.model, state if main else None, tuple(evaluations), first, best, time.monotonic() - started, main)


def check_start(config: TrainerConfig, start: Path) -> None:
    """That a training can go on from the adapter `start`.

    Raises:
        ConfigError: It trains no adapter.
        ModelError: A file of the adapter is missing, or was cut off.
    """
    if config.training.method == "full":
        raise ConfigError(
            "'start' names an adapter, and 'training.method: full' trains none; remove one of them, or merge it first (models export --to merged)"
        )
    check_adapter(start)


def _silent(progress: Progress) -> None:
    """Only the first of several processes reports."""


def device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    torch = require("torch", extra="train", purpose="tuning")
    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_dtype(config: TrainerConfig) -> str:
    """The dtype of matrix products: the config's, or the faster one of this machine.

    On processors bfloat16 is faster with the tile instructions of AMX (1.6 times, bench/tune.py) and with the AVX512-BF16 of AMD since Zen 5
    (2.3 times), which AVX-VNNI beside it tells; with that of others it is not known, and with neither it is 40 times slower. What decides
    is the kind of machine and no measurement, so that all processes of a training and its resumption agree.
    """
    if config.dtype != "auto":
        return config.dtype
    torch = require("torch", extra="train", purpose="tuning")
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch do not tell
    wide = capabilities.get("avx512_bf16") and capabilities.get("avx_vnni")
    return "bfloat16" if capabilities.get("amx_bf16") or wide else "float32"


def trained_weights(model: Any) -> dict[str, Any]:
    """A copy of the parameters that training changes, by name; `load_state_dict` with `strict=False` puts them back."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def micro_batch(config: TrainerConfig, longest: int, processes: int = 1) -> int:
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
    on = device()
    tokens = _MICRO_TOKENS[on] * (2 if on == "cpu" and compute_dtype(config) == "bfloat16" else 1)  # half the bytes
    fits = max(1, tokens // longest)
    return max(m for m in range(1, share + 1) if share % m == 0 and m <= fits)


def _prepared(base: Base, objective: Objective, config: TrainerConfig, start: Path | None) -> tuple[Any, list[Evaluation]]:
    """The model with what will be trained, and the evaluations before: of the base, and of `start` where there is one.

    Where the loss compares with the state that training starts from, that state alone is evaluated: with `start` it is the base
    with this adapter, and not the bare base.
    """
    torch = require("torch", extra="train", purpose="tuning")
    torch.manual_seed(config.seed)
    method = config.training.method
    loaded = base.load("float32" if method == "full" else compute_dtype(config), _four_bits(config) if method == "qlora" else None)
    if method != "qlora":
        loaded.to(require("accelerate", extra="train", purpose="tuning").PartialState(cpu=device() == "cpu").device)
    evaluations = [] if objective.has_reference else [measure(objective, loaded, 0)]
    model = loaded if method == "full" else _adapted(loaded, config, start)
    objective.begin(model, f"{base.digest} {adapter_digest(start) if start else ''} {compute_dtype(config)} {method == 'qlora'}")
    if start or not evaluations:
        evaluations.append(measure(objective, model, 0))
    return model, evaluations


def _adapted(loaded: Any, config: TrainerConfig, start: Path | None) -> Any:
    peft = require("peft", extra="train", purpose="tuning")
    if config.training.method == "qlora":
        loaded = peft.prepare_model_for_kbit_training(loaded, use_gradient_checkpointing=False)
    if start:
        try:
            return peft.PeftModel.from_pretrained(loaded, start, is_trainable=True)
        except (RuntimeError, ValueError) as exc:  # weights of another shape, or for layers that are not there
            raise ModelError(
                f"adapter {start} does not fit the model, so it was tuned from another one; name that in 'model' ({shortened(one_line(str(exc)), 200)})"
            ) from exc
    lora = config.lora
    fresh = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(loaded, fresh)


def _four_bits(config: TrainerConfig) -> Any:
    torch = require("torch", extra="train", purpose="tuning")
    if not torch.cuda.is_available():
        raise ConfigError("training.method 'qlora' needs a CUDA GPU, and none is visible here; use 'lora'")
    require("bitsandbytes", extra="qlora", purpose="training.method 'qlora'")
    transformers = require("transformers", extra="train", purpose="tuning")
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=getattr(torch, compute_dtype(config))
    )


def _trainer(model: Any, base: Base, objective: Objective, config: TrainerConfig, folder: Path, callbacks: Sequence[Any]) -> Any:
    transformers = require("transformers", extra="train", purpose="tuning")
    further = [*_tensorboard(config, folder.parents[1]), *(callbacks if is_first() else ())]
    trainer = objective.trainer(model, base, _arguments(config, objective, folder), [transformers.EarlyStoppingCallback(config.patience), *further])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.objective = objective
    trainer.order = Bucketed(objective.lengths, config.batch_size, config.seed)
    return trainer


def _tensorboard(config: TrainerConfig, out: Path) -> list[Any]:
    """TensorBoard's callback, beside the checkpoints, which go."""
    for tracker in config.training.trackers:
        require(tracker, extra="trackers", purpose=f"training.trackers '{tracker}'")
    if "tensorboard" not in config.training.trackers or not is_first():
        return []
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return [TensorBoardCallback(SummaryWriter(str(out / "tensorboard")))]


def _arguments(config: TrainerConfig, objective: Objective, folder: Path) -> Any:
    made, given = objective.arguments()
    lengths = objective.lengths
    accelerate = require("accelerate", extra="train", purpose="tuning")
    training, on_gpu = config.training, device() == "cuda"
    processes = accelerate.PartialState(cpu=not on_gpu).num_processes
    micro = micro_batch(config, max(lengths), processes)
    steps_per_epoch = math.ceil(len(lengths) / config.batch_size)
    every = max(1, steps_per_epoch // config.evaluations_per_epoch)
    checkpointing = on_gpu if training.gradient_checkpointing == "auto" else training.gradient_checkpointing
    return made(
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
        **_padding(made, packed=training.batching == "packed", on_gpu=on_gpu),
        max_length=None,
        **given,
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


def _padding(arguments: Any, *, packed: bool, on_gpu: bool) -> dict[str, Any]:
    """How sequences of unlike length are brought together, in what the trainer's arguments know of it."""
    if packed:
        return {"padding_free": True}
    return {"pad_to_multiple_of": _PADDED_TO} if not on_gpu and "pad_to_multiple_of" in arguments.__dataclass_fields__ else {}


def _refuse_others(checkpoints: Path, folder: Path) -> None:
    if _last_whole(folder) is None and any(_last_whole(other) for other in checkpoints.glob("*")):
        raise RunDirectoryError(
            f"{checkpoints.parent} holds checkpoints of a training that has not ended, and of another config, other data or another kind of processor. "
            "Add --fresh to move it aside and train anew, or give the command with what it was begun with"
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


def _run_digest(base: Base, objective: Objective, config: TrainerConfig, start: Path | None) -> str:
    """Names a run by all that its result depends on, so that no other run's checkpoints are taken up."""
    settings = config.model_dump(mode="json", exclude={"out"})
    what = [base.digest, adapter_digest(start) if start else None, settings, compute_dtype(config), objective.content()]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
