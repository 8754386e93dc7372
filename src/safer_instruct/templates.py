"""Prompt templates: Jinja2 files in which a text from a corpus or a model is only ever a value, never a template."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path

from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from safer_instruct.errors import ConfigError
from safer_instruct.nearest import did_you_mean
from safer_instruct.utf8 import not_utf8

_GIVEN = {
    "reverse": ("response", "history", "examples"),
    "respond": ("domain", "category"),
    "revise": ("mark", "guideline", "prompt", "response", "reasons", "critique"),
    "matched": ("definition", "words", "least", "most", "form", "mark", "prompt", "response"),
    "twin": ("instruction", "definition", "mark"),
    "refuse": ("prompt", "manner", "mark"),
}
"""What a template may be used for that a config can name -> the values that it is given then."""
_SHOWN = {"reverse": "response", "revise": "response", "matched": "response", "twin": "instruction", "refuse": "prompt"}
"""The one that it must show: what it asks about. A system prompt may be the same for all."""


class Template:
    """One prompt file and its digest, which travels with everything that was made by it."""

    def __init__(self, source: str, *, name: str) -> None:
        """Compile `source`; its last newline is kept, so a prompt ends where the file does.

        Raises:
            ConfigError: The file is not a valid Jinja2 template.
        """
        self.source, self.name = source, name
        try:
            self._template = _environment().from_string(source)
        except TemplateError as exc:
            line = getattr(exc, "lineno", None)
            raise ConfigError(f"{name}{f':{line}' if line else ''}: not a valid template: {exc}") from exc

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the source."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the values that it asks for."""
        return frozenset(meta.find_undeclared_variables(self._tree))

    def check(self, use: str) -> None:
        """That it shows what it asks about, and asks for no value that it is not given in its use; what it tests with `is defined` may be missing.

        Args:
            use: A key of the values that templates are given: the name of the shipped one that is used so.

        Raises:
            ConfigError: It does not, or asks for another one.
        """
        given, unknown = _GIVEN[use], self.names - {node.name for node in self._asked_after() if isinstance(node, nodes.Name)} - set(_GIVEN[use])
        if asked := sorted((name.lineno, name.name) for name in self._tree.find_all(nodes.Name) if name.name in unknown and name.ctx == "load"):
            line, name = asked[0]
            raise ConfigError(f"{self.name}:{line}: '{name}' is no value that this template is given ({use}); there are: {', '.join(given)}")

        if (shown := _SHOWN.get(use)) and shown not in self.names:
            place = f"write {{{{ {shown} }}}} where it is to stand"
            raise ConfigError(f"{self.name}: never shows '{shown}' ({use}), so that nothing of it would be asked about; {place}")

    def check_parts(self, parts: Mapping[str, Collection[str]]) -> None:
        """The same for the parts of its values.

        Args:
            parts: Name of a value -> what may be asked of it.

        Raises:
            ConfigError: It asks for another one.
        """
        asked_after = list(self._asked_after())
        for asked in self._tree.find_all(nodes.Getattr):
            value = asked.node.name if isinstance(asked.node, nodes.Name) else ""
            if value in parts and asked.attr not in parts[value] and asked not in asked_after:
                nearest = did_you_mean(asked.attr, parts[value], otherwise=f"there are: {', '.join(parts[value])}")
                raise ConfigError(f"{self.name}:{asked.lineno}: {value} has no '{asked.attr}'; {nearest}")

    @cached_property
    def _tree(self) -> nodes.Template:
        return _environment().parse(self.source)

    def _asked_after(self) -> Iterator[nodes.Node]:
        """What it tests with `is defined`, or gives a default: that may be missing."""
        yield from (test.node for test in self._tree.find_all(nodes.Test) if test.name in ("defined", "undefined"))
        yield from (f.node for f in self._tree.find_all(nodes.Filter) if f.name in ("default", "d") and f.node)

    def render(self, **values: object) -> str:
        """Fill the template.

        Raises:
            ConfigError: The template asks for a value that it is not given, or does something it may not.
        """
        try:
            return self._template.render(**values)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as exc:
            raise ConfigError(f"{self.name}: cannot be rendered: {exc}") from exc


def load_template(name: str, base: Path | None = None, *, use: str | None = None) -> Template:
    """A template by the name of a shipped one (`reverse`, `respond`, ...) or by a path, relative to `base`.

    Args:
        name: Which one.
        base: What paths are relative to.
        use: Where a config names it: what for, by the name of the shipped one that is used so.

    Raises:
        ConfigError: There is no such template, or it asks for a value that it is not given in that use.
    """
    template = _read(name, base)
    if use is not None:
        template.check(use)
    return template


def _read(name: str, base: Path | None) -> Template:
    if name in shipped_templates():
        return Template((resources.files("safer_instruct") / "prompts" / f"{name}.j2").read_text(encoding="utf-8"), name=f"{name}.j2")
    path = (base or Path()) / name
    if not path.is_file():
        raise ConfigError(f"template '{name}': neither a file at {path.absolute()} nor one of {', '.join(shipped_templates())}")
    try:
        return Template(path.read_text(encoding="utf-8"), name=str(path))
    except UnicodeDecodeError as exc:
        raise ConfigError(f"template {path} cannot be read as UTF-8 text: {not_utf8(exc, 0, 'file')}") from exc
    except OSError as exc:
        raise ConfigError(f"template {path} cannot be read as UTF-8 text: {exc}") from exc


@lru_cache
def shipped_templates() -> tuple[str, ...]:
    """Names of the templates that come with the package."""
    return tuple(sorted(f.name[:-3] for f in (resources.files("safer_instruct") / "prompts").iterdir() if f.name.endswith(".j2")))


@lru_cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True)
