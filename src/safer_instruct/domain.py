"""A domain: what is undesirable, how an expert should answer instead, and how to tell the two apart.

A domain is a YAML file; no code is needed to add one. Its texts reach models only as values of the prompt templates.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from safer_instruct import yamlfile
from safer_instruct.errors import ConfigError
from safer_instruct.settings.review import ReviewConfig
from safer_instruct.yamlfile import Strict

Text = Annotated[str, Field(min_length=1)]


class ExamplePair(Strict):
    """A prompt with a response as the domain wants it and one as it does not.

    Shown to the model that verifies by guideline contrast; never part of a dataset.
    """

    prompt: Text
    chosen: Text
    rejected: Text


class Opposites(Strict):
    """Two opposite descriptions of a response.

    Attributes:
        good: Completes 'a response that is ...' for what the domain wants.
        bad: The opposite, as concrete and about as long.
    """

    good: Text
    bad: Text


class Contrast(Opposites):
    """Two opposite descriptions of a response, for verification by a model that scores.

    Attributes:
        also: The same in other words: the contrasts are averaged, which steadies them and costs two calls each.
    """

    also: tuple[Opposites, ...] = ()


class Scale(Strict):
    """A criterion that a judge answers from 1 to 5, for `verify: {form: question, answers: weighted}`.

    Attributes:
        question: What is asked of the response.
        low: What 1 stands for.
        high: What 5 stands for.
        least: Lowest expected point of an acceptable response.
    """

    question: Text
    low: Text = "not at all"
    high: Text = "entirely"
    least: Annotated[float, Field(ge=1, le=5)] = 3.5


class Category(Strict):
    """One kind of undesirable text.

    Attributes:
        definition: What belongs here.
        guideline: How the expert should answer, in this category.
        criteria: Yes-or-no questions about a response; all must be answered yes by a judge.
        scales: Questions answered from 1 to 5, for a judge whose probabilities are read.
        contrast: For verification by contrast; optional where a judge answers the criteria.
        examples: For verification by contrast: at most a handful of labelled pairs.
    """

    definition: Text
    guideline: Text
    criteria: tuple[Text, ...] = ()
    scales: tuple[Scale, ...] = ()
    contrast: Contrast | None = None
    examples: tuple[ExamplePair, ...] = ()

    @model_validator(mode="after")
    def _verifiable(self) -> Category:
        if not self.criteria and not self.scales and self.contrast is None:
            raise ValueError("give 'criteria' (for a judge) or 'contrast' (for a model that scores), or both")
        return self


class Domain(Strict):
    """A domain file.

    Attributes:
        name: Short name, as in a file name.
        description: One paragraph for the dataset card.
        expert: Who the expert is: the first line of its system prompt.
        misuse: What the finished dataset must not be used for, for the dataset card.
        categories: At least one, by name.
        review: What people are asked who read the pairs; no part of what decides the result, so a change of it makes no other run.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    description: Text
    expert: Text = "You are a helpful assistant."
    misuse: str = "The rejected responses are undesirable by construction: do not train a model to produce them."
    categories: Annotated[dict[str, Category], Field(min_length=1)]
    review: Annotated[ReviewConfig, Field(exclude=True)] = ReviewConfig()

    def category(self, name: str) -> Category:
        """The category `name`.

        Raises:
            ConfigError: The domain has no such category.
        """
        if name not in self.categories:
            raise ConfigError(f"domain '{self.name}' has no category '{name}'; it has: {', '.join(self.categories)}")
        return self.categories[name]


def load_domain(name: str, base: Path | None = None) -> Domain:
    """A domain by the name of a shipped one or by the path of a YAML file, relative to `base`.

    Raises:
        ConfigError: There is no such domain, or the file is not valid.
    """
    if name in shipped_domains():
        file = resources.files("safer_instruct") / "domains" / f"{name}.yaml"
        return yamlfile.parse(file.read_text(encoding="utf-8"), Domain, name=f"domains/{name}.yaml")
    path = (base or Path()) / name
    if not path.is_file():
        raise ConfigError(f"domain '{name}': neither a file at {path.absolute()} nor one of {', '.join(shipped_domains())}")
    return yamlfile.load(path, Domain)


def shipped_domains() -> tuple[str, ...]:
    """Names of the domains that come with the package."""
    folder = resources.files("safer_instruct") / "domains"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))
