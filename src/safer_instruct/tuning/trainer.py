"""What this package changes in TRL's trainers: the order, the held-out evaluation, and on processors the positions that are scored."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safer_instruct.extras import require
from safer_instruct.tuning.bases import Base
from safer_instruct.tuning.loss import Encoded, Evaluation, batches, losses_by_source, mean
from safer_instruct.tuning.objective import Objective, Sums, added
from safer_instruct.tuning.order import Bucketed
from safer_instruct.tuning.progress import as_metrics


class HeldOutEvaluation:
    """Stands before a trainer of TRL: `order` is that of training, and `objective` says what is measured on the held-out set."""

    objective: Objective
    order: Bucketed

    def _get_train_sampler(self, train_dataset: Any = None) -> Bucketed:
        return self.order

    def evaluate(self: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The exact held-out figures: `Trainer` would average the means of batches."""
        import torch

        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        work = self.objective.batches()
        rounds = -(-len(work) // ranks)
        mine = [work[(i * ranks + rank) % len(work)] for i in range(rounds)]  # a sharded model needs every rank in each forward pass
        real = rounds if (rounds - 1) * ranks + rank < len(work) else rounds - 1
        with self.compute_loss_context_manager():
            sums = self.objective.sums(self.model, mine[:real])
            self.objective.sums(self.model, mine[real:])
        if ranks > 1:
            everyone: list[Sums] = [{}] * ranks
            torch.distributed.all_gather_object(everyone, sums)
            sums = added(everyone)
        metrics = as_metrics(self.objective.mean(sums, self.state.global_step))
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def score_labelled_only(model: Any) -> None:
    """Give TRL's fused LM head no position whose label is ignored.

    The head (TRL 1.15 and later) leaves them out itself where Triton runs. Elsewhere it scores every position
    (`add_fused_lm_head`: `compact`), five times the work for a prompt of 150 tokens and a completion of 50. So the backbone hands over
    the states of the scored positions only, `shift_labels` tells the head that labels stand beside them, and what it gives is put
    back in its place.

    Args:
        model: A causal LM that TRL's trainer has given the head, or a PEFT model over one.
    """
    import torch

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    fused = causal.forward
    scored: list[Any] = []

    def select(module: Any, given: Any, output: Any) -> Any:
        if scored:
            output.last_hidden_state = output.last_hidden_state[scored[-1]][None]
        return output

    @functools.wraps(fused)
    def forward(*args: Any, fused_lm_head: bool = False, labels: Any = None, **given: Any) -> Any:
        if not fused_lm_head or labels is None:
            return fused(*args, fused_lm_head=fused_lm_head, labels=labels, **given)
        mask = labels[:, 1:] != -100
        scored.append(torch.nn.functional.pad(mask, (0, 1)))
        try:
            found = fused(*args, fused_lm_head=True, shift_labels=labels[:, 1:][mask][None], **given)
        finally:
            scored.pop()
        for name in ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"):
            if (values := getattr(found, name)) is not None:
                setattr(found, name, values.new_zeros(mask.shape).masked_scatter(mask, values[0]))
        found.label_mask = mask
        return found

    causal.base_model.register_forward_hook(select)
    causal.forward = forward


@dataclass(frozen=True, slots=True)
class Completions:
    """Supervised tuning: the loss is that of completions alone. An `Objective`.

    Attributes:
        train: Pairs to train on.
        held_out: Pairs for early stopping.
    """

    train: Sequence[Encoded]
    held_out: Sequence[Encoded]

    @property
    def lengths(self) -> Sequence[int]:
        """See `Objective`."""
        return [e.length for e in self.train]

    @property
    def has_reference(self) -> bool:
        """See `Objective`."""
        return False

    def content(self) -> object:
        """See `Objective.content`."""
        return [[asdict(e) for e in side] for side in (self.train, self.held_out)]

    def begin(self, model: Any, key: str) -> None:
        """Nothing is needed of the model."""

    def batches(self) -> Sequence[Any]:
        """See `Objective.batches`."""
        return batches(self.held_out)

    def sums(self, model: Any, batches: Sequence[Any]) -> Sums:
        """Source -> (sum of the losses in nats, completion tokens)."""
        return losses_by_source(model, batches)

    def mean(self, sums: Sums, step: int) -> Evaluation:
        """See `Objective.mean`."""
        return mean({source: (total, int(count)) for source, (total, count) in sums.items()}, step)

    def arguments(self) -> tuple[type[Any], dict[str, Any]]:
        """See `Objective.arguments`."""
        trl = require("trl", extra="train", purpose="tuning")
        return trl.SFTConfig, {"dataset_kwargs": {"skip_prepare_dataset": True}}  # token ids and labels are ready

    def trainer(self, model: Any, base: Base, arguments: Any, callbacks: Sequence[Any]) -> Any:
        """See `Objective.trainer`."""
        trl = require("trl", extra="train", purpose="tuning")
        datasets = require("datasets", extra="train", purpose="tuning")
        rows = [{"input_ids": [*e.prompt, *e.completion], "labels": [-100] * len(e.prompt) + list(e.completion)} for e in self.train]
        made = type("CompletionTrainer", (HeldOutEvaluation, trl.SFTTrainer), {})(
            model=model,
            args=arguments,
            train_dataset=datasets.Dataset.from_list(rows),
            eval_dataset=datasets.Dataset.from_list(rows[:1]),  # the evaluation has its own; the trainer insists on one
            processing_class=base.tokenizer,
            callbacks=list(callbacks),
        )
        if arguments.use_cpu:
            score_labelled_only(made.model)
        return made
