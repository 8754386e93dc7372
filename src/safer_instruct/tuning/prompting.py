"""From a pair to what the model is given and what it learns to write, by the same template object that induction uses."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from safer_instruct.config import TuneConfig
from safer_instruct.domain import Category, Domain, load_domain
from safer_instruct.errors import ConfigError
from safer_instruct.models.protocol import Prompt, Turn
from safer_instruct.reverse import ReversedTemplate, resolve_form
from safer_instruct.templates import Template, load_template
from safer_instruct.tuning.pairs import Pair


class Prompting(Protocol):
    """How pairs are laid out for one task."""

    def render(self, pair: Pair) -> tuple[Prompt, str]:
        """What the model is given, a text or messages, and the completion that it learns; the end token follows it."""

    def record(self) -> dict[str, str]:
        """What an adapter's `tuning.json` says of it: `template`, `template_form`, `template_digest`, and for experts `guideline_sha256`."""


@dataclass(frozen=True, slots=True)
class Inducing:
    """P(instruction | response): reversed instruction tuning (arXiv 2311.08685)."""

    template: ReversedTemplate

    def render(self, pair: Pair) -> tuple[Prompt, str]:
        """See `Prompting.render`."""
        return self.template.prompt(pair.response, history=pair.history), self.template.completion(pair.prompt)

    def record(self) -> dict[str, str]:
        """See `Prompting.record`."""
        return self.template.record()


@dataclass(frozen=True, slots=True)
class Responding:
    """P(response | instruction) with a domain's guideline as the system prompt: a small expert."""

    template: Template
    domain: Domain
    category: Category

    def render(self, pair: Pair) -> tuple[Prompt, str]:
        """See `Prompting.render`."""
        return (Turn("system", self._system()), *pair.history, Turn("user", pair.prompt)), pair.response

    def record(self) -> dict[str, str]:
        """See `Prompting.record`."""
        guideline = hashlib.sha256(self._system().encode()).hexdigest()
        return {"template": self.template.name, "template_form": "chat", "template_digest": self.template.digest, "guideline_sha256": guideline}

    def _system(self) -> str:
        return self.template.render(domain=self.domain, category=self.category).strip()


def load_prompting(config: TuneConfig, base: Path) -> Prompting:
    """The layout that `config` asks for.

    Raises:
        ConfigError: Its template or domain does not exist, or the template cannot be trained with.
    """
    if config.task == "respond":
        domain = load_domain(config.domain or "", base)
        return Responding(load_template("respond"), domain, domain.category(config.category or ""))
    template = load_template(config.template, base, use="reverse")
    if "examples" in template.names:
        raise ConfigError(f"template '{config.template}' is for models that are not tuned; tune with 'reverse', 'reverse-chat' or a file of your own")
    if "history" not in template.names and any(source.history for source in config.data):
        raise ConfigError(f"template '{config.template}' shows no history; tune with 'reverse-chat', or set 'history: false'")
    return Inducing(ReversedTemplate(template, resolve_form(config.form, config.template)))
