"""Who takes part in a run's twins, put together from its config."""

from __future__ import annotations

from collections.abc import Callable

from safer_instruct.config import ModelConfig, RunConfig
from safer_instruct.domain import Domain
from safer_instruct.filters.registry import Filters
from safer_instruct.models.protocol import Model
from safer_instruct.roles import EXPERTS, TWIN_EXPERT, Roles
from safer_instruct.settings.sides import TwinsConfig
from safer_instruct.stages.asking import Asker
from safer_instruct.stages.respond import expert_template, respond
from safer_instruct.stages.verify import Write
from safer_instruct.templates import Template, load_template
from safer_instruct.twins.gates import Benign, Gates, JudgedBenign, LookUp, ScoredBenign
from safer_instruct.twins.helping import HelpfulVerifier
from safer_instruct.twins.making import TwinMaker
from safer_instruct.twins.refusing import Refuser
from safer_instruct.twins.writing import TwinWriter

Record = Callable[[Model, str], Model]
"""A model and the part of the work that its calls are made for -> the same, with its calls in the ledger."""


def open_twins(config: RunConfig, domain: Domain, filters: Filters, roles: Roles, record: Record, look_up: LookUp) -> TwinMaker:
    """Everybody who takes part in a twin.

    Args:
        config: With a section `twins`.
        domain: The run's; its guideline is the expert's, whatever its direction.
        filters: The run's.
        roles: Holds the models.
        record: Has their calls in the ledger, under the names of `Roles.by_part`.
        look_up: Whether an instruction is new to the set.

    Raises:
        ConfigError: There is no such template, or the domain lacks what the verifier needs.
    """
    asked = config.twins
    assert asked is not None  # noqa: S101 - whoever makes no twins does not come here
    models = {part: record(model, part) for part, model in roles.by_part().items()}
    helped_by = domain.model_copy(update={"direction": "rejected"})
    judged = roles.verifier_of(config, helped_by, lambda model, _: record(model, "twins.verify"))
    templates = {name: load_template(path, config.base, use=name if name in ("twin", "refuse") else None) for name, path in twin_templates(asked).items()}
    return TwinMaker(
        TwinWriter(models["twins.write"], templates["twin"], domain, asked, config.seed, _knows_its_template(config, asked)),
        Gates(asked.min_similarity, filters.prompt, look_up, _benign(config, domain, models, templates)),
        Refuser(models["twins.refuse"], templates["refuse"], asked, config.seed),
        _expert(config, helped_by, roles, models),
        HelpfulVerifier(judged),
        filters.pair,
        config.verify.model_copy(update={"rounds": asked.rounds}),
    )


def _expert(config: RunConfig, domain: Domain, roles: Roles, models: dict[str, Model]) -> Write:
    """One round of responses: by the run's expert, or by those of several whose turn it is."""
    if config.models.experts:
        experts = roles.experts(config, domain, lambda _model, _stage, name: models[f"{TWIN_EXPERT}.{name.removeprefix(EXPERTS)}"])
        return lambda example, attempt: experts.write(example, attempt, seed=config.seed)
    system = expert_template(config.respond.template, config.base)
    return lambda example, attempt: respond(example, models[TWIN_EXPERT], system, domain, config.respond, seed=config.seed, attempt=attempt)


def twin_templates(config: TwinsConfig) -> dict[str, str]:
    """What each template is used for -> its name or path."""
    return {"twin": config.asked_with, "refuse": config.refusal_template, "twin-benign": "twin-benign", "twin-contrast": "twin-contrast"}


def _knows_its_template(config: RunConfig, asked: TwinsConfig) -> bool:
    writer: ModelConfig = getattr(config.models, asked.model)
    return writer.model.startswith(("embedded:", "scripted:"))


def _benign(config: RunConfig, domain: Domain, models: dict[str, Model], templates: dict[str, Template]) -> Benign:
    asked, judge = config.twins, config.models.judge
    least = asked.min_benign if asked else None
    if "twins.judge" in models and judge is not None:
        asker = Asker(models["twins.judge"], max_tokens=config.verify.max_tokens, json_schema=judge.json_schema, logprobs=judge.logprobs)
        return JudgedBenign(asker, templates["twin-benign"], domain, least)
    return ScoredBenign(models["twins.score"], templates["twin-contrast"], domain, least)
