"""A domain: what is undesirable (or wanted), how an expert should answer, and how to tell the two apart.

A domain is a YAML file; no code is needed to add one. Its texts reach models only as values of the prompt templates.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from safer_instruct import yamlfile
from safer_instruct.detect.language import check_languages
from safer_instruct.errors import ConfigError
from safer_instruct.nearest import did_you_mean
from safer_instruct.settings.review import ReviewConfig
from safer_instruct.settings.route import Keyword
from safer_instruct.visible import hides, visible
from safer_instruct.yamlfile import Strict

Text = Annotated[str, Field(min_length=1)]
Direction = Literal["rejected", "chosen"]
Refusals = Literal["never", "allowed", "expected"]


class ExamplePair(Strict):
    """A prompt with a response as the domain wants it and one as it does not.

    Shown to the model that verifies by guideline contrast and to an inducer that is prompted, and what `source.route` by embedding knows of a
    category; never part of a dataset.

    Attributes:
        prompt: What somebody asks.
        chosen: An answer as the domain wants it.
        rejected: An answer to the same as it does not, and unlike the other in nothing else.
    """

    prompt: Text
    chosen: Text
    rejected: Text

    @model_validator(mode="after")
    def _shows_a_difference(self) -> ExamplePair:
        if self.chosen.split() == self.rejected.split():
            raise ValueError("'chosen' and 'rejected' say the same, so the example shows nothing; let them differ, or leave it out")
        return self


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

    @model_validator(mode="after")
    def _are_opposites(self) -> Contrast:
        if any(one.good.strip() == one.bad.strip() for one in (self, *self.also)):
            raise ValueError("'good' and 'bad' say the same, so nothing tells them apart; describe two opposites")
        return self


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


class Program(Strict):
    """A program that verifies a response: exit code 0 passes, what it says otherwise is the reason. It runs in a sandbox.

    Attributes:
        name: Its verdict is `verify.program.NAME`; by default the name of the command or function.
        command: The program and its arguments. `{file}` is a file with what is verified (which also comes on standard input),
            `{prompt}` one with the instruction, `{messages}` one with the conversation that ends in it, as JSON, `{folder}` the
            folder of the domain file, `{python}` this Python.
        python: Instead: MODULE:FUNCTION or FILE.py:FUNCTION, called with response and prompt; see `sandbox/call.py`.
        reads: `text` verifies the response as it is, `code` what stands in its fenced code blocks, if it has any.
        suffix: Ending of `{file}`.
        rejected_fails: The rejected text must not pass: otherwise the pair would say nothing, and the example is dropped.
        timeout_s: Longest run.
        memory_mb: Address space of each of its processes.
        output_kb: What it may write to standard output and error.
        folder: What `{folder}` and FILE.py are relative to; by default the folder of the file that this stands in.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = ""
    command: tuple[Text, ...] = ()
    python: Annotated[str, Field(pattern=r"^[\w./-]+:[A-Za-z_]\w*$")] | None = None
    reads: Literal["text", "code"] = "text"
    suffix: Annotated[str, Field(pattern=r"^\.[A-Za-z0-9]{1,8}$")] = ".txt"
    rejected_fails: bool = False
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    memory_mb: Annotated[int, Field(ge=32)] = 512
    output_kb: Annotated[int, Field(gt=0)] = 1_024
    folder: Annotated[Path, Field(exclude=True)] = Path()

    @model_validator(mode="after")
    def _one_way_to_run(self) -> Program:
        if bool(self.command) == (self.python is not None):
            raise ValueError("give either 'command' or 'python'")
        return self

    @property
    def title(self) -> str:
        """What its verdict is named after."""
        if self.name:
            return self.name
        return self.python.rpartition(":")[2].lower() if self.python else Path(self.command[0]).stem.strip("{}").lower()


class Category(Strict):
    """One kind of text.

    Attributes:
        definition: What belongs here, and what does not.
        guideline: How the expert should answer, in this category.
        refuse: When a good answer declines, and what.
        help: How it helps safely where it declines, or instead of declining.
        refusals: What `verify: {also: [refusal]}` asks of a response: that it helps, at least with a part (`never`), that it declines, at
            least a part (`expected`), or nothing (`allowed`).
        criteria: Yes-or-no questions about a response; all must be answered yes by a judge.
        scales: Questions answered from 1 to 5, for a judge whose probabilities are read.
        contrast: For verification by contrast; optional where a judge answers the criteria.
        verifiers: Programs that a chosen response must pass, after those of the domain.
        examples: A handful of labelled pairs at most: for verification by contrast, for an inducer with `induce.examples: domain`, and for
            `source.route` by embedding.
        keywords: For `source.route` by keywords: words and phrases of its texts, `invest*` for all that begin so. What a run depends on
            of them stands in its `route_sha256`.
    """

    definition: Text
    guideline: Text
    refuse: str = ""
    help: str = ""
    refusals: Refusals = "allowed"
    criteria: tuple[Text, ...] = ()
    scales: tuple[Scale, ...] = ()
    contrast: Contrast | None = None
    verifiers: tuple[Program, ...] = ()
    examples: tuple[ExamplePair, ...] = ()
    keywords: Annotated[tuple[Keyword, ...], Field(exclude=True)] = ()

    @field_validator("criteria")
    @classmethod
    def _each_once(cls, criteria: tuple[str, ...]) -> tuple[str, ...]:
        asked = [" ".join(question.split()).casefold() for question in criteria]
        if twice := next((question for number, question in enumerate(criteria) if asked[number] in asked[:number]), None):
            raise ValueError(f"'{visible(twice)}' stands twice, and a judge would be asked it twice; keep one")
        return criteria


class Domain(Strict):
    """A domain file.

    Attributes:
        name: Short name, as in a file name.
        extends: A shipped domain or a file beside this one. What this file leaves out comes from there; of a category that
            both have, too; a category that is null here is left out. None once that is done.
        description: One paragraph for the dataset card.
        direction: `rejected`: the corpus is what we do not want, and an expert writes the chosen responses. `chosen`: the
            corpus is what we want, and a weaker model (`models.student`) writes the rejected responses.
        languages: ISO 639-1 codes of the instructions to keep; empty: any. `filter.prompt.language` of a config wins.
        expert: Who the expert is: the first line of its system prompt.
        student: System prompt of the model that writes the rejected responses, in direction `chosen`; empty: it gets none.
        misuse: What the finished dataset must not be used for, for the dataset card.
        verifiers: Programs that every chosen response must pass.
        categories: At least one, by name.
        review: What people are asked who read the pairs; no part of what decides the result, so a change of it makes no other run.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    extends: Text | None = Field(None, exclude=True)
    description: Text
    direction: Direction = "rejected"
    languages: tuple[str, ...] = ("en",)
    expert: Text = "You are a helpful assistant."
    student: str = ""
    misuse: str = "The rejected responses are undesirable by construction: do not train a model to produce them."
    verifiers: tuple[Program, ...] = ()
    categories: Annotated[dict[str, Category], Field(min_length=1)]
    review: Annotated[ReviewConfig, Field(exclude=True)] = ReviewConfig()

    @model_validator(mode="after")
    def _programs_have_names_of_their_own(self) -> Domain:
        for name in self.categories:
            titles = [program.title for program in self.programs(name)]
            if doubled := sorted({title for title in titles if titles.count(title) > 1}):
                raise ValueError(f"several verifiers of category '{name}' are called '{doubled[0]}'; give each a 'name' of its own")
        return self

    @field_validator("languages")
    @classmethod
    def _codes(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        check_languages(languages)
        return languages

    @field_validator("categories")
    @classmethod
    def _verifiable(cls, categories: dict[str, Category], info: Any) -> dict[str, Category]:
        for name, category in categories.items():
            if any(hides(c) or c in "\n\t" for c in name):
                shown = visible(" ".join(name.split()))
                raise ValueError(f"'{shown}' cannot name a category; use letters, digits, blanks, '-' and '_', and no control characters")
            if not (category.criteria or category.scales or category.contrast or category.verifiers or info.data.get("verifiers")):
                lacks = "give 'criteria' (for a judge) or 'contrast' (for a model that scores), or both, or 'verifiers' (programs)"
                raise ValueError(f"category '{name}': {lacks}")
        return categories

    def category(self, name: str) -> Category:
        """The category `name`.

        Raises:
            ConfigError: The domain has no such category.
        """
        if name not in self.categories:
            raise ConfigError(f"domain '{self.name}' has no category '{name}'; it has: {', '.join(self.categories)}")
        return self.categories[name]

    def programs(self, category: str) -> tuple[Program, ...]:
        """The programs that a chosen response of this category must pass, those of the whole domain first."""
        return (*self.verifiers, *self.category(category).verifiers)


def load_domain(name: str, base: Path | None = None) -> Domain:
    """A domain by the name of a shipped one or by the path of a YAML file, relative to `base`.

    Raises:
        ConfigError: There is no such domain, the file is not valid, or it extends itself.
    """
    return _load(name, base or Path(), ())[0]


def shipped_domains() -> tuple[str, ...]:
    """Names of the domains that come with the package."""
    return tuple(sorted(f.name.removesuffix(".yaml") for f in _shipped_folder().iterdir() if f.name.endswith(".yaml")))


def _shipped_folder() -> Path:
    return Path(str(resources.files("safer_instruct") / "domains"))


def _load(name: str, base: Path, extended_by: tuple[Path, ...], named_at: str = "") -> tuple[Domain, dict[str, Any]]:
    """The domain, and as plain data all that its file and those that it extends say; `named_at` is where its name stands."""
    path, label = _find(name, base, named_at)
    if path in extended_by:
        circle = " -> ".join(file.name for file in (*extended_by[extended_by.index(path) :], path))
        raise ConfigError(f"{extended_by[-1]}: 'extends' goes round in a circle: {circle}")
    data = _with_folders(yamlfile.read(path, name=label), path.parent)
    if isinstance(parent := data.get("extends"), str) and parent:
        data = _merged(_load(parent, path.parent, (*extended_by, path), f"{yamlfile.located(('extends',), path)}: 'extends': ")[1], data)
        del data["extends"]
    return yamlfile.parse_part(data, Domain, at=(), file=path, name=label), data


def _find(name: str, base: Path, named_at: str) -> tuple[Path, str]:
    """The file of a domain, and what messages call it."""
    if name in shipped_domains():
        return _shipped_folder() / f"{name}.yaml", f"domains/{name}.yaml"
    path = base / name
    if not path.is_file():
        own = path.parent / f"{path.name.removesuffix('.yml').removesuffix('.yaml')}-domain.yaml"  # as 'init' calls it
        near = did_you_mean(name, [*shipped_domains(), *(file.name for file in path.parent.glob("*.yaml"))], cutoff=0.8)
        hint = f"did you mean '{own.name}'?" if own.is_file() else near
        raise ConfigError(f"{named_at}domain '{name}': neither a file at {path.absolute()} nor one of {', '.join(shipped_domains())}{hint and '; '}{hint}")
    return path.resolve(), str(path)


def _merged(parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """What the child says, and for the rest the parent; categories are merged one by one, and null removes one."""
    merged = {**{key: value for key, value in parent.items() if key != "extends"}, **child}
    ours, theirs = child.get("categories"), parent["categories"]
    if ours is None:
        merged["categories"] = theirs
    elif isinstance(ours, dict):
        both = {**theirs, **{name: _category(theirs.get(name), category) for name, category in ours.items()}}
        merged["categories"] = {name: category for name, category in both.items() if category is not None}
    return merged


def _category(parent: dict[str, Any] | None, child: Any) -> Any:
    return {**parent, **child} if parent and isinstance(child, dict) else child


def _with_folders(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Each program told where its file is, since a domain that extends this one may lie elsewhere."""

    def told(section: Any) -> Any:
        if not isinstance(section, dict) or not isinstance(programs := section.get("verifiers"), list):
            return section
        return {**section, "verifiers": [{**p, "folder": folder / str(p.get("folder", ""))} if isinstance(p, dict) else p for p in programs]}

    data = told(data)
    if isinstance(categories := data.get("categories"), dict):
        data["categories"] = {name: told(category) for name, category in categories.items()}
    return data
