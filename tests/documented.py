"""What README, docs/, CONTRIBUTING and bench/README hold that can be executed: blocks, the commands in them, and commands named in the running text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PROGRAMS = ("safer-instruct", "python", "python3", "python3.11", "pip", "make", "bench/", "accelerate", "docker", "kubectl", "sbatch", "mkdocs")
SHELLS = ("sh", "bash", "shell", "console")
_RUNNABLE_SPAN = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:safer-instruct|python3?|pip|make|bench/\w+\.py)(?: |$)")


class Block(NamedTuple):
    """One block of code of a page.

    Attributes:
        page: The page, from the root of the repository.
        line: Its first line there.
        kind: What stands behind the fence; `sh` also for a block without it that begins with a program.
        text: What it says.
    """

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """One command of a page, without its comment; `shown` is what the page says that it prints, None where it does not say."""

    page: str
    line: int
    text: str
    shown: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def pages() -> list[str]:
    """Every page, from the root of the repository; docs/reference is made from the code, and compared with it by a test of its own."""
    found = [*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md"))]
    return sorted(name for name in (str(path.relative_to(ROOT)) for path in found) if not name.startswith("docs/reference/"))


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """Fenced and indented blocks, in lists too, in the order of the page."""
    return tuple(_blocks(page, (ROOT / page).read_text("utf-8")))


def _blocks(page: str, text: str) -> Iterator[Block]:
    for token in MarkdownIt().parse(text):
        if token.type not in ("fence", "code_block"):
            continue
        assert token.map is not None
        kind = token.info.split()[0] if token.info.strip() else ""
        if kind in SHELLS or (not kind and token.content.split(maxsplit=1)[:1] and token.content.split(maxsplit=1)[0].startswith((*PROGRAMS, "export", "cat"))):
            kind = "sh"
        yield Block(page, token.map[0] + 1 + (token.type == "fence"), kind, token.content)


def commands(block: Block) -> list[Command]:
    """The commands of a block: each line of a shell's, and in a `text` block what stands behind `$ `, with what it printed."""
    if block.kind == "sh":
        return [Command(block.page, block.line + n, text) for n, line in _joined(block.text) if (text := _bare(line))]
    if block.kind != "text" or not block.text.startswith("$ "):
        return []
    found, lines = [], block.text.splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith("$ ")]
    for n, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        found.append(Command(block.page, block.line + n, _bare(lines[n][2:]), "\n".join(lines[n + 1 : end]).strip("\n")))
    return found


def spans(page: str) -> list[Command]:
    """Commands between backquotes in the running text."""
    found = []
    for token in MarkdownIt().enable("table").parse((ROOT / page).read_text("utf-8")):
        for child in token.children or []:
            if child.type == "code_inline" and _RUNNABLE_SPAN.match(child.content):
                found += [Command(page, (token.map or [0])[0] + 1, part.strip()) for part in child.content.split("&&")]
    return found


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Lines, those that end in a backslash with what follows."""
    start, whole = 0, ""
    for n, line in enumerate(text.splitlines()):
        start = start if whole else n
        whole += line.removesuffix("\\") if line.endswith("\\") else line
        if not line.endswith("\\"):
            yield start, whole
            whole = ""


def _bare(line: str) -> str:
    """A line without its comment: what follows a `#` that stands free and outside of quotes."""
    quote = ""
    for n, letter in enumerate(line):
        if letter in "'\"":
            quote = "" if letter == quote else quote or letter
        elif letter == "#" and not quote and (n == 0 or line[n - 1].isspace()):
            return line[:n].strip()
    return line.strip()
