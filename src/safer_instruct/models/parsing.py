"""From the bytes of an answer to what is read of it, or to words that say what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from safer_instruct.errors import RequestError
from safer_instruct.models.addresses import message_of

Shape = TypeVar("Shape", bound=BaseModel)


class MalformedError(Exception):
    """An answer came and cannot be understood; the next attempt may bring a better one."""


class FilteredError(RequestError):
    """A content filter stopped the request; asked again, it would do so again."""


def json_object(raw: bytes) -> dict[str, Any]:
    """An answer in JSON, half characters and all, which `json` takes and pydantic does not.

    Raises:
        MalformedError: It is no object in JSON.
    """
    try:
        data = from_json(raw, cache_strings="keys")
    except ValueError:
        data = _any_json(raw)
    if not isinstance(data, dict):
        raise MalformedError("an answer that is no JSON object")
    return data


def _any_json(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8", "surrogatepass"))  # given bytes, `json` would guess at the encoding
    except (ValueError, RecursionError) as exc:
        if raw.lstrip().startswith(b"<"):
            raise MalformedError("a web page in place of JSON; is 'base_url' that of the API, up to and with /v1?") from exc
        raise MalformedError(f"an answer of {len(raw)} bytes that is not valid JSON") from exc


def shaped(data: Mapping[str, Any], shape: type[Shape]) -> Shape:
    """What `shape` reads of an answer.

    Raises:
        MalformedError: It is not there.
    """
    try:
        return shape.model_validate(data)
    except ValidationError as exc:
        where = exc.errors(include_url=False, include_input=False)[0]
        said = message_of(data) or f"{'.'.join(map(str, where['loc']))}: {where['msg']}"
        raise MalformedError(f"a malformed answer ({said})") from exc


def whole(text: str) -> str:
    """A text without half characters: JSON can say them, no file can hold them."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
