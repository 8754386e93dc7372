"""What reversed instruction tuning changes in TRL's `SFTTrainer`: the order, the positions that are scored, the held-out loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safer_instruct.extras import require
from safer_instruct.tuning.loss import Encoded, batches, losses_by_source, mean
from safer_instruct.tuning.order import Bucketed


class CompletionTraining:
    """Stands before `SFTTrainer` in the class that `completion_trainer` makes."""

    held_out: Sequence[Encoded] = ()
    order: Bucketed
    _selects = False
    _scored: Any = None  # positions of the micro-batch whose next token has a label

    def _get_train_sampler(self, train_dataset: Any = None) -> Bucketed:
        return self.order

    def score_completions_only(self: Any) -> None:
        """Give the LM head no position whose label is ignored.

        TRL's fused head (1.15 and later) does so itself where Triton runs. Elsewhere it scores every position
        (`add_fused_lm_head`: `compact`), five times the work for a prompt of 150 tokens and a completion of 50. So the backbone
        hands over the states of the scored positions only, and `shift_labels` tells the head that labels stand beside them.
        """

        def select(module: Any, given: Any, output: Any) -> Any:
            if self._scored is not None:
                output.last_hidden_state = output.last_hidden_state[self._scored][None]
            return output

        causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        causal.base_model.register_forward_hook(select)
        self._selects = True

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **given: Any) -> Any:
        """As TRL's; see `score_completions_only`."""
        import torch

        if not self._selects:
            return super().compute_loss(model, inputs, *args, **given)  # type: ignore[misc]
        targets = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=-100)
        self._scored = targets != -100
        try:
            return super().compute_loss(model, inputs | {"shift_labels": targets[self._scored][None]}, *args, **given)  # type: ignore[misc]
        finally:
            self._scored = None

    def evaluate(self: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The exact held-out loss per token: `Trainer` would average the means of batches."""
        import torch

        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        work = batches(self.held_out)
        rounds = -(-len(work) // ranks)
        mine = [work[(i * ranks + rank) % len(work)] for i in range(rounds)]  # a sharded model needs every rank in each forward pass
        real = rounds if (rounds - 1) * ranks + rank < len(work) else rounds - 1
        with self.compute_loss_context_manager():
            sums = losses_by_source(self.model, mine[:real])
            losses_by_source(self.model, mine[real:])
        if ranks > 1:
            everyone: list[dict[str, tuple[float, int]]] = [{}] * ranks
            torch.distributed.all_gather_object(everyone, sums)
            sums = _added(everyone)
        evaluation = mean(sums, self.state.global_step)
        metrics = {"eval_loss": evaluation.loss} | {f"eval_loss_{source}": loss for source, loss in evaluation.by_source.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def completion_trainer() -> type[Any]:
    """`CompletionTraining` over TRL's `SFTTrainer`.

    Raises:
        MissingExtraError: TRL is not installed.
    """
    trl = require("trl", extra="train", purpose="tuning")
    return type("CompletionTrainer", (CompletionTraining, trl.SFTTrainer), {})


def _added(parts: Sequence[dict[str, tuple[float, int]]]) -> dict[str, tuple[float, int]]:
    sums: dict[str, tuple[float, int]] = {}
    for part in parts:
        for source, (total, count) in part.items():
            before = sums.get(source, (0.0, 0))
            sums[source] = (before[0] + total, before[1] + count)
    return sums
