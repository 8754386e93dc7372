"""docs/reference/config.md: every key of every YAML file, from the pydantic models and their docstrings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import docstrings
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from safer_instruct.config import RunConfig, TuneConfig
from safer_instruct.domain import Domain
from safer_instruct.evaluation.inducer.plan import EvaluationConfig
from safer_instruct.evaluation.settings import EvaluateConfig
from safer_instruct.filters.protocol import Filter
from safer_instruct.filters.registry import DEFAULTS, SHIPPED
from safer_instruct.prices import Price
from safer_instruct.settings.answers import GroundedConfig, RefusalConfig
from safer_instruct.settings.models import ExpertConfig, ModelConfig, ServeConfig
from safer_instruct.settings.pairs import PairSource
from safer_instruct.settings.preference import DpoConfig, SftConfig
from safer_instruct.study.settings import StudyConfig

_HEAD = """\
# Config files

Every key of every YAML file that the commands read. What is not known is an error that names the line and the nearest key that is.
Paths are relative to the file that they stand in. A key without a default must be given. A section that stands in several places is
described once. How the keys work together stands on the pages about each task; `safer-instruct init` writes a commented file to start from.
"""
_ROOTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("run", RunConfig),
    ("domain", Domain),
    ("tune", TuneConfig),
    ("evaluate-inducer", EvaluationConfig),
    ("sft", SftConfig),
    ("dpo", DpoConfig),
    ("evaluate", EvaluateConfig),
    ("study", StudyConfig),
    ("prices", Price),
)
_NAMES: dict[type, str] = {ModelConfig: "a model", ServeConfig: "serve", ExpertConfig: "one of several experts", PairSource: "tuning pairs"}
_NAMES |= {GroundedConfig: "verify.also: grounded", RefusalConfig: "verify.also: refusal"}
_TITLES = {"domain": "A domain file", "prices": "A price: an entry of `prices` in a price file"}
_WORDS: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything", NoneType: "null"}


@dataclass
class Book:
    """What has been described so far.

    Attributes:
        places: Class -> heading of its section.
        parts: The page, piece by piece.
    """

    places: dict[type, str] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)


def page() -> str:
    """The whole page."""
    book = Book(parts=[_HEAD])
    for root, class_ in _ROOTS:
        title = _TITLES.get(root, f"`safer-instruct {root if root not in ('sft', 'dpo') else f'train {root}'}`")
        book.parts.append(f"## {title}\n")
        _describe(book, root, "", class_)
        if class_ is RunConfig:
            _filters(book)
    headings = [part.strip() for part in book.parts if part.startswith("##")]
    if twice := {heading for heading in headings if headings.count(heading) > 1}:
        raise SystemExit(f"several sections have one heading, and links need one each: {', '.join(sorted(twice))}; name them in _NAMES")
    return "\n".join(book.parts)


def _filters(book: Book) -> None:
    book.parts.append("## Filters: options below `filter.text`, `filter.prompt` and `filter.pair`\n")
    on = ", ".join(f"`{place}`: {', '.join(names)}" for place, names in DEFAULTS.items() if names)
    book.parts.append(f"On without being named: {on}. Each also takes `mode`, and `use` or `path` ([filters](../filters.md)).\n")
    for name, where in SHIPPED.items():
        module, _, class_name = where.partition(":")
        class_ = getattr(import_module(f"safer_instruct.filters.{module}"), class_name)
        book.parts.append(f"### filter: {name}\n\n{docstrings.block(docstrings.read(class_).text)}\n")
        places = " or ".join(f"`filter.{place}`" for place in get_args(class_.model_fields["on"].annotation))
        book.parts.append(f"Stands in {places}.\n")
        own = {key: value for key, value in class_.model_fields.items() if key not in Filter.model_fields}
        if own:
            book.parts.append(_table(book, class_, own))


def _describe(book: Book, root: str, at: str, class_: type[BaseModel]) -> None:
    """The section of a class, and behind it those of the classes in it that have none yet."""
    book.places[class_] = f"{root}: {at}" if at else _heading(book)
    if at:
        book.parts.append(f"### {book.places[class_]}\n")
    book.parts.append(docstrings.block(docstrings.read(class_).text) + "\n")
    inner = [(f"{at}.{key}" if at else key, found) for key, info in class_.model_fields.items() for found in _classes(info.annotation)]
    fresh = dict.fromkeys(within for _, (within, _) in inner if within not in book.places)
    for key, (within, suffix) in inner:
        book.places.setdefault(within, f"{root}: {_NAMES.get(within, f'{key}{suffix}')}")
    book.parts.append(_table(book, class_, class_.model_fields))
    for within in fresh:
        _describe(book, root, book.places[within].partition(": ")[2], within)


def _heading(book: Book) -> str:
    return book.parts[-1].removeprefix("## ").strip()


def _classes(annotation: Any, suffix: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """The sections that may stand in a value, each with what leads to it: `.NAME` for values by name, `[]` for items of a list."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, suffix
    elif origin is dict:
        yield from _classes(arguments[1], f"{suffix}.NAME")
    elif origin in (tuple, list):
        yield from _classes(arguments[0], f"{suffix}[]")
    elif origin is not Literal:
        for argument in arguments:
            yield from _classes(argument, suffix)


def _table(book: Book, class_: type[BaseModel], fields: dict[str, FieldInfo]) -> str:
    means = docstrings.meanings(class_)
    lines = ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
    for name, info in fields.items():
        meaning = means.get(name) or info.description
        if not meaning:
            raise SystemExit(f"{class_.__module__}.{class_.__name__}: '{name}' has no meaning; add it to 'Attributes:' of the docstring")
        lines.append(f"| `{name}` | {_value(book, info)} | {_default(info)} | {docstrings.cell(meaning)} |")
    return "\n".join(lines) + "\n"


def _value(book: Book, info: FieldInfo) -> str:
    kinds = _kinds(book, info.annotation)
    return " or ".join(dict.fromkeys(kinds[:1] and [kinds[0] + _bounds(info.metadata), *kinds[1:]])).replace("|", "\\|")


def _kinds(book: Book, annotation: Any) -> list[str]:
    """What a value may be, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        place = book.places[annotation]
        return [f"[{place.partition(': ')[2] or place}](#{slug(place)})"]
    if origin is Literal:
        return [f"`{json.dumps(value) if not isinstance(value, str) else value}`" for value in arguments]
    if origin is Annotated:
        kinds = _kinds(book, arguments[0])
        return [kinds[0] + _bounds(arguments[1:]), *kinds[1:]]
    if origin in (Union, UnionType):
        return [kind for argument in arguments for kind in _kinds(book, argument)]
    if origin is dict:
        return [f"by name: {' or '.join(_kinds(book, arguments[1]))}"]
    if origin is tuple and arguments[-1] is not Ellipsis:
        return [f"list of {len(arguments)}: {', '.join(' or '.join(_kinds(book, a)) for a in arguments)}"]
    if origin in (tuple, list):
        return [f"list of {' or '.join(_kinds(book, arguments[0]))}"]
    return [_WORDS.get(annotation, "text")]


def _bounds(metadata: Any) -> str:
    """The limits of a number or a text, in words."""
    marks: dict[str, Any] = {}
    for one in metadata:
        for each in [one, *getattr(one, "metadata", ())]:
            marks |= {name: getattr(each, name) for name in ("gt", "ge", "lt", "le") if getattr(each, name, None) is not None}
            if isinstance(each, annotated_types.MinLen):
                marks["min"] = each.min_length
    low = f"above {marks['gt']:g}" if "gt" in marks else f"{marks['ge']:g} or more" if "ge" in marks else ""
    high = f"below {marks['lt']:g}" if "lt" in marks else f"at most {marks['le']:g}" if "le" in marks else ""
    if "ge" in marks and "le" in marks:
        low, high = f"{marks['ge']:g} to {marks['le']:g}", ""
    told = [part for part in (low, high, f"at least {marks['min']}" if marks.get("min", 0) > 1 else "", "not empty" if marks.get("min") == 1 else "") if part]
    return f" ({', '.join(told)})" if told else ""


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return ""
    if isinstance(value, BaseModel):
        given = value.model_dump(mode="json", exclude_defaults=True)
        return f"`{json.dumps(given)}`" if given else "its defaults"
    if isinstance(value, tuple | list) and value and isinstance(value[0], BaseModel):
        return f"{len(value)} shipped"
    written = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, str) else value
    return f"`{written}`".replace("|", "\\|") if written else "empty"


def slug(heading: str) -> str:
    """The anchor that GitHub and MyST give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
