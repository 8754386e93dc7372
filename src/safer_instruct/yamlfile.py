"""YAML files validated by pydantic, with errors that name the file, the line and the nearest valid key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from safer_instruct.errors import ConfigError

Path_ = tuple[int | str, ...]


class Strict(BaseModel):
    """A frozen section of a YAML file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=False)


Section = TypeVar("Section", bound=Strict)


def load(path: Path, section: type[Section]) -> Section:
    """Read `path` as a `section`.

    Raises:
        ConfigError: The file is missing, is not YAML, or says something that `section` does not allow.
    """
    return parse(_text(path, str(path)), section, name=str(path))


def parse(text: str, section: type[Section], *, name: str) -> Section:
    """Read YAML `text` as a `section`; `name` stands for the file in messages.

    Raises:
        ConfigError: As for `load`.
    """
    data, lines = _mapping(text, name)
    try:
        return section.model_validate(data, strict=False)
    except ValidationError as exc:
        raise _problems(exc, section, lines, name) from exc


def read(path: Path, *, name: str | None = None) -> dict[str, Any]:
    """What a YAML file says, as plain data; `name` stands for the file in messages.

    Raises:
        ConfigError: The file is missing, is not YAML, or holds no keys and values.
    """
    return _mapping(_text(path, name or str(path)), name or str(path))[0]


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{name}: no such file (looked in {path.absolute().parent})") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{name}: cannot be read as UTF-8 text: {exc}") from exc


def _mapping(text: str, name: str) -> tuple[dict[str, Any], dict[Path_, int]]:
    """The keys and values of a YAML text, and the line of each key."""
    try:
        data, lines = yaml.safe_load(text), _lines(text)
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: a date or number that cannot be
        mark = getattr(exc, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {getattr(exc, 'problem', None) or exc}") from exc
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply to be a config") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{name}: expected keys and values at the top, found {type(data).__name__}")
    return data, lines


def parse_part(data: Any, section: type[Section], *, at: Path_, file: Path | None, context: dict[str, Any] | None = None, name: str = "") -> Section:
    """Read `data`, which was found at `at`, as a `section`: for sections that are known only when the rest has been read.

    Args:
        data: As YAML gave it.
        section: What it is to be.
        at: Keys that lead to it.
        file: The file it was found in, for line numbers; None where there is none.
        context: For the validators of `section`.
        name: Stands for the file in messages.

    Raises:
        ConfigError: It says something that `section` does not allow.
    """
    try:
        return section.model_validate(data, strict=False, context=context)
    except ValidationError as exc:
        raise _problems(exc, section, _lines_of(file), name or str(file or "config"), at) from exc


def located(at: Path_, file: Path | None) -> str:
    """FILE:LINE of the key that `at` leads to, as far as that is known."""
    return _located(at, _lines_of(file), str(file or "config"))


def _lines_of(file: Path | None) -> dict[Path_, int]:
    """The line of each key of a YAML file that has been read well before; nothing where that is no longer so."""
    try:
        return _lines(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _lines(text: str) -> dict[Path_, int]:
    lines: dict[Path_, int] = {}
    _collect_lines(yaml.compose(text, Loader=yaml.SafeLoader), (), lines)
    return lines


def _problems(exc: ValidationError, section: type[BaseModel], lines: dict[Path_, int], name: str, at: Path_ = ()) -> ConfigError:
    return ConfigError("\n".join(dict.fromkeys(_explain(e, section, lines, name, at) for e in exc.errors())))


def _collect_lines(node: yaml.Node | None, at: Path_, lines: dict[Path_, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, key.value)
            lines[here] = key.start_mark.line + 1
            _collect_lines(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[(*at, i)] = item.start_mark.line + 1
            _collect_lines(item, (*at, i), lines)


def _located(at: Path_, lines: dict[Path_, int], name: str) -> str:
    known = next((at[:n] for n in range(len(at), 0, -1) if at[:n] in lines), ())
    return f"{name}:{lines[known]}" if known else name


def _explain(error: ErrorDetails, section: type[BaseModel], lines: dict[Path_, int], name: str, at: Path_) -> str:
    loc = tuple(error["loc"])
    where = _located((*at, *loc), lines, name)
    dotted = ".".join(str(part) for part in (*at, *loc))
    if error["type"] == "extra_forbidden":
        key = str(loc[-1])
        valid = _keys_at(section, loc[:-1])
        near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"valid keys here: {', '.join(valid)}"
        return f"{where}: unknown key '{dotted}'; {hint}"
    if error["type"] == "missing":
        return f"{where}: the key '{dotted}' is missing"
    return f"{where}: '{dotted}': {error['msg'].removeprefix('Value error, ')}"


def _keys_at(section: type[BaseModel], loc: Path_) -> list[str]:
    """The keys that may stand at `loc`, found by walking the annotations."""
    current: list[Any] = [section]
    for part in loc:
        current = [step for annotation in current for step in _steps(annotation, part)] or current
    return sorted({key for annotation in current for model in _models_in(annotation) for key in model.model_fields})


def _steps(annotation: Any, part: int | str) -> list[Any]:
    """What stands behind `part`: a field of a model, a value of a mapping, an item of a sequence; unions are looked through."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation.model_fields[part].annotation] if part in annotation.model_fields else []
    arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
    origin = getattr(annotation, "__origin__", None)
    if origin is dict:
        return [arguments[1]]
    if origin in (tuple, list):
        return [arguments[0]] if isinstance(part, int) else []
    return [step for argument in arguments for step in _steps(argument, part)]


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)}
