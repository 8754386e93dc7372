"""YAML files validated by pydantic, with errors that name the file, the line and the nearest valid key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from safer_instruct.errors import ConfigError
from safer_instruct.nearest import did_you_mean
from safer_instruct.utf8 import not_utf8

Path_ = tuple[int | str, ...]


class Strict(BaseModel):
    """A frozen section of a YAML file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=False)


Section = TypeVar("Section", bound=Strict)

_REMEDIES = {
    "mapping values are not allowed": "; put a value that holds ': ' in quotes, or mend the indentation",
    "'\\t'": "; indent with spaces, not with tabs",
    "cannot start any token": "; put a value that begins with such a mark in quotes",
    "expected <block end>": "; indent this line as those that belong with it, and put a value that begins with a quote wholly in quotes",
    "expected ',' or ']'": "; put each value within [...] in quotes, or on a line of its own behind '- '",
    "could not find expected ':'": "; a line without 'key: value', or a value of several lines, which begins with '>-' or stands in quotes",
}
"""What YAML's reader says -> what to do."""

_LISTS = dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type"), "expected a list, such as '[one, two]', or each on a line behind '- '")
_MAPPINGS = dict.fromkeys(("model_type", "model_attributes_type", "dict_type", "mapping_type"), "expected keys with values, each on a line below it")
_SHAPES = _LISTS | _MAPPINGS
"""Kinds of pydantic's errors that speak of types of Python -> what is expected in YAML."""

_KINDS = (
    ({"config"}, "what a run keeps of its config; give the config itself, or look at the run: safer-instruct status DIR"),
    ({"categories"}, "a domain file; give a config that names it under 'domain', as 'safer-instruct init' writes one"),
    ({"source", "models"}, "a config of a run: safer-instruct run"),
    ({"systems", "prompts"}, "a config of an evaluation: safer-instruct evaluate"),
    *(({"data", "out", key}, "a config of 'train dpo': safer-instruct train dpo") for key in ("loss", "beta", "label_smoothing", "gamma", "kl_prompts")),
    *(({"data", "out", key}, "a config of 'train': safer-instruct train sft, or train dpo") for key in ("preset", "max_pairs", "layout", "system")),
    ({"model", "data", "out"}, "a config of a training: safer-instruct train, or tune"),
)
"""By which keys, together, a file is told that was meant for another command: one that does not know them all."""


def load(path: Path, section: type[Section]) -> Section:
    """Read `path` as a `section`.

    Raises:
        ConfigError: The file is missing, is not YAML, or says something that `section` does not allow.
    """
    return parse(text_of(path), section, name=str(path))


def parse(text: str, section: type[Section], *, name: str) -> Section:
    """Read YAML `text` as a `section`; `name` stands for the file in messages.

    Raises:
        ConfigError: As for `load`.
    """
    data, lines = _mapping(text, name)
    try:
        found = section.model_validate(data, strict=False)
    except ValidationError as exc:
        raise _mistaken(data, section, name) or _problems(exc, data, section, lines, name) from exc
    _refuse_truth(data, found, lambda: lines, name)
    return found


def read(path: Path, *, name: str | None = None) -> dict[str, Any]:
    """What a YAML file says, as plain data; `name` stands for the file in messages.

    Raises:
        ConfigError: The file is missing, is not YAML, or holds no keys and values.
    """
    return _mapping(text_of(path, name=name), name or str(path))[0]


def text_of(path: Path, *, name: str | None = None) -> str:
    """The text of a file of settings; `name` stands for the file in messages.

    Raises:
        ConfigError: The file is missing, or is no text in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        there = sorted(file.name for ending in ("*.yaml", "*.yml") for file in path.absolute().parent.glob(ending))
        hint = did_you_mean(f"{path.stem}.yaml", there, cutoff=0.8)  # the ending is no likeness
        raise ConfigError(f"{name or path}: no such file (looked in {path.absolute().parent}){'; ' if hint else ''}{hint}") from None
    except IsADirectoryError:
        raise ConfigError(f"{name or path} is a folder; give the YAML file itself") from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{name or path}: cannot be read as UTF-8 text: {not_utf8(exc, 0, 'file')}") from exc
    except OSError as exc:
        raise ConfigError(f"{name or path}: cannot be read as UTF-8 text: {exc}") from exc


def _mapping(text: str, name: str) -> tuple[dict[str, Any], dict[Path_, int]]:
    """The keys and values of a YAML text, and the line of each key."""
    try:
        data, lines = yaml.load(text, Loader=_Loader), _lines(text)  # noqa: S506 - a safe one
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: a date or number that cannot be
        if _is_json_lines(text):
            raise ConfigError(f"{name} looks like JSON lines, which hold data and no settings; give the YAML file that names it") from exc
        mark = getattr(exc, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {getattr(exc, 'problem', None) or exc}{_remedy(exc)}") from exc
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply to be a config") from None
    if not isinstance(data, dict):
        found = {"NoneType": "nothing", "str": "text", "list": "a list"}.get(type(data).__name__, type(data).__name__)
        raise ConfigError(f"{name}: expected keys and values at the top, such as 'key: value', found {found}; is it the right file?")
    return data, lines


def _is_json_lines(text: str) -> bool:
    first = text.removeprefix("\ufeff").split("\n", 2)[:2]
    return len(first) == 2 and all(line.startswith("{") and line.rstrip().endswith("}") for line in first)


class _Loader(yaml.SafeLoader):
    """YAML's own, but for keys, which are names however they look: 'on' stays 'on', where YAML takes it for true."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See `SafeConstructor.construct_mapping`."""
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def _remedy(exc: Exception) -> str:
    """What to do about YAML that cannot be read, where its reader's words do not say it."""
    problem, begun = str(getattr(exc, "problem", None) or ""), getattr(exc, "context_mark", None)
    if "quoted scalar" in str(getattr(exc, "context", None)) and begun:
        return f"; the quote that opens in line {begun.line + 1} is never closed"
    return next((remedy for said, remedy in _REMEDIES.items() if said in problem), "")


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
    label = name or str(file or "config")
    try:
        found = section.model_validate(data, strict=False, context=context)
    except ValidationError as exc:
        raise (None if at else _mistaken(data, section, label)) or _problems(exc, data, section, _lines_of(file), label, at) from exc
    _refuse_truth(data, found, lambda: _lines_of(file), label, at)
    return found


def _refuse_truth(data: Any, found: Section, lines: Callable[[], dict[Path_, int]], name: str, at: Path_ = ()) -> None:
    """What is not strict, so that a list may stand for a tuple, takes true and false for the numbers 1 and 0: nobody means that.

    Raises:
        ConfigError: One of them stands where a number is meant.
    """
    if misread := list(_taken_for_numbers(data, found)):
        where = ((_located((*at, *keys), lines(), name), ".".join(map(str, (*at, *keys))), str(value).lower()) for keys, value in misread)
        raise ConfigError("\n".join(f"{place}: '{key}': expected a number, found {value}; write the number itself" for place, key, value in where))


def _taken_for_numbers(given: Any, found: Any) -> Iterator[tuple[Path_, bool]]:
    """The keys to each true or false of `given` that became a number in what was `found` there."""
    if isinstance(given, bool):
        if isinstance(found, int | float) and not isinstance(found, bool):
            yield (), given
        return
    for key, value in given.items() if isinstance(given, dict) else enumerate(given) if isinstance(given, list) else ():
        yield from (((key, *keys), truth) for keys, truth in _taken_for_numbers(value, _at(found, key)))


def _at(found: Any, key: Any) -> Any:
    """What was read under `key`; None where it was not taken over as it was given."""
    if isinstance(found, BaseModel):
        return getattr(found, key, None)
    if isinstance(found, dict):
        return found.get(key)
    return found[key] if isinstance(found, list | tuple) and isinstance(key, int) and key < len(found) else None


def _mistaken(data: Any, section: type[BaseModel], name: str) -> ConfigError | None:
    """The error for a file that is well known, but meant for another command."""
    kinds = (kind for keys, kind in _KINDS if isinstance(data, dict) and keys <= set(data) and not keys <= set(section.model_fields))
    return next((ConfigError(f"{name} is {kind}") for kind in kinds), None)


def located(at: Path_, file: Path | None) -> str:
    """FILE:LINE of the key that `at` leads to, as far as that is known."""
    return _located(at, _lines_of(file), str(file or "config"))


@contextmanager
def named_at(at: Path_, file: Path | None) -> Iterator[None]:
    """What is wrong with a file that a key of another one names, told with that key and its place before it.

    Raises:
        ConfigError: The block raises one.
    """
    try:
        yield
    except ConfigError as exc:
        raise ConfigError(f"{located(at, file)}: '{'.'.join(map(str, at))}': {exc}") from exc


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


def _problems(exc: ValidationError, data: Any, section: type[BaseModel], lines: dict[Path_, int], name: str, at: Path_ = ()) -> ConfigError:
    errors = [(error, _keys_to(error, data)) for error in exc.errors()]
    wrong_within = {keys[:n] for _, keys in errors for n in range(len(keys))}
    told: dict[Path_, list[ErrorDetails]] = defaultdict(list)
    for error, keys in errors:
        of_union = keys != tuple(error["loc"])  # one thing of several that may stand there; what is wrong within is nearer to the point
        if keys not in wrong_within or not (of_union or error["type"] == "too_short"):
            told[keys].append(error)
    return ConfigError("\n".join(f"{_located((*at, *keys), lines, name)}: {_explain(alike, keys, section, at)}" for keys, alike in told.items()))


def _keys_to(error: ErrorDetails, data: Any) -> Path_:
    """The keys that lead to what is wrong: where several things may stand, pydantic puts a name of its own for each of them among the keys."""
    keys: list[int | str] = []
    for part in error["loc"]:
        within = part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int) and part < len(data)
        if within:
            data = data[part]
        if within or (error["type"] == "missing" and part == error["loc"][-1]):
            keys.append(part)
    return tuple(keys)


def _collect_lines(node: yaml.Node | None, at: Path_, lines: dict[Path_, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, key.value)
            if here in lines:  # YAML's reader takes the last of them without a word
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands twice, first in line {lines[here]}; keep one", problem_mark=key.start_mark)
            lines[here] = key.start_mark.line + 1
            _collect_lines(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[(*at, i)] = item.start_mark.line + 1
            _collect_lines(item, (*at, i), lines)


def _located(at: Path_, lines: dict[Path_, int], name: str) -> str:
    known = next((at[:n] for n in range(len(at), 0, -1) if at[:n] in lines), ())
    return f"{name}:{lines[known]}" if known else name


def _explain(errors: Sequence[ErrorDetails], keys: Path_, section: type[BaseModel], at: Path_) -> str:
    dotted = ".".join(str(part) for part in (*at, *keys))
    if errors[0]["type"] == "extra_forbidden":
        valid = _keys_at(section, keys[:-1])
        hint = did_you_mean(str(keys[-1]), valid, otherwise=f"valid keys here: {', '.join(valid)}")
        return f"unknown key '{dotted}'; {hint}{_split_off(errors[0], keys)}"
    if errors[0]["type"] == "missing":
        return f"the key '{dotted}' is missing"
    said = ", or ".join(dict.fromkeys(_said(error, keys, section) for error in errors))
    return f"'{dotted}': {said}" if dotted else said


def _split_off(error: ErrorDetails, keys: Path_) -> str:
    """What to do about a key that is what stood behind a comma of a number."""
    split = error["input"] is None and str(keys[-1]).replace(".", "").isdecimal()
    return "; within {...} a comma ends a value: write 1.5, not 1,5, and 1000, not 1,000" if split else ""


def _said(error: ErrorDetails, keys: Path_, section: type[BaseModel]) -> str:
    if error["type"] == "too_short" and "min_length" in error.get("ctx", {}):
        return f"needs at least {error['ctx']['min_length']}"
    if error["type"] in _SHAPES:
        valid = _keys_at(section, keys)
        if error["type"] == "dict_type" and valid:
            return f"expected names, each on a line below it, and below each of them keys with values: {', '.join(valid)}"
        return _SHAPES[error["type"]] + (f": {', '.join(valid)}" if valid and error["type"] not in _LISTS else "")
    return error["msg"].removeprefix("Value error, ") + (_misread(error["input"]) if error["type"] == "string_type" else "")


def _misread(value: Any) -> str:
    """What to do about a text that YAML takes for something else."""
    if isinstance(value, bool):
        return f"; YAML takes it for {str(value).lower()}: put it in quotes"
    found = "a number" if isinstance(value, int | float) else "a date" if isinstance(value, date) else ""
    return found and f"; YAML takes it for {found}: put it in quotes"


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
