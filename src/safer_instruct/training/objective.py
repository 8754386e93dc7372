"""Learning from preference pairs, as `tuning.train` takes it: reference, held-out figures, and TRL's trainer for each loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safer_instruct.errors import ConfigError
from safer_instruct.settings.preference import REFERENCE_FREE, DpoConfig
from safer_instruct.training.data import EncodedPair
from safer_instruct.training.divergence import Divergence
from safer_instruct.training.losses import PairLogps, accuracies, pair_losses, rewards
from safer_instruct.training.reference import Note, reference_logps, sequence_logps
from safer_instruct.training.trainers import made_trainer, trl_classes
from safer_instruct.tuning.bases import Base
from safer_instruct.tuning.loss import Encoded, Evaluation
from safer_instruct.tuning.objective import Sums, added

Rows = list[dict[str, Any]]
_BATCH_TOKENS = 2048
_FIGURES = ("accuracy", "margin", "chosen_reward", "rejected_reward", "chosen_logp", "rejected_logp", "chosen_drift", "rejected_drift")


class Preferences:
    """Preference pairs and a loss over them. An `Objective`.

    The reference is the model as `begin` finds it: whatever adapter training starts from is part of it. Its log-probabilities are
    all that is kept of it, so no second model stands in memory.
    """

    def __init__(
        self,
        train: Sequence[EncodedPair],
        held_out: Sequence[EncodedPair],
        config: DpoConfig,
        cache: Path,
        note: Note = lambda done, of: None,
        *,
        end: int | None = None,
    ) -> None:
        """Learn from `train` and measure on `held_out`; log-probabilities under the reference are kept in `cache`.

        With `end`, the token with which a response ends, the KL divergence is measured too, unless every weight is trained: then there is
        no copy of the start to compare with.
        """
        self._train, self._held_out, self._config, self._cache, self._note = train, held_out, config, cache, note
        self._end = None if config.training.method == "full" else end
        self._divergence: Divergence | None = None
        self._reference: dict[str, list[float]] = {}  # chosen, rejected, of the training pairs; mismatched: for KTO's baseline
        self._held_reference: list[tuple[float, float]] = []

    @property
    def lengths(self) -> Sequence[int]:
        """See `Objective`; KTO's rows are single responses, all chosen ones first."""
        if self._config.loss == "kto":
            return [e.length for e in self._singles()]
        return [pair.length for pair in self._train]

    @property
    def has_reference(self) -> bool:
        """See `Objective`."""
        return True

    def content(self) -> object:
        """See `Objective.content`."""
        return [[asdict(pair) for pair in side] for side in (self._train, self._held_out)]

    def begin(self, model: Any, key: str) -> None:
        """Take the log-probabilities of every response under the model as it stands."""
        if self._end is not None and self._config.kl_prompts:
            self._divergence = Divergence(model, self._end)
        free = self._config.loss in REFERENCE_FREE
        train = [] if free else self._singles()
        mismatched = self._mismatched() if self._config.loss == "kto" else []
        held_out = [side for pair in self._held_out for side in pair.sides()]
        values = reference_logps(model, [*train, *mismatched, *held_out], key, self._cache, self._note)
        half = len(train) // 2
        self._reference = {"chosen": values[:half], "rejected": values[half : len(train)], "mismatched": values[len(train) : len(train) + len(mismatched)]}
        held = values[len(train) + len(mismatched) :]
        self._held_reference = list(zip(held[::2], held[1::2], strict=True))

    def batches(self) -> Sequence[Any]:
        """Numbers of held-out pairs, those of like length together."""
        found: list[list[int]] = []
        for number in sorted(range(len(self._held_out)), key=lambda n: (self._held_out[n].length, n)):
            if not found or (len(found[-1]) + 1) * self._held_out[number].length > _BATCH_TOKENS:
                found.append([])
            found[-1].append(number)
        return found

    def sums(self, model: Any, batches: Sequence[Any]) -> Sums:
        """Source -> (pairs, divergence, its tokens, loss, each of `_FIGURES`), summed over pairs."""
        import torch

        model.eval()
        with torch.no_grad():
            moved = self._moved(model, [n for numbers in batches for n in numbers if n < self._config.kl_prompts])
            return added(
                [
                    {self._held_out[number].source: (1.0, *moved.get(number, (0.0, 0)), *figures)}
                    for numbers in batches
                    for number, figures in zip(numbers, self._figures(model, numbers), strict=True)
                ]
            )

    def _moved(self, model: Any, numbers: Sequence[int]) -> dict[int, tuple[float, int]]:
        """Of these held-out pairs' prompts: the divergence of a response, and its tokens."""
        if self._divergence is None:
            return {}
        return dict(zip(numbers, self._divergence.of(model, [self._held_out[n].prompt for n in numbers]), strict=True))

    def _figures(self, model: Any, numbers: Sequence[int]) -> list[tuple[float, ...]]:
        import torch

        config, pairs = self._config, [self._held_out[n] for n in numbers]
        logps = sequence_logps(model, [side for pair in pairs for side in pair.sides()]).double().cpu()
        held = torch.tensor([self._held_reference[n] for n in numbers], dtype=torch.float64)
        tokens = torch.tensor([(len(p.chosen), len(p.rejected)) for p in pairs], dtype=torch.float64)
        policy = PairLogps(logps[::2], logps[1::2], tokens[:, 0], tokens[:, 1])
        start = PairLogps(held[:, 0], held[:, 1], tokens[:, 0], tokens[:, 1])
        reference = None if config.loss in REFERENCE_FREE else start
        loss = pair_losses(config.loss, policy, reference, beta=config.beta, label_smoothing=config.label_smoothing, gamma=config.gamma)
        chosen, rejected = rewards(policy, reference, config.beta)
        drifts = [(now - before) / n for now, before, n in ((policy.chosen, held[:, 0], tokens[:, 0]), (policy.rejected, held[:, 1], tokens[:, 1]))]
        columns = (loss, accuracies(chosen, rejected, config.beta), chosen - rejected, chosen, rejected, policy.chosen, policy.rejected, *drifts)
        return [tuple(row) for row in torch.stack(columns, dim=1).tolist()]

    def mean(self, sums: Sums, step: int) -> Evaluation:
        """The evaluation that sums over all batches give; a tie of rewards is half right."""
        total = [sum(column) for column in zip(*sums.values(), strict=True)]
        pairs, moved, tokens, loss, *others = total
        by_source = {source: values[3] / values[0] for source, values in sorted(sums.items())}
        figures = {name: value / pairs for name, value in zip(_FIGURES, others, strict=True)}
        return Evaluation(step, loss / pairs, by_source, figures | ({"kl": moved / tokens} if tokens else {}))

    def arguments(self) -> tuple[type[Any], dict[str, Any]]:
        """See `Objective.arguments`."""
        config = self._config
        if config.training.batching == "packed":
            raise ConfigError("training.batching 'packed': TRL trains on preference pairs with padding only; remove it")
        return trl_classes(config.loss)[0], _ARGUMENTS[config.loss](config)

    def trainer(self, model: Any, base: Base, arguments: Any, callbacks: Sequence[Any]) -> Any:
        """See `Objective.trainer`."""
        return made_trainer(self._config.loss, model, base, arguments, self.rows(), callbacks)

    def rows(self) -> Rows:
        """The training set in the columns that TRL's trainer makes of texts itself."""
        loss = self._config.loss
        if loss == "kto":
            return self._rows_of_singles()
        if loss in REFERENCE_FREE:
            return [_concatenated(pair) for pair in self._train]
        references = zip(self._reference["chosen"], self._reference["rejected"], strict=True)
        return [
            {"prompt_ids": list(p.prompt), "chosen_ids": list(p.chosen), "rejected_ids": list(p.rejected), "ref_chosen_logps": c, "ref_rejected_logps": r}
            for p, (c, r) in zip(self._train, references, strict=True)
        ]

    def _rows_of_singles(self) -> Rows:
        references = [*self._reference["chosen"], *self._reference["rejected"]]
        together = zip(self._singles(), self._mismatched(), references, self._reference["mismatched"], strict=True)
        count = len(self._train)
        return [
            {
                "prompt_ids": list(own.prompt),
                "completion_ids": list(own.completion),
                "KL_completion_ids": list(other.completion),
                "label": number < count,
                "ref_logps": logp,
                "ref_KL_logps": other_logp,
            }
            for number, (own, other, logp, other_logp) in enumerate(together)
        ]

    def _singles(self) -> list[Encoded]:
        sides = [pair.sides() for pair in self._train]
        return [side[0] for side in sides] + [side[1] for side in sides]

    def _mismatched(self) -> list[Encoded]:
        """Each prompt with the next prompt's response of the same kind."""
        count = len(self._train)
        found: list[Encoded] = []
        for kind in (0, 1):
            sides = [pair.sides()[kind] for pair in self._train]
            found += [Encoded(e.prompt, sides[(n + 1) % count].completion, e.source) for n, e in enumerate(sides)]
        return found


def _concatenated(pair: EncodedPair) -> dict[str, list[int]]:
    """The columns of TRL's ORPO and CPO trainers."""
    row = {"prompt_input_ids": list(pair.prompt), "prompt_attention_mask": [1] * len(pair.prompt)}
    for name, side in zip(("chosen", "rejected"), pair.sides(), strict=True):
        row[f"{name}_input_ids"] = [*side.prompt, *side.completion]
        row[f"{name}_attention_mask"] = [1] * side.length
        row[f"{name}_labels"] = [-100] * len(side.prompt) + list(side.completion)
    return row


def _with_reference(config: DpoConfig) -> dict[str, Any]:
    return {"loss_type": [config.loss], "beta": config.beta, "label_smoothing": config.label_smoothing, "precompute_ref_log_probs": True}


_ARGUMENTS: dict[str, Callable[[DpoConfig], dict[str, Any]]] = {
    **dict.fromkeys(("sigmoid", "ipo", "hinge", "robust"), _with_reference),
    "kto": lambda config: {"loss_type": "kto", "beta": config.beta, "precompute_ref_log_probs": True},
    "orpo": lambda config: {"beta": config.beta, "remove_unused_columns": False},
    "simpo": lambda config: {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": config.gamma, "beta": config.beta, "remove_unused_columns": False},
}
