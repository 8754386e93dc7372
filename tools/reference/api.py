"""docs/reference/python.md: the public names, from their signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import docstrings
from pydantic import BaseModel

_HEAD = """\
# Python API

These names are public: they change with a new major version only, and before 1.0 with a new minor one. `import safer_instruct` costs
nothing; what is heavy is imported by what uses it. Whatever goes wrong is a `SaferInstructError` whose message says what was wrong, where,
and what to do.
"""
_ROOMS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Runs", "safer_instruct", ("load_config", "run")),
    ("Runs", "safer_instruct.pipeline", ("RunResult",)),
    ("An inducer of one's own", "safer_instruct", ("load_tune_config", "tune")),
    ("An inducer of one's own", "safer_instruct.tuning.tune", ("TuneResult",)),
    ("A filter of one's own", "safer_instruct.filters", ("Filter", "Finding")),
    ("What a filter sees", "safer_instruct.example", ("Example", "Candidate", "Draft", "Verdict", "Turn")),
    ("Audit", "safer_instruct.audit", ("read_set", "PairSet", "audit_set", "Finding")),
    ("Detectors, duplicates, style", "safer_instruct.detect.refusal", ("classify", "RefusalFinding")),
    ("Detectors, duplicates, style", "safer_instruct.filters.refusal_reader", ("RefusalReader",)),
    ("Detectors, duplicates, style", "safer_instruct.filters.near", ("deduplicate", "Deduplicated")),
    ("Detectors, duplicates, style", "safer_instruct.analysis.style", ("length_gap", "LengthGap", "separability", "Separability")),
    ("Export", "safer_instruct.export", ("export_pairs", "Options", "Exported", "parse_splits")),
    ("Training and evaluation", "safer_instruct.settings.preference", ("load_sft_config", "load_dpo_config")),
    ("Training and evaluation", "safer_instruct.training.run", ("train_preferences",)),
    ("Training and evaluation", "safer_instruct.training.result", ("TrainResult",)),
    ("Training and evaluation", "safer_instruct.evaluation", ("load_evaluation", "evaluate", "Evaluation")),
    ("Training and evaluation", "safer_instruct.study", ("load_study",)),
    ("Training and evaluation", "safer_instruct.study", ("study", "StudyResult")),
    ("Models", "safer_instruct.models", ("open_model",)),
    (
        "Models",
        "safer_instruct.models.protocol",
        ("Model", "Generation", "Sampling", "Schema", "Generated", "Completion", "Scoring", "Scored", "Usage"),
    ),
)


def page() -> str:
    """The whole page."""
    parts, title = [_HEAD], ""
    for heading, module, names in _ROOMS:
        if heading != title:
            parts.append(f"## {heading}\n")
            title = heading
        for name in names:
            parts += _described(module, name, getattr(import_module(module), name))
    return "\n".join([*parts, *_errors()])


def _described(module: str, name: str, thing: Any) -> Iterator[str]:
    if not thing.__doc__:
        raise SystemExit(f"{module}.{name} has no docstring")
    yield f"### {module}.{name}\n"
    if isinstance(thing, type):
        yield docstrings.block(docstrings.read(thing).text) + "\n"
        if fields := _fields(thing):
            yield fields
        yield from _methods(thing)
    else:
        yield from _function(name, thing)


def _function(name: str, function: Callable[..., Any]) -> Iterator[str]:
    yield f"```python\n{_signature(name, function)}\n```\n"
    told = docstrings.read(function)
    yield docstrings.block(told.text) + "\n"
    for section, title in (("Args", "Argument"), ("Raises", "Raises")):
        if rows := told.entries.get(section):
            lines = [f"| `{row}` | {docstrings.cell(meaning)} |" for row, meaning in rows.items()]
            yield "\n".join([f"| {title} | |", "|---|---|", *lines]) + "\n"
    if returns := told.free.get("Returns"):
        yield f"Returns: {docstrings.linked(returns)}\n"


def _signature(name: str, function: Callable[..., Any]) -> str:
    """As it stands in the code, one parameter a line where one line is too long."""
    found = inspect.signature(function)
    short = {p.name: p.replace(annotation=_plain(p.annotation), default=_shown(p.default)) for p in found.parameters.values()}
    signature = found.replace(parameters=list(short.values()), return_annotation=_plain(found.return_annotation))
    prefix = "async def" if inspect.iscoroutinefunction(function) else "def"
    line = f"{prefix} {name}{signature}"
    if len(line) <= 100:
        return line
    pieces, keyword = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keyword:
            keyword = True
            pieces.append("*")
        pieces.append(str(parameter))
    back = "" if signature.return_annotation is inspect.Signature.empty else f" -> {signature.return_annotation}"
    return f"{prefix} {name}(\n" + "".join(f"    {piece},\n" for piece in pieces) + f"){back}"


class _Text:
    """A text that stands for itself where Python would quote it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


def _plain(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return annotation
    if isinstance(annotation, type):
        return _Text(annotation.__name__)
    return _Text(re.sub(r"\b(?:[a-z_]+\.)+", "", getattr(annotation, "__forward_arg__", None) or str(annotation)))


def _shown(default: Any) -> Any:
    return _Text("...") if callable(default) and default is not inspect.Parameter.empty else default


def _fields(class_: type) -> str:
    means = docstrings.meanings(class_)
    lines = ["| Field | Type | Default | Meaning |", "|---|---|---|---|"]
    found: list[tuple[str, Any, str]] = []
    if issubclass(class_, BaseModel):
        found = [(n, class_.__annotations__.get(n, i.annotation), "" if i.is_required() else repr(i.default)) for n, i in class_.model_fields.items()]
    elif dataclasses.is_dataclass(class_):
        found = [(f.name, f.type, _given(f)) for f in dataclasses.fields(class_)]
    elif issubclass(class_, tuple):
        defaults = getattr(class_, "_field_defaults", {})
        found = [(n, class_.__annotations__[n], repr(defaults[n]) if n in defaults else "") for n in getattr(class_, "_fields", ())]
    for name, type_, default in found:
        if name not in means:
            raise SystemExit(f"{class_.__module__}.{class_.__name__}: '{name}' has no meaning; add it to 'Attributes:' of the docstring")
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{name}` | {docstrings.cell(f'`{_plain(type_)}`')} | {shown} | {docstrings.cell(means[name])} |")
    return "\n".join(lines) + "\n" if found else ""


def _given(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    return "" if field.default_factory is dataclasses.MISSING else "empty"


def _methods(class_: type) -> Iterator[str]:
    for name, member in vars(class_).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        yield f"#### {class_.__name__}.{name}\n"
        if isinstance(member, property):
            yield docstrings.block(docstrings.read(function).text) + "\n"
        else:
            yield from _function(name, function)


def _errors() -> Iterator[str]:
    errors = import_module("safer_instruct.errors")
    yield "## Errors\n\nAll stand in `safer_instruct.errors`.\n"
    yield docstrings.block(inspect.cleandoc(errors.__doc__ or "").partition("\n\n")[2]) + "\n"
