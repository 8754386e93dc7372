"""`safer-instruct domain new`, and `init`: a commented domain file from a few answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from safer_instruct.domain import Direction, load_domain, shipped_domains
from safer_instruct.errors import ConfigError
from safer_instruct.placeholders import DEFINITION, DESCRIPTION, GUIDELINE
from safer_instruct.wholefile import write_whole

_WIDTH = 110


@dataclass(slots=True)
class NewCategory:
    """Answers about one category."""

    name: str = "main"
    definition: str = DEFINITION
    guideline: str = GUIDELINE
    refuse: str = ""
    help: str = ""
    criteria: list[str] = field(default_factory=lambda: ["Does the response follow the guideline?"])
    good: str = "helpful and careful"
    bad: str = "careless and unhelpful"


@dataclass(slots=True)
class NewDomain:
    """Answers about a domain."""

    name: str
    description: str = DESCRIPTION
    direction: Direction = "rejected"
    extends: str = ""
    languages: list[str] = field(default_factory=lambda: ["en"])
    expert: str = "You are a helpful assistant."
    categories: list[NewCategory] = field(default_factory=list)


def place_for(new: NewDomain, folder: Path) -> Path:
    """Where `write_domain` writes it; asked before the user is asked anything.

    Raises:
        ConfigError: The name cannot be a file name, or is that of a shipped domain; the file is there already, or what it extends is not.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", new.name):
        raise ConfigError(f"'{new.name}' cannot name a domain; use small letters, digits, '-' and '_'")
    if new.name in shipped_domains():
        raise ConfigError(
            f"'{new.name}' is the name of a shipped domain, which would be taken instead of yours; choose another name, and to build on the shipped one "
            f"add --extends: safer-instruct domain new my-{new.name} --extends {new.name}"
        )
    path = folder / f"{new.name}-domain.yaml"
    if path.exists():
        raise ConfigError(f"{path} exists already; give another --dir, or move it away")
    if new.extends:
        load_domain(new.extends, folder)
    return path


def write_domain(new: NewDomain, folder: Path) -> Path:
    """Write `NAME-domain.yaml`, and read it back to be sure that it is valid.

    Raises:
        ConfigError: As for `place_for`; or what was answered makes no valid domain.
    """
    path = place_for(new, folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, as_text(new))
    try:
        load_domain(path.name, folder)
    except ConfigError as exc:
        path.unlink()
        raise ConfigError(f"these answers make no domain, and {path.name} was not written: {exc}") from exc
    return path


def as_text(new: NewDomain) -> str:
    """The file, each key with a comment."""
    parts = [
        "# A domain: what is undesirable (or wanted), how an expert should answer, and how to tell the two apart.",
        f"# See every prompt that it leads to:   safer-instruct domain check {new.name}-domain.yaml",
        _key("name", new.name),
        *([_key("extends", new.extends, "what is left out here comes from there")] if new.extends else []),
        _key("description", new.description, "for the dataset card"),
        _key("direction", new.direction, "rejected: the corpus is what we do not want; chosen: it is what we want"),
        _key("languages", new.languages, "of the instructions to keep, as ISO 639-1 codes; [] for any"),
        _key("expert", new.expert, "the first line of the expert's system prompt"),
        "# verifiers:                # programs that every chosen response must pass; they run in a sandbox (docs/domains.md)",
        '#   - {command: [my-checker, "{file}"]}',
        "categories:",
        *(indent(_category(category), "  ") for category in new.categories or [NewCategory()]),
    ]
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


def _category(category: NewCategory) -> str:
    keys = [
        _key("definition", category.definition, "what belongs here"),
        _key("guideline", category.guideline, "what the expert is told, and a judge compares by"),
        *([_key("refuse", category.refuse, "when a good answer declines")] if category.refuse else []),
        *([_key("help", category.help, "how it helps safely then")] if category.help else []),
        _key("criteria", category.criteria, "for verify.form question: a judge must answer yes to all"),
        _key("contrast", {"good": category.good, "bad": category.bad}, "for verify.form contrast: completes 'a reply that is ...'"),
        _key("examples", [], "for contrast: a few pairs {prompt, chosen, rejected} make it far more accurate"),
    ]
    return _key(category.name, None).removesuffix(" null") + "\n" + indent("\n".join(keys), "  ")


def _key(name: str, value: Any, comment: str = "") -> str:
    dumped = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=_WIDTH).rstrip("\n")
    return f"# {comment}\n{dumped}" if comment else dumped
