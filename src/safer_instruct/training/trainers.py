"""TRL's trainers of preferences, given token ids that are ready and log-probabilities of the reference that are known."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

from safer_instruct.errors import ConfigError
from safer_instruct.extras import require
from safer_instruct.settings.preference import REFERENCE_FREE, Loss
from safer_instruct.tuning.bases import Base
from safer_instruct.tuning.trainer import HeldOutEvaluation, score_labelled_only

_WHERE = {"kto": ("trl", "KTO"), "orpo": ("trl.experimental.orpo", "ORPO"), "simpo": ("trl.experimental.cpo", "CPO")}


class ReadyRows:
    """Stands before a trainer of TRL: the rows are what it would make of texts itself, so it has nothing to prepare."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def tokenize_row(self, row: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        """ORPO's and CPO's name for it."""
        return row


def trl_classes(loss: Loss) -> tuple[type[Any], type[Any]]:
    """TRL's classes of arguments and of the trainer for `loss`.

    Raises:
        ConfigError: The installed TRL has none.
        MissingExtraError: TRL is not installed.
    """
    trl = require("trl", extra="train", purpose="training on preferences")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # that what stands there may change is said in docs/train.md
    module, stem = _WHERE.get(loss, ("trl", "DPO"))
    try:
        found = importlib.import_module(module)
        return getattr(found, f"{stem}Config"), getattr(found, f"{stem}Trainer")
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"loss '{loss}': TRL {trl.__version__} has no {module}.{stem}Trainer ({exc}); take another loss, or TRL 1.16, which has it") from exc


def made_trainer(loss: Loss, model: Any, base: Base, arguments: Any, rows: Sequence[dict[str, Any]], callbacks: Sequence[Any]) -> Any:
    """The trainer for `loss` over `rows`.

    Raises:
        ConfigError: The installed TRL has none.
        MissingExtraError: TRL or datasets is not installed.
    """
    datasets = require("datasets", extra="train", purpose="training on preferences")
    _, trainer = trl_classes(loss)
    data = datasets.Dataset.from_list(list(rows))
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        made = type("PreferenceTrainer", (ReadyRows, HeldOutEvaluation, trainer), {})(
            model=model,
            args=arguments,
            train_dataset=data,
            eval_dataset=data.select([0]),  # the evaluation has its own; transformers insists on one
            processing_class=base.tokenizer,
            callbacks=list(callbacks),
        )
    finally:
        if shown:
            datasets.enable_progress_bars()
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")  # TRL's copy of the adapter that training starts from; what it would be asked for is known
    if arguments.use_cpu and loss not in REFERENCE_FREE:  # ORPO's and CPO's trainers build the logits of every position
        score_labelled_only(model)
    return made
