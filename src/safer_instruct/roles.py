"""The models of a run by what they do: each opened once however many roles it has, with its price and the run's budget."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from safer_instruct.budget import Budget
from safer_instruct.config import ModelConfig, RunConfig
from safer_instruct.domain import Direction, Domain
from safer_instruct.errors import ConfigError
from safer_instruct.models import open_model
from safer_instruct.models.protocol import Model
from safer_instruct.prices import load_prices
from safer_instruct.reverse import tuning_record
from safer_instruct.settings.answers import RefusalConfig
from safer_instruct.stages.also import AllOf, AlsoCheck, GroundedByGain, GroundedByJudge, RefusalAsWanted
from safer_instruct.stages.asking import Asker
from safer_instruct.stages.experts import Expert, Experts, expert_of
from safer_instruct.stages.panel import PanelVerifier
from safer_instruct.stages.programs import ProgramVerifier
from safer_instruct.stages.question import QuestionVerifier
from safer_instruct.stages.respond import expert_template
from safer_instruct.stages.revise import Critic, Reviser
from safer_instruct.stages.reward import RewardVerifier
from safer_instruct.stages.verify import ContrastVerifier, Verifier
from safer_instruct.stages.weighted import WeightedVerifier
from safer_instruct.templates import load_template

EXPERTS = "experts."  # before the name of one of several, in roles
TWIN_EXPERT = "twins.respond"  # part of the work; behind it the name of one of several


class Roles:
    """Who does what in a run; a role that the config has no use for is None."""

    def __init__(self, config: RunConfig, budget: Budget, batches: Path, stack: AsyncExitStack, direction: Direction = "rejected") -> None:
        """Open the models; `stack` closes them, and `batches` is the file of what is under way in batches.

        The domain's `direction` says whether an expert writes the chosen responses or a student the rejected ones.

        Raises:
            SaferInstructError: One cannot be opened.
        """
        opened: dict[tuple[ModelConfig, bool], Model] = {}
        prices = load_prices(config.base / config.prices if config.prices else None, config.file)

        def open_once(which: ModelConfig, *, want_logprobs: bool = False) -> Model:
            key = (which, want_logprobs)
            if key not in opened:
                opened[key] = open_model(which, config.base, want_logprobs=want_logprobs, prices=prices, budget=budget, batches=batches)
                stack.push_async_callback(opened[key].close)
            return opened[key]

        self.opened, roles = opened, config.models
        self.inducer = open_once(roles.inducer, want_logprobs=True) if roles.inducer and config.induce.given == "replace" else None
        writers = _writers(config, direction)
        for role, which in writers.items():
            _check_writer(role, which, config.base)
        self.writers = {name: open_once(which) for name, which in writers.items()}
        self.expert = max(self.writers.values(), key=lambda model: model.concurrency)
        grounded = next((check.by for check in config.verify.also if check.check == "grounded"), "")
        asked = config.verify.form == "question"
        scored = bool(config.filter.consistency) or config.verify.form == "contrast" or grounded == "scorer"
        self.scorer = open_once(roles.scorer) if scored else None
        self.judge = open_once(roles.judge) if roles.judge and (asked or grounded == "judge" or config.respond.critique) else None
        self.panel = {name: open_once(which) for name, which in (roles.panel or {}).items()} if asked else {}
        self.reward = open_once(roles.reward) if roles.reward and config.verify.form == "reward" else None
        _check_sides(config, direction)
        self.sides = {role: open_once(getattr(roles, role)) for role in sorted({*config.side_roles.values(), *_benign(config)})}
        self._rejected_writer = config.rejected.writer
        self._twins, self._benign = config.twins, _benign(config)
        self._verifier_model = (self.judge if asked else None) or self.reward or self.scorer or self.judge
        self._filter_model = self.scorer if config.filter.consistency else None

    def by_role(self) -> dict[str, Model]:
        """Role -> model."""
        roles = {"inducer": self.inducer, **self.writers, "scorer": self.scorer, "judge": self.judge, "reward": self.reward}
        roles |= {f"panel.{name}": model for name, model in self.panel.items()}
        roles |= {role: roles.get(role) or model for role, model in self.sides.items()}
        return {role: model for role, model in roles.items() if model is not None}

    def by_stage(self) -> dict[str, Model]:
        """Stage -> the model that its calls go to."""
        stages = {"induce": self.inducer, "filter": self._filter_model, "respond": self.expert, "verify": self._verifier_model}
        if self._rejected_writer:
            stages["rejected"] = self.by_role()[self._rejected_writer]
        return {stage: model for stage, model in stages.items() if model is not None}

    def priced(self, stage: str) -> bool:
        """Whether the price of everybody who works at that stage is known."""
        verifying = [self._verifier_model, *self.panel.values(), *([self.judge] if self.judge else [])]
        several: dict[str, list[Model | None]] = {"respond": [*self.writers.values()], "verify": verifying}
        models = several.get(stage, [self.by_stage().get(stage)])
        return all(model is None or model.priced for model in models)

    def experts(self, config: RunConfig, domain: Domain, recorded: Callable[[Model, str, str], Model]) -> Experts:
        """Those who write, with their calls `recorded` as those of stage `respond` and of one writer.

        Raises:
            ConfigError: A category has nobody, or a template is missing.
        """
        respond, several = config.respond, config.models.experts if domain.direction == "rejected" else None
        found = {}
        for name, model in self.writers.items():
            which = (several or {}).get(name.removeprefix(EXPERTS))
            template = expert_template((which and which.template) or respond.template, config.base)
            writer = recorded(model, "respond", name)
            found[name] = expert_of(name.removeprefix(EXPERTS), writer, which, template, respond) if which else Expert(name, writer, template, respond)
        return Experts({expert.name: expert for expert in found.values()}, domain, respond)

    def reviser(self, config: RunConfig, domain: Domain, experts: Experts, recorded: Callable[[Model, str], Model]) -> Reviser | None:
        """Whoever has drafts mended; None where nobody does.

        Raises:
            ConfigError: The student's drafts are the rejected ones, which nobody mends; or a template is missing.
        """
        if not config.respond.revise:
            return None
        if domain.direction == "chosen":
            raise ConfigError("respond.revise mends chosen responses, and in a domain of direction 'chosen' these are the source texts; leave it out")
        critic = Critic(recorded(self.judge, "verify"), load_template("critique"), domain) if self.judge and config.respond.critique else None
        return Reviser(experts, load_template(config.respond.revision, config.base, use="revise"), domain, config.respond, critic)

    def also(self, config: RunConfig, domain: Domain, recorded: Callable[[Model, str], Model]) -> list[AlsoCheck]:
        """The checks of `verify.also`, in their order."""
        checks: list[AlsoCheck] = []
        for which in config.verify.also:
            if isinstance(which, RefusalConfig):
                checks.append(RefusalAsWanted(domain, which))
            elif which.by == "scorer" and self.scorer:
                checks.append(GroundedByGain(recorded(self.scorer, "verify"), load_template("forward"), which))
            elif self.judge and config.models.judge:
                judge = config.models.judge
                asker = Asker(recorded(self.judge, "verify"), max_tokens=config.verify.max_tokens, json_schema=judge.json_schema, logprobs=judge.logprobs)
                checks.append(GroundedByJudge(asker, load_template("weighted"), config.verify.min_yes))
        return checks

    def by_part(self) -> dict[str, Model]:
        """Part of the work on twins -> the model that its calls go to; nothing where none are made."""
        if self._twins is None:
            return {}
        found = self.by_role()
        parts = {"twins.write": found[self._twins.model], "twins.refuse": found[self._twins.refuser]}
        several = {name.removeprefix(EXPERTS): model for name, model in self.writers.items() if name.startswith(EXPERTS)}
        parts |= {f"{TWIN_EXPERT}.{name}": model for name, model in several.items()} or {TWIN_EXPERT: found["expert"]}
        parts |= {"twins.judge" if role == "judge" else "twins.score": found[role] for role in self._benign}
        return parts | ({"twins.verify": self._verifier_model} if self._verifier_model else {})

    def waits(self) -> list[str]:
        """What each of them waits for at this moment, in words to show; none while all flows."""
        return sorted({model.status for model in self.by_role().values()} - {""})

    def verifier_of(self, config: RunConfig, domain: Domain, recorded: Callable[[Model, str], Model]) -> Verifier:
        """The run's whole verifier: the checks of `verify.also`, then programs, then whoever judges.

        Raises:
            ConfigError: The domain lacks what the form of verification needs.
        """
        judge = ProgramVerifier(domain, None if config.verify.form == "program" else self.verifier(config, domain, recorded))
        checks = self.also(config, domain, recorded)
        return AllOf(checks, judge) if checks else judge

    def verifier(self, config: RunConfig, domain: Domain, recorded: Callable[[Model, str], Model]) -> Verifier:
        """Whoever judges the drafts, with its calls `recorded` as those of stage `verify`.

        Raises:
            ConfigError: The domain lacks what the form of verification needs.
        """
        if self.scorer and config.verify.form == "contrast":
            return ContrastVerifier(recorded(self.scorer, "verify"), load_template("contrast"), domain, config.verify)
        if self.reward and config.verify.form == "reward":
            return RewardVerifier(recorded(self.reward, "verify"), config.verify)
        if self.judge is None or config.models.judge is None:
            raise ConfigError(f"verify.form '{config.verify.form}' needs models.{'reward' if config.verify.form == 'reward' else 'judge'}")
        judges = {"judge": (self.judge, config.models.judge)}
        judges |= {name: (model, (config.models.panel or {})[name]) for name, model in self.panel.items()}
        verifiers = {name: _asking(recorded(model, "verify"), which, config, domain) for name, (model, which) in judges.items()}
        return PanelVerifier(verifiers) if len(verifiers) > 1 else verifiers["judge"]


def _writers(config: RunConfig, direction: Direction) -> dict[str, ModelConfig]:
    """Role -> model of everybody who writes."""
    if direction == "rejected" and config.models.experts:
        return {f"{EXPERTS}{name}": which.bare for name, which in config.models.experts.items()}
    role, which = ("expert", config.models.expert) if direction == "rejected" else ("student", config.models.student)
    if which is None:
        raise ConfigError(f"the domain's direction is '{direction}', so models.{role} is needed, which writes the other side of the pairs")
    return {role: which}


def _check_writer(role: str, which: ModelConfig, base: Path) -> None:
    """That what writes responses was not tuned to write instructions.

    Raises:
        ConfigError: It was.
    """
    if (tuned := tuning_record(which, base)) and tuned.get("task") == "induce":
        who = f"adapter '{which.adapter}'" if which.adapter else f"model '{which.model}'"
        raise ConfigError(f"{who} was tuned to induce instructions, not to write responses; give models.{role} another, or none")


def _check_sides(config: RunConfig, direction: Direction) -> None:
    """Twins and other rejected responses make sense in a domain of that direction."""
    if direction == "chosen" and config.rejected.form != "source":
        raise ConfigError(f"rejected '{config.rejected.form}' is for domains of direction 'rejected'; here models.student writes the rejected side anyway")
    if direction == "chosen" and config.twins and config.models.experts:
        raise ConfigError("in a domain of direction 'chosen' twins are answered by one expert: give models.expert in place of models.experts")


def _benign(config: RunConfig) -> tuple[str, ...]:
    """The role that says which twins are harmless."""
    if config.twins is None:
        return ()
    judged = config.twins.benign == "judge" or (config.twins.benign == "auto" and config.models.judge is not None)
    return ("judge",) if judged else ("scorer",)


def _asking(judge: Model, which: ModelConfig, config: RunConfig, domain: Domain) -> Verifier:
    """One judge that is asked questions."""
    if config.verify.answers == "weighted":
        asker = Asker(judge, max_tokens=config.verify.max_tokens, json_schema=which.json_schema, logprobs=which.logprobs)
        return WeightedVerifier(asker, load_template("weighted"), load_template("prefer"), domain, config.verify)
    return QuestionVerifier(judge, load_template("question"), load_template("pairwise"), domain, config.verify, json_schema=which.json_schema)
