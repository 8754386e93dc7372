"""docs/reference/cli.md: every command with its arguments and options, from the typer app itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import docstrings
import typer
from typer.models import ArgumentInfo, Context, OptionInfo

from safer_instruct.cli import app

_HEAD = """\
# Command line

Every command, as `safer-instruct COMMAND --help` tells it too. An error is one line on standard error and exit code 2; with
`--debug` behind the command it is a traceback. Ctrl-C ends a run with exit code 130, SIGTERM with 143 and SIGHUP with
129, and the same command goes on with it.
"""
_WORDS = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}


def page() -> str:
    """The whole page."""
    parts = [_HEAD, _table("", "Option", _parameters(_callback(app)))]
    groups: list[str] = []
    for group in app.registered_groups:
        groups += [_command(f"{group.name} {info.name or _dashed(info.callback)}", info.callback) for info in group.typer_instance.registered_commands]
    singles = [_command(info.name or _dashed(info.callback), info.callback) for info in app.registered_commands]
    return "\n".join([*parts, *singles, *groups])


def _callback(of: typer.Typer) -> Callable[..., Any]:
    return next(info.callback for info in [of.registered_callback] if info and info.callback)


def _dashed(function: Any) -> str:
    return function.__name__.replace("_", "-")


def _command(name: str, function: Any) -> str:
    parameters = list(_parameters(function))
    arguments = [p for p in parameters if p[0]]
    usage = " ".join(["safer-instruct", name, *(p[1] for p in arguments), *(["[OPTIONS]"] if len(parameters) > len(arguments) else [])])
    text = docstrings.block(inspect.cleandoc(function.__doc__ or ""))
    tables = (_table(name, "Argument", arguments), _table(name, "Option", [p for p in parameters if not p[0]]))
    return "\n".join([f"## {name}\n", f"```text\n{usage}\n```\n", f"{text}\n", *filter(None, tables)])


Parameter = tuple[bool, str, str, str]
"""Whether it is an argument, how it is written, its default, what it means."""


def _parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if hints[name] is Context:  # what typer itself gives
            continue
        info = next(m for m in hints[name].__metadata__ if isinstance(m, ArgumentInfo | OptionInfo))
        if not info.help:
            raise SystemExit(f"{function.__module__}.{function.__name__}: '{name}' has no help; give its typer.Option or typer.Argument one")
        kinds = [k for k in get_args(get_args(hints[name])[0]) if k is not NoneType] or [get_args(hints[name])[0]]
        needed = parameter.default is inspect.Parameter.empty
        yield _one(name, info, kinds[0], "" if needed else _default(parameter.default), needed)


def _one(name: str, info: ArgumentInfo | OptionInfo, kind: Any, default: str, needed: bool) -> Parameter:
    several = " ..." if get_args(kind) else ""
    kind = get_args(kind)[0] if get_args(kind) else kind
    means = docstrings.cell(info.help or "") + _bounds(info)
    if isinstance(info, ArgumentInfo):
        shown = (info.metavar or name.strip("_").upper()) + several
        return True, shown if needed else f"[{shown}]", default, means
    flag = " ".join(_declared(info)) or f"--{name.strip('_').replace('_', '-')}"
    if kind is bool:
        return False, flag, "", means
    choices = "|".join(str(c.value) for c in kind) if isinstance(kind, type) and issubclass(kind, Enum) else ""
    return False, f"{flag} {info.metavar or choices or _WORDS[kind]}{several}", default, means + (" Needed." if needed else "")


def _declared(info: ArgumentInfo | OptionInfo) -> list[str]:
    """The flags that are written out; typer takes the first of them for `default` until it makes a command of the function."""
    first = [info.default] if isinstance(info.default, str) and info.default.startswith("-") else []
    return [*first, *(info.param_decls or ())]


def _bounds(info: ArgumentInfo | OptionInfo) -> str:
    low, high = ("" if bound is None else f"{bound:g}" for bound in (info.min, info.max))
    return f" ({low} to {high})" if low and high else f" ({low} or more)" if low else f" (at most {high})" if high else ""


def _default(value: Any) -> str:
    if value is None or value is False:
        return ""
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _table(command: str, title: str, rows: Any) -> str:
    lines = [f"| `{written.replace('|', chr(92) + '|')}` | {default} | {means} |" for _, written, default, means in rows]
    return "\n".join([f"| {title} | Default | Meaning |", "|---|---|---|", *lines]) + "\n" if lines else ""
