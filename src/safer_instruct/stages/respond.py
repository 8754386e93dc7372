"""Response generation: the expert answers the instruction as the domain's guideline asks."""

from __future__ import annotations

from pathlib import Path

from safer_instruct.config import RespondConfig
from safer_instruct.domain import Category, Domain
from safer_instruct.example import Draft, Example
from safer_instruct.models.protocol import Generation, Model, Sampling, Turn
from safer_instruct.seeds import derive_seed
from safer_instruct.stages.withheld import content_filter
from safer_instruct.templates import Template, load_template


def expert_template(name: str, base: Path) -> Template:
    """A template of the expert's system prompt, which is given the domain and the category.

    Args:
        name: A shipped one, or a path.
        base: What paths are relative to.

    Raises:
        ConfigError: There is no such template, or it asks for what it is not given.
    """
    template = load_template(name, base, use="respond")
    template.check_parts({"domain": (*Domain.model_fields, "category", "programs"), "category": tuple(Category.model_fields)})
    return template


async def respond(
    example: Example, model: Model, template: Template, domain: Domain, config: RespondConfig, *, seed: int, attempt: int, expert: str = ""
) -> list[Draft]:
    """Draw one round of responses to `example.prompt`, which comes after `example.history`.

    Args:
        example: An example with a prompt.
        model: An instruction-following model; in a domain of direction `chosen` the student.
        template: From `expert_template`; where it renders nothing there is none.
        domain: Holds the guideline.
        config: How many drafts, and how they are drawn.
        seed: The run's seed.
        attempt: 0 for the first round.
        expert: The model's name in the drafts.

    Returns:
        Distinct drafts, likeliest first; where all of them were withheld, an empty one with that verdict.

    Raises:
        ModelError: The expert failed after its retries.
    """
    system = template.render(domain=domain, category=domain.category(example.category)).strip()
    sampling = Sampling(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        repetition_penalty=config.repetition_penalty,
        n=config.drafts,
    )
    turns = (*([Turn("system", system)] if system else []), *example.history, Turn("user", example.prompt))
    answer = await model.generate(Generation(turns, sampling, derive_seed(seed, "respond", example.prompt, attempt)))
    if answer.withheld:
        return [Draft("", attempt, verdicts=(content_filter("respond", answer.withheld),), expert=expert)]
    return [Draft(c.text, attempt, c.logprob, c.finished, expert=expert) for c in answer.ranked()]
