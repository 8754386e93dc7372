"""What an inducer is asked: one object for training, induction and serving, whose digest travels with the adapter."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from safer_instruct.config import InduceConfig, ModelConfig
from safer_instruct.conversation import said_before
from safer_instruct.domain import Domain
from safer_instruct.errors import ConfigError
from safer_instruct.models import adapter_path
from safer_instruct.models.protocol import Completion, Prompt, Turn
from safer_instruct.models.said import is_unended
from safer_instruct.templates import Template, load_template

RECORD = "tuning.json"
Form = Literal["raw", "chat"]
_HEADING = re.compile(r"^#{2,}\s", re.M)
_HEADINGS_FIRST = re.compile(r"\A(?:#{2,}[^\n]*(?:\n+|\Z))+")
_QUOTES = ('""', "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}")
_LABEL = re.compile(r"^(?:the )?(?:message|instruction|question|request|prompt)\s*:\s*", re.I)


@dataclass(frozen=True, slots=True)
class Shot:
    """An example shown to an inducer that was not tuned: a response, and the instruction that it answers."""

    prompt: str
    response: str


@dataclass(frozen=True)
class ReversedTemplate:
    """A template of P(instruction | response), and how it reaches a model.

    Attributes:
        template: It is given `response`, `history` and `examples`.
        form: `raw` is a text to continue, `chat` a user's message in the model's own chat template.
        shots: Examples by category; those under '' are for every other one.
    """

    template: Template
    form: Form = "raw"
    shots: Mapping[str, tuple[Shot, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """File name of the template."""
        return self.template.name

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits for the template, its form and its examples; the template's own digest for a raw one without examples."""
        if self.form == "raw" and not self.shots:
            return self.template.digest
        shots = {category: [asdict(shot) for shot in shots] for category, shots in sorted(self.shots.items())}
        return hashlib.sha256(json.dumps([self.template.digest, self.form, shots]).encode()).hexdigest()[:16]

    def prompt(self, response: str, *, history: Sequence[Turn] = (), category: str = "") -> Prompt:
        """What the model is given, in training and in induction alike.

        A template that does not ask for `history` stands as it was tuned with, and what was said before is put ahead of it.

        Raises:
            ConfigError: The template asks for a value that it is not given.
        """
        shots = self.shots.get(category) or self.shots.get("", ())
        before = "" if "history" in self.template.names else said_before(history)
        rendered = before + self.template.render(response=response, history=history, examples=shots)
        return rendered if self.form == "raw" else (Turn("user", rendered),)

    def completion(self, instruction: str) -> str:
        """What the model learns to write after `prompt`, to be followed by its end token."""
        return instruction.strip()

    def read(self, completion: Completion) -> Completion:
        """The instruction in what the model wrote. One that was shown examples may label or quote it, or go on with further examples."""
        if "examples" not in self.template.names:
            return completion
        completion = before_heading(completion)
        return replace(completion, text=bare(completion.text))

    def record(self) -> dict[str, str]:
        """What an adapter's `tuning.json` says of it."""
        return {"template": self.name, "template_form": self.form, "template_digest": self.digest}


@dataclass(frozen=True, slots=True)
class Reversal:
    """The template that an inducer is asked with, and what is to be told of it: empty where it is known to be the right one."""

    template: ReversedTemplate
    note: str = ""


def reversal(config: InduceConfig, inducer: ModelConfig, base: Path, shots: Mapping[str, tuple[Shot, ...]] | None = None) -> Reversal:
    """The template of a run, checked against the one that its inducer was tuned with.

    Args:
        config: Which template, in which form.
        inducer: Who is asked.
        base: What paths are relative to.
        shots: Examples for a template that shows some.

    Raises:
        ConfigError: There is no such template, or the inducer was tuned with another one, or for another task.
    """
    template = load_template(config.template, base, use="reverse")
    tuned = tuning_record(inducer, base)
    form = _form(config, inducer, tuned)
    asked = ReversedTemplate(template, form, dict(shots or {}) if "examples" in template.names else {})
    if tuned is not None:
        _check(asked, inducer, tuned)
        return Reversal(asked)
    return Reversal(asked, _note(asked, inducer))


def before_heading(completion: Completion) -> Completion:
    """What the model wrote under its first heading, if it began with one, and up to the next: untuned, it goes on with sections of its own."""
    if is_unended(completion.text):
        return completion
    text = _HEADINGS_FIRST.sub("", completion.text.strip())
    heading = _HEADING.search(text)
    text = text[: heading.start()] if heading else text
    return replace(completion, text=text.strip(), finished=completion.finished or heading is not None)


def bare(text: str) -> str:
    """A text without the label before it and the quotation marks around it that a model may write; marks within may be what those belong with."""
    text = _LABEL.sub("", text).strip()
    if len(text) > 1 and text[0] + text[-1] in _QUOTES and not set(text[1:-1]) & set(text[0] + text[-1]):
        text = text[1:-1].strip()
    return text


def resolve_form(form: str, template: str) -> Form:
    """The form that a template is trained in."""
    if form == "auto":
        return "chat" if template == "reverse-chat" else "raw"
    return "chat" if form == "chat" else "raw"


def domain_shots(domain: Domain, most: int) -> dict[str, tuple[Shot, ...]]:
    """Examples of a domain's responses, on the side that the corpus is, and what they answer: each category's own, and under '' some of all."""
    own = {
        name: tuple(Shot(e.prompt, getattr(e, domain.direction)) for e in category.examples)
        for name, category in domain.categories.items()
        if category.examples
    }
    if not own:
        return {}
    turns = [shots[i] for i in range(max(map(len, own.values()))) for shots in own.values() if i < len(shots)]
    return {"": tuple(turns[:most])} | {name: shots[:most] for name, shots in own.items() if len(own) > 1}


def tuning_record(inducer: ModelConfig, base: Path) -> dict[str, Any] | None:
    """What tuning wrote beside the adapter, or beside the weights that it was merged into; None where nothing is known.

    Raises:
        ConfigError: There is no such adapter, or the record cannot be read.
    """
    place = _weights(inducer, base)
    if place is None:
        return None
    return read_record(place if place.is_dir() else place.parent)


def read_record(folder: Path) -> dict[str, Any] | None:
    """What training wrote of itself beside weights in `folder`; None where there is nothing.

    Raises:
        ConfigError: It cannot be read.
    """
    record = folder / RECORD
    try:
        read = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{record}: cannot be read as JSON: {exc}; restore it, or remove it to go on without what it says") from exc
    if not isinstance(read, dict):
        raise ConfigError(f"{record}: holds no JSON object; restore it, or remove it to go on without what it says")
    return read


def _weights(inducer: ModelConfig, base: Path) -> Path | None:
    """The adapter, or the weights, that a record may stand beside."""
    provider, _, name = inducer.model.partition(":")
    if provider == "served":
        named = inducer.serve.adapters if inducer.serve else {}
        return base / Path(named.get(inducer.adapter, inducer.adapter) if inducer.adapter else name).expanduser()
    return adapter_path(inducer.adapter, base) if inducer.adapter else None


def _form(config: InduceConfig, inducer: ModelConfig, tuned: Mapping[str, Any] | None) -> Form:
    if config.form != "auto":
        return resolve_form(config.form, config.template)
    if tuned is not None:
        return "chat" if tuned.get("template_form") == "chat" else "raw"
    return "chat" if config.template == "reverse-chat" or not inducer.model.startswith("embedded:") else "raw"


def _check(asked: ReversedTemplate, inducer: ModelConfig, tuned: Mapping[str, Any]) -> None:
    who = f"adapter '{inducer.adapter}'" if inducer.adapter else f"model '{inducer.model}'"
    if tuned.get("task") != "induce":
        raise ConfigError(f"{who} was tuned for '{tuned.get('task')}', not to induce instructions; give models.inducer one tuned with 'task: induce'")
    if tuned.get("template_digest") == asked.digest:
        return
    form = tuned.get("template_form", "raw")
    raise ConfigError(
        f"{who} was tuned with template {tuned.get('template')} as {form} (digest {tuned.get('template_digest')}); induce.template {asked.name} "
        f"as {asked.form} has digest {asked.digest}, and with it the adapter would write worse instructions without a word: "
        f"set induce.template and induce.form to those it was tuned with, or tune it again with this template"
    )


def _note(asked: ReversedTemplate, inducer: ModelConfig) -> str:
    """What cannot be known of an inducer without a record."""
    if inducer.adapter:
        return f"adapter '{inducer.adapter}' carries no {RECORD}, so nothing tells whether it was tuned with template {asked.name} (digest {asked.digest})"
    provider = inducer.model.partition(":")[0]
    if provider in ("embedded", "scripted") or asked.name == "prompted.j2":
        return ""
    unknown = f"nothing tells whether '{inducer.model}' was tuned to induce with template {asked.name} (digest {asked.digest})"
    return f"{unknown}; if it was not tuned at all, set induce.template: prompted"
