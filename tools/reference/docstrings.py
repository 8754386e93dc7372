"""Google docstrings, read for the reference pages."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import Any

_SECTIONS = ("Args", "Attributes", "Raises", "Returns")
_HEAD = re.compile(rf"^({'|'.join(_SECTIONS)}):$")
_ENTRY = re.compile(r"^    (\*{0,2}[\w.]+): (.*)$")
_PAGE = re.compile(r"(?<![\w/\[`])(?<!\]\()(docs/)([\w-]+\.md)")
_ELSEWHERE = re.compile(r"(?<![\w/\[`])(?<!\]\()((?:bench|examples)/[\w./-]+\.(?:md|yaml|py))")


@dataclass(frozen=True)
class Docstring:
    """A docstring, taken apart.

    Attributes:
        text: What stands before the sections: paragraphs, indented blocks kept.
        entries: By section, name -> meaning on one line.
        free: By section, what stands there without names (`Returns`).
    """

    text: str
    entries: dict[str, dict[str, str]] = field(default_factory=dict)
    free: dict[str, str] = field(default_factory=dict)


def read(thing: Any) -> Docstring:
    """The docstring of a class or function itself, nothing inherited."""
    return parse(inspect.cleandoc(thing.__doc__ or ""))


def parse(text: str) -> Docstring:
    """Take a docstring without common indentation apart."""
    before: list[str] = []
    entries: dict[str, dict[str, str]] = {}
    free: dict[str, str] = {}
    section = last = ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            section, last = head[1], ""
            entries[section] = {}
        elif section and line.strip() and not line.startswith(" "):
            section = ""
        if not section:
            before.append(line)
        elif entry := _ENTRY.match(line):
            last = entry[1]
            entries[section][last] = entry[2]
        elif last and line.strip():
            entries[section][last] += f" {line.strip()}"
        elif line.strip() and not head:
            free[section] = f"{free.get(section, '')} {line.strip()}".strip()
    return Docstring("\n".join(before).strip(), entries, free)


def meanings(class_: type) -> dict[str, str]:
    """Field -> meaning, from the `Attributes` of the class and of those that it inherits from; the nearest wins."""
    found: dict[str, str] = {}
    for each in class_.__mro__:
        if each.__module__.startswith("safer_instruct"):
            found = read(each).entries.get("Attributes", {}) | found
    return found


def linked(text: str) -> str:
    """Docstring prose as Markdown of a page in docs/reference: pages and files that it names are links."""
    return _ELSEWHERE.sub(r"[\1](../../\1)", _PAGE.sub(r"[\2](../\2)", text))


def cell(text: str) -> str:
    """`text` as a cell of a table."""
    return linked(text).replace("|", "\\|").replace("\n", " ")


def block(text: str) -> str:
    """The prose of a docstring as Markdown: indented blocks become fenced ones, everything else stays."""
    out: list[str] = []
    for part in re.split(r"\n\n+", text):
        lines = part.splitlines()
        if lines and all(line.startswith("    ") for line in lines):
            out.append("```text\n" + "\n".join(line[4:] for line in lines) + "\n```")
        else:
            out.append(linked(" ".join(line.strip() for line in lines)))
    return "\n\n".join(out)
