"""Which filters there are, and those that a config asks for: shipped, from another package, or from a file beside the config."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from safer_instruct.config import FilterConfig
from safer_instruct.errors import ConfigError, SaferInstructError
from safer_instruct.filters.checks import Check
from safer_instruct.filters.protocol import Filter, Place
from safer_instruct.nearest import did_you_mean
from safer_instruct.oneline import one_line
from safer_instruct.yamlfile import located, parse_part

GROUP = "safer_instruct.filters"
"""The entry point group that other packages announce filters in."""
SHIPPED = {
    "length": "rules:Length",
    "template": "rules:Template",
    "refusal": "rules:Refusal",
    "copying": "rules:Copying",
    "repetition": "rules:Repetition",
    "language": "rules:Language",
    "leakage": "detected:Leakage",
    "refusing": "detected:Refusing",
    "pii": "detected:Pii",
    "secrets": "detected:Secrets",
    "injection": "detected:Injection",
    "gibberish": "detected:Gibberish",
    "contamination": "detected:Contamination",
    "gopher": "crawled:Gopher",
    "gopher-repetition": "crawled:GopherRepetition",
    "c4": "crawled:C4",
    "fineweb": "crawled:FineWeb",
}
"""Name -> MODULE:CLASS below `safer_instruct.filters`; imported when asked for."""
DEFAULTS: dict[Place, tuple[str, ...]] = {
    "text": (),
    "prompt": ("length", "template", "refusal", "copying", "repetition", "language"),
    "pair": (),
}
"""What is on without being named, in this order; what a config adds comes after."""
_INSTEAD = {"refusal": "refusing"}
"""A filter of instructions -> the one that finds the same in texts and pairs."""
_OURS = ("path", "use")  # keys of an entry that are not for the filter


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a run that need no model, by where they look."""

    text: tuple[Check, ...] = ()
    prompt: tuple[Check, ...] = ()
    pair: tuple[Check, ...] = ()

    def record(self) -> dict[str, dict[str, Any]]:
        """What the verdicts depend on, for `run.yaml`: every filter with all its options, and the digest of those from outside."""
        places = {"text": self.text, "prompt": self.prompt, "pair": self.pair}
        return {place: {check.name.partition(".")[2]: _record(check) for check in checks} for place, checks in places.items()}


@dataclass(frozen=True, slots=True)
class _Asked:
    """An entry of a config: where it stands and what it says."""

    place: Place
    name: str
    options: dict[str, Any]
    base: Path
    file: Path | None

    @property
    def where(self) -> str:
        return located(("filter", self.place, self.name), self.file)


def open_filters(config: FilterConfig, base: Path, file: Path | None = None) -> Filters:
    """The filters that `config` asks for, ready to be asked.

    Args:
        config: The section `filter`.
        base: The folder that paths are relative to.
        file: Where the config was read from, for line numbers.

    Raises:
        ConfigError: There is no such filter, its options are not valid, or a user's file is broken.
        MissingExtraError: A filter needs what is not installed.
    """
    opened = {place: tuple(_open(asked) for asked in _asked(config, place, base, file)) for place in DEFAULTS}
    return Filters(**opened)


def _asked(config: FilterConfig, place: Place, base: Path, file: Path | None) -> Iterator[_Asked]:
    """The defaults of a place and what the config says besides, without what it switches off."""
    named: dict[str, dict[str, Any] | None] | None = getattr(config, place)
    if named is None:
        return
    on: dict[str, dict[str, Any] | None] = {name: {} for name in DEFAULTS[place]}
    for name, options in (on | named).items():
        asked = _Asked(place, name, options or {}, base, file)
        if options is not None:
            yield asked
        elif name not in SHIPPED and (hint := did_you_mean(name, SHIPPED, cutoff=0.7)):  # off as it is, so something else was meant
            raise ConfigError(f"{asked.where}: there is no filter '{name}' to switch off; {hint}")


def _open(asked: _Asked) -> Check:
    use, path = asked.options.get("use", asked.name), asked.options.get("path")
    if path is not None and "use" in asked.options:
        raise ConfigError(f"{asked.where}: filter '{asked.name}' has both 'use' and 'path'; one of them says what it is")
    if path is not None:
        filter_, sha256 = _from_file(str(path), asked)
    elif use in SHIPPED:
        module, _, name = SHIPPED[use].partition(":")
        filter_, sha256 = getattr(import_module(f"safer_instruct.filters.{module}"), name), None
    else:
        filter_, sha256 = _from_entry_point(str(use), asked)
    return Check(f"{asked.place}.{asked.name}", _configured(filter_, asked), sha256)


def _configured(filter_: type[Filter], asked: _Asked) -> Filter:
    """The filter with its options, told where it stands."""
    at = ("filter", asked.place, asked.name)
    places: tuple[Place, ...] = get_args(filter_.model_fields["on"].annotation)
    if asked.place not in places:
        instead = f", or write '{other}', which finds that here" if (other := _INSTEAD.get(str(asked.options.get("use", asked.name)))) else ""
        there = " or ".join(f"filter.{p}" for p in places)
        raise ConfigError(f"{asked.where}: filter '{asked.name}' cannot look at '{asked.place}'; move it to {there}{instead}")
    if "on" in asked.options:
        raise ConfigError(f"{asked.where}: unknown key '{'.'.join((*at, 'on'))}'; the section says it: {', '.join(f'filter.{p}' for p in places)}")
    options = {name: value for name, value in asked.options.items() if name not in _OURS}
    try:
        return parse_part({**options, "on": asked.place}, filter_, at=at, file=asked.file, context={"base": asked.base})
    except SaferInstructError:
        raise
    except Exception as exc:  # a user's filter may do anything while it is set up
        raise ConfigError(f"{asked.where}: filter '{asked.name}' cannot be set up: {_told(exc)}") from exc


def _from_file(path: str, asked: _Asked) -> tuple[type[Filter], str]:
    """The filter that a file of the user's defines. The file is run: it is code, with the rights of whoever runs the config."""
    file = asked.base / path
    try:
        source = file.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{asked.where}: filter '{asked.name}': {file} cannot be read ({exc.strerror})") from exc
    sha256 = hashlib.sha256(source).hexdigest()
    module = ModuleType(f"safer_instruct_filter_{sha256[:16]}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # where annotations are looked up
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)  # noqa: S102 - the bytes that were digested
    except SaferInstructError:
        raise
    except SyntaxError as exc:
        raise ConfigError(f"{file}:{exc.lineno}: not valid Python: {exc.msg} (filter '{asked.name}' of {asked.where})") from exc
    except Exception as exc:
        raise ConfigError(f"{asked.where}: filter '{asked.name}': {file} cannot be loaded: {_told(exc)}") from exc
    found = [value for value in vars(module).values() if _is_filter(value) and value.__module__ == module.__name__]
    if len(found) != 1:
        named = f"{len(found)}: {', '.join(f.__name__ for f in found)}" if found else "none"
        raise ConfigError(f"{asked.where}: {file} must define one subclass of safer_instruct.filters.Filter with a method 'check'; it defines {named}")
    return found[0], sha256


def _from_entry_point(name: str, asked: _Asked) -> tuple[type[Filter], str]:
    """The filter that another package announces by that name."""
    found = list(metadata.entry_points(group=GROUP, name=name))
    if not found:
        known = sorted({*SHIPPED, *metadata.entry_points(group=GROUP).names})
        hint = did_you_mean(name, known, otherwise=f"there are {', '.join(known)}.")
        raise ConfigError(f"{asked.where}: there is no filter '{name}'; {hint} A filter of your own needs 'path'")
    if len(found) > 1:
        raise ConfigError(f"{asked.where}: several packages announce a filter '{name}': {', '.join(e.value for e in found)}; uninstall all but one")
    try:
        filter_ = found[0].load()
    except SaferInstructError:
        raise
    except Exception as exc:
        raise ConfigError(f"{asked.where}: filter '{name}' ({found[0].value}) cannot be loaded: {_told(exc)}") from exc
    if not _is_filter(filter_):
        raise ConfigError(f"{asked.where}: filter '{name}' ({found[0].value}) is no subclass of safer_instruct.filters.Filter with a method 'check'")
    return filter_, hashlib.sha256(Path(inspect.getfile(filter_)).read_bytes()).hexdigest()


def _is_filter(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Filter) and not inspect.isabstract(value)


def _told(exc: Exception) -> str:
    return one_line(f"{type(exc).__name__}: {exc}")


def _record(check: Check) -> dict[str, Any]:
    options = check.filter.model_dump(mode="json", exclude={"on"})
    return {**options, "sha256": check.sha256} if check.sha256 else options
