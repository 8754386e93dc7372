"""What a new domain file and a new config say where somebody is to write: the words themselves, and whether they still stand there."""

from __future__ import annotations

from collections.abc import Mapping

from safer_instruct.domain import Domain

DESCRIPTION = "One paragraph for the dataset card. What are these texts, and what does the chosen side do better?"
DEFINITION = "What belongs here, and what does not."
GUIDELINE = "How a good answer is: what it does, what it must not do, how long it is."
MODEL = "YOUR-MODEL"


def unfilled(domain: Domain) -> list[str]:
    """Keys of a domain where nobody has written yet."""
    texts = {"description": (domain.description, DESCRIPTION)}
    for name, category in domain.categories.items():
        texts[f"categories.{name}.definition"] = category.definition, DEFINITION
        texts[f"categories.{name}.guideline"] = category.guideline, GUIDELINE
    return [key for key, (said, placeholder) in texts.items() if said.strip() == placeholder]


def still_to_fill_in(keys: list[str]) -> str:
    """What is wrong with a domain of which `keys` are `unfilled`, and what to do."""
    return f"not filled in yet: {', '.join(keys)}; write what holds for your texts, for models are told it, and the dataset card tells it"


def unnamed(models: Mapping[str, str]) -> list[str]:
    """Roles whose model nobody has named yet, of role -> model string."""
    return [role for role, model in models.items() if model.partition(":")[2] == MODEL]


def still_to_name(key: str, model: str) -> str:
    """What is wrong with a model that is `unnamed`, and what to do; `key` is where it stands."""
    return f"'{key}': {model} is not filled in yet; write the name that your endpoint knows its model by in place of {MODEL}, and its address as base_url"
