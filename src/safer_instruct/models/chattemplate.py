"""A model's own chat template, rendered as transformers renders it, without transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from safer_instruct.errors import ModelError


class ChatTemplate:
    """The template that came with a model's tokenizer: from messages to the text that the model reads.

    It is given what transformers gives one (https://huggingface.co/docs/transformers/chat_templating_writing): messages, whether the assistant is to speak, the
    special tokens, `raise_exception`, no tools and no documents. The clock it is not given (`strftime_now`), which would make each day's answers
    others: templates that know the clock have a fixed date for that.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile it; a sandbox, for it comes with weights from anywhere.

        Args:
            source: Jinja2; empty for a model that has no chat template.
            special_tokens: Such as `bos_token`, by the names that transformers has for them.

        Raises:
            ModelError: It is not valid Jinja2.
        """
        self._given = {"tools": None, "documents": None, **special_tokens}
        try:
            self._template = _environment().from_string(source) if source else None
        except TemplateError as exc:
            raise ModelError(f"the chat template of this model is not valid: {exc}") from exc

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """The text of a chat.

        Args:
            messages: `role` and `content` each.
            add_generation_prompt: Whether it ends where the assistant speaks.

        Raises:
            ModelError: The model has no chat template, or its template refuses these messages, as some do a system's.
        """
        if self._template is None:
            raise ModelError("this model has no chat template; send it a raw prompt")
        try:
            return self._template.render(messages=messages, add_generation_prompt=add_generation_prompt, **self._given)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as exc:
            raise ModelError(f"the chat template of this model refuses this conversation: {exc}") from exc


class _Generation(Extension):
    """`{% generation %}`, by which some templates mark what the assistant says: the text is what stands in it."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Its body alone."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Without Jinja's escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache
def _environment() -> ImmutableSandboxedEnvironment:
    found = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
    found.filters["tojson"] = _to_json
    found.globals["raise_exception"] = _refuse
    return found
