"""Who writes: one expert, or several by weight, by category, or all of them with the verifier as the judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safer_instruct.config import ExpertConfig, RespondConfig, RunConfig
from safer_instruct.domain import Domain
from safer_instruct.errors import ConfigError
from safer_instruct.example import Draft, Example
from safer_instruct.models.protocol import Model
from safer_instruct.models.together import together
from safer_instruct.seeds import derive_seed
from safer_instruct.stages.respond import respond
from safer_instruct.templates import Template

_SEEDS = 1 << 31  # of `derive_seed`


@dataclass(frozen=True, slots=True)
class Expert:
    """One who writes.

    Attributes:
        name: As in drafts.
        model: Whom to ask.
        template: Renders the system prompt.
        config: How its responses are drawn.
        weight: Its share of the prompts.
        categories: Those that it writes for; None for all.
        alone: Whether it has no other beside it: then its draws are those of a run with one expert.
    """

    name: str
    model: Model
    template: Template
    config: RespondConfig
    weight: float = 1.0
    categories: tuple[str, ...] | None = None
    alone: bool = True

    async def write(self, example: Example, domain: Domain, *, seed: int, attempt: int, warmer: float = 0.0) -> list[Draft]:
        """One round of drafts; see `respond`.

        Args:
            example: An example with a prompt.
            domain: Holds the guideline.
            seed: The run's seed.
            attempt: 0 for the first round.
            warmer: Added to the temperature.
        """
        config = self.config.model_copy(update={"temperature": round(self.config.temperature + warmer, 6)}) if warmer else self.config
        own = seed if self.alone else derive_seed(seed, "expert", self.name)
        return await respond(example, self.model, self.template, domain, config, seed=own, attempt=attempt, expert=self.name)


class Experts:
    """Those who write, and who of them answers what."""

    def __init__(self, experts: Mapping[str, Expert], domain: Domain, config: RespondConfig) -> None:
        """Check that somebody writes for every category.

        Raises:
            ConfigError: Nobody does, or an expert names a category that the domain does not have.
        """
        self._experts, self._domain, self._choose = dict(experts), domain, config.choose
        for expert in self._experts.values():
            for name in expert.categories or ():
                if name not in domain.categories:
                    raise ConfigError(f"models.experts.{expert.name}: domain '{domain.name}' has no category '{name}'; it has: {', '.join(domain.categories)}")
        for name in domain.categories:
            if not self._of(name):
                raise ConfigError(
                    f"models.experts: nobody writes for category '{name}'; give it to one of {', '.join(self._experts)}, or leave out 'categories'"
                )

    async def write(self, example: Example, attempt: int, *, seed: int, warmer: float = 0.0) -> list[Draft]:
        """One round of drafts by those whose turn it is, side by side.

        Raises:
            ModelError: One of them failed after its retries.
        """
        chosen = self.turn(example, attempt, seed)
        rounds = await together(expert.write(example, self._domain, seed=seed, attempt=attempt, warmer=warmer) for expert in chosen)
        return [draft for drafts in rounds for draft in drafts]

    def turn(self, example: Example, attempt: int, seed: int) -> tuple[Expert, ...]:
        """Who writes in this round; it depends on the example and the round alone, not on the order of the experts in the config.

        Of drafts with equal margins the first is taken, so those who all write come in an order that is drawn for each example.
        """
        able = self._of(example.category)
        if self._choose == "best" or len(able) == 1:
            return tuple(sorted(able, key=lambda expert: derive_seed(seed, "order", example.id, expert.name)))
        point = derive_seed(seed, "turn", example.prompt, attempt) / _SEEDS * sum(expert.weight for expert in able)
        for expert in able:
            point -= expert.weight
            if point < 0:
                return (expert,)
        return (able[-1],)

    def named(self, name: str) -> Expert:
        """The expert of that name."""
        return self._experts[name]

    def _of(self, category: str) -> tuple[Expert, ...]:
        able = (expert for expert in self._experts.values() if expert.categories is None or category in expert.categories)
        return tuple(sorted(able, key=lambda expert: expert.name))


def expert_of(name: str, model: Model, which: ExpertConfig, template: Template, config: RespondConfig) -> Expert:
    """One of several, with its own temperature and length where it has them."""
    own = {key: value for key in ("temperature", "max_tokens") if (value := getattr(which, key)) is not None}
    return Expert(name, model, template, config.model_copy(update=own), which.weight, which.categories, alone=False)


def choice_note(config: RunConfig) -> str:
    """What to know of `respond.choose: best` where the margins of all accepted drafts are equal; empty where they can differ."""
    if not config.models.experts or config.respond.choose != "best" or not (config.verify.form == "program" or one_writes(config)):
        return ""
    why = "programs give no margin" if config.verify.form == "program" else "a judge that writes gives every draft that it accepts the same margin"
    return (
        f"respond.choose 'best' was a draw among the accepted drafts, since {why}; verify.answers 'weighted', form 'reward' and form 'contrast' tell them apart"
    )


def one_writes(config: RunConfig) -> bool:
    """Whether one judge writes its answers: then the margin of every accepted draft is 1."""
    return config.verify.form == "question" and config.verify.answers == "written" and not config.models.panel
