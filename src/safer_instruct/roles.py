"""The models of a run by what they do: each opened once however many roles it has, with its price and the run's budget."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from safer_instruct.budget import Budget
from safer_instruct.config import ModelConfig, RunConfig
from safer_instruct.domain import Domain
from safer_instruct.errors import ConfigError
from safer_instruct.models import open_model
from safer_instruct.models.protocol import Model
from safer_instruct.prices import load_prices
from safer_instruct.stages.question import QuestionVerifier
from safer_instruct.stages.verify import ContrastVerifier, Verifier
from safer_instruct.templates import load_template


class Roles:
    """Who does what in a run; a role that the config has no use for is None."""

    def __init__(self, config: RunConfig, budget: Budget, batches: Path, stack: AsyncExitStack) -> None:
        """Open the models; `stack` closes them, and `batches` is the file of what is under way in batches.

        Raises:
            SaferInstructError: One cannot be opened.
        """
        opened: dict[tuple[ModelConfig, bool], Model] = {}
        prices = load_prices(config.base / config.prices if config.prices else None)

        def open_once(which: ModelConfig, *, want_logprobs: bool = False) -> Model:
            key = (which, want_logprobs)
            if key not in opened:
                opened[key] = open_model(which, config.base, want_logprobs=want_logprobs, prices=prices, budget=budget, batches=batches)
                stack.push_async_callback(opened[key].close)
            return opened[key]

        roles = config.models
        self.inducer = open_once(roles.inducer, want_logprobs=True)
        self.expert = open_once(roles.expert)
        scored, asked = bool(config.filter.consistency) or config.verify.form == "contrast", config.verify.form == "question"
        self.scorer = open_once(roles.scorer) if scored else None
        self.judge = open_once(roles.judge) if roles.judge and asked else None
        self._verifier_model = self.judge if asked else self.scorer
        self._filter_model = self.scorer if config.filter.consistency else None

    def by_role(self) -> dict[str, Model]:
        """Role -> model."""
        roles = {"inducer": self.inducer, "expert": self.expert, "scorer": self.scorer, "judge": self.judge}
        return {role: model for role, model in roles.items() if model is not None}

    def by_stage(self) -> dict[str, Model]:
        """Stage -> the model that its calls go to."""
        stages = {"induce": self.inducer, "filter": self._filter_model, "respond": self.expert, "verify": self._verifier_model}
        return {stage: model for stage, model in stages.items() if model is not None}

    def waits(self) -> list[str]:
        """What each of them waits for at this moment, in words to show; none while all flows."""
        return sorted({model.status for model in self.by_role().values()} - {""})

    def verifier(self, config: RunConfig, domain: Domain, recorded: Callable[[Model, str], Model]) -> Verifier:
        """Whoever judges the drafts, with its calls `recorded` as those of stage `verify`.

        Raises:
            ConfigError: The domain lacks what the form of verification needs.
        """
        if self.scorer and config.verify.form == "contrast":
            return ContrastVerifier(recorded(self.scorer, "verify"), load_template("contrast"), domain, config.verify)
        role = config.models.judge
        if self.judge is None or role is None:
            raise ConfigError("verify.form 'question' needs models.judge")
        judge, templates = recorded(self.judge, "verify"), (load_template("question"), load_template("pairwise"))
        return QuestionVerifier(judge, *templates, domain, config.verify, json_schema=role.json_schema)
