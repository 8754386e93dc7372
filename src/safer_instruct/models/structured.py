"""Answers that are to fit a JSON schema, read whatever the model made of it: `parse`.

Endpoints that hold a model to the schema send exactly that; all others send something like it. Why `lenient` and not a
library: the one in wide use (json-repair 0.64) took 4 s for 8,000 characters of `{"` and 114 s for 40,000, with the event
loop standing still, and reads `{"answer": }` as an empty answer where there is none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from safer_instruct.errors import AnswerError
from safer_instruct.models.lenient import Cut, number, objects
from safer_instruct.models.protocol import Schema
from safer_instruct.models.said import is_unended, reasoning_mark

_LONGEST_CHARS = 1 << 15  # of an answer; what stands before is prose
_SHOWN_CHARS = 60
_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")


class _Unfit:
    """The value of what does not fit."""


_UNFIT: Final = _Unfit()


def object_schema(name: str, **properties: Mapping[str, Any]) -> Schema:
    """The schema of an object with exactly these properties, all required, in this order: the strict form that every endpoint takes."""
    return Schema.of(name, strict_object(**properties))


def strict_object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """The definition of such an object, to stand inside of another one."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def parse(text: str, schema: Schema) -> dict[str, Any]:
    """The object in `text` that fits `schema`; of several the last, because models think and quote before they answer.

    Values become what the schema says where their meaning is plain: 'True' a boolean, '3' an integer, 'Yes.' the 'yes' of an
    enumeration. Keys may differ in case and punctuation. Members that the schema does not name, or that do not fit, are left
    out; a text that the end of the answer broke off is kept only where any text will do.

    Args:
        text: What the model wrote.
        schema: An object schema of type, properties, required, items and enum (of strings); other keywords are not looked at. It
            may well require less than the schema that the model was asked with.

    Raises:
        AnswerError: There is no such object.
    """
    if is_unended(text):
        raise AnswerError(f"the answer is reasoning without an end ({reasoning_mark(text)}), cut at its token limit or never closed")
    wanted = set(schema.definition.get("required", ()))
    for found in _candidates(text):
        fitted = _object(found, schema.definition)
        if fitted.keys() >= wanted:
            return fitted
    said = " ".join(text[:1000].split())
    shown = repr(said if len(said) <= _SHOWN_CHARS else said[:_SHOWN_CHARS] + "...")
    raise AnswerError(f"the answer holds no JSON object with {', '.join(sorted(wanted)) or 'any member'}: {shown}")


def _candidates(text: str) -> Iterator[dict[str, Any]]:
    """The whole text, if it is an object as it stands, then every object in it, the last one first."""
    text = text[-_LONGEST_CHARS:]
    with suppress(ValueError, RecursionError):
        whole = json.loads(text)
        if isinstance(whole, dict):
            yield whole
    yield from reversed(objects(text))


def _object(given: Mapping[str, Any], definition: Mapping[str, Any]) -> dict[str, Any]:
    """The members of `given` that `definition` names and that fit, in its order."""
    alike = {_plain(key): value for key, value in given.items()}
    fitted = {}
    for name, rule in definition.get("properties", {}).items():
        value = _value(given[name] if name in given else alike.get(_plain(name), _UNFIT), rule)
        if value is not _UNFIT:
            fitted[name] = value
    return fitted


def _value(given: Any, rule: Mapping[str, Any]) -> Any:
    """`given` as what `rule` asks for, or `_UNFIT`."""
    types = rule.get("type", "string")
    for type_ in (types,) if isinstance(types, str) else types:
        value = _FITS[type_](given, rule)
        if value is not _UNFIT:
            return value
    return _UNFIT


def _text(given: Any, rule: Mapping[str, Any]) -> Any:
    options = rule.get("enum")
    if options is None:
        return _whole_characters(str(given)) if isinstance(given, str | int | float) and not isinstance(given, bool) else _UNFIT
    if isinstance(given, Cut) or not isinstance(given, str | int | float):
        return _UNFIT
    if given in options:
        return given
    said = (_YES if given else _NO) if isinstance(given, bool) else (_plain(str(given)),)
    return next((option for option in options if _plain(option) and _plain(option) in said), _UNFIT)


def _boolean(given: Any, rule: Mapping[str, Any]) -> Any:
    said = _plain(str(given)) if isinstance(given, str | int) and not isinstance(given, Cut) else ""
    return True if said in _YES else False if said in _NO else _UNFIT


def _real(given: Any, rule: Mapping[str, Any]) -> Any:
    if isinstance(given, str) and not isinstance(given, Cut):
        given = number(given.strip())
    if isinstance(given, bool) or not isinstance(given, int | float):
        return _UNFIT
    return given if isinstance(given, int) or math.isfinite(given) else _UNFIT


def _integer(given: Any, rule: Mapping[str, Any]) -> Any:
    value = _real(given, rule)
    return int(value) if value is not _UNFIT and value == int(value) else _UNFIT


def _list(given: Any, rule: Mapping[str, Any]) -> Any:
    if not isinstance(given, list):
        return _UNFIT
    items = [_value(item, rule.get("items", {})) for item in given]
    return _UNFIT if _UNFIT in items else items


def _inner(given: Any, rule: Mapping[str, Any]) -> Any:
    if not isinstance(given, dict):
        return _UNFIT
    fitted = _object(given, rule)
    return fitted if fitted.keys() >= set(rule.get("required", ())) else _UNFIT


def _nothing(given: Any, rule: Mapping[str, Any]) -> Any:
    return None if given is None else _UNFIT


_FITS = {"string": _text, "boolean": _boolean, "number": _real, "integer": _integer, "array": _list, "object": _inner, "null": _nothing}


def _plain(text: str) -> str:
    """Letters and digits alone, in one case: what keys and options are compared by."""
    return "".join(c for c in text.casefold() if c.isalnum())


def _whole_characters(text: str) -> str:
    """JSON can say half a character, no file can hold it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
