"""The documentation holds together: links and anchors lead somewhere, no page is lost, and what is written from the code is what the code says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from scripts import script

from safer_instruct.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "safer_instruct"
PAGES = sorted({*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "bench" / "README.md"})


rooms = script("tools/reference/rooms.py")


def prose(page: Path) -> str:
    """The page without its blocks and pieces of code, whose brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", without_blocks(page))


def without_blocks(page: Path) -> str:
    return re.sub(r"^(```|~~~).*?^\1", "", page.read_text("utf-8"), flags=re.M | re.S)


def links(page: Path) -> set[str]:
    return {link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not re.match(r"[a-z]+:", link)}


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings; the second of two equal ones gets a number."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", without_blocks(page), re.M):
        said = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", said.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found)


def broken(page: Path) -> Iterator[str]:
    for link in sorted(links(page)):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists():
            yield f"{link}: there is no {target}"
        elif anchor and anchor not in anchors(target):
            yield f"{link}: no heading of {target.name} gives the anchor '{anchor}'"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page: Path) -> None:
    assert list(broken(page)) == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"\b((?:bench|deploy|tests|examples)/[\w./-]+\.(?:py|yaml|sbatch|jsonl|csv))", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_a_broken_link_and_a_wrong_anchor_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`: three\n[a](page.md#one-two-three) [b](#one) [c](none.md) `[d](none.md)` [e](https://x.y)\n```\n[f](none.md)\n```\n", "utf-8")
    assert [link.partition(":")[0] for link in broken(page)] == ["#one", "none.md"]


def test_every_page_stands_once_in_the_navigation_of_the_site() -> None:
    listed = re.findall(r"^- \[[^\]]+\]\(([\w./-]+\.md)\)", (DOCS / "index.md").read_text("utf-8"), re.M)
    own = [link for link in listed if not link.startswith("..")]
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}
    assert len(listed) == len(set(listed)) and set(own) == pages, "each page of docs/ needs one bullet in docs/index.md"


def test_what_is_written_from_the_code_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, "-W", "error", str(ROOT / "tools" / "reference"), "--check"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield before + name, command


def test_the_page_of_the_command_line_has_what_the_parser_takes() -> None:
    page = (DOCS / "reference" / "cli.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    parsers = dict(commands(typer.main.get_command(app)))
    assert sections.keys() == parsers.keys()
    for name, parser in parsers.items():
        taken = {opt for parameter in parser.params for opt in parameter.opts if opt.startswith("--")}
        assert set(re.findall(r"^\| `(--[a-z-]+)", sections[name], re.M)) == taken, name


def test_functions_that_the_way_of_one_text_names_are_there() -> None:
    page, picture = (DOCS / "architecture.md").read_text("utf-8"), (DOCS / "architecture.svg").read_text("utf-8")
    named = {*re.findall(r"`((?:\w+\.)+\w+)`", page), *re.findall(r'<text class="files"[^>]*>((?:\w+\.)+\w+)</text>', picture)}
    functions = {name for name in named if not name.endswith((".py", ".sqlite", ".jsonl", ".parquet"))}
    assert len(functions) > 20 and [name for name in sorted(functions) if not defined(name)] == []


def defined(dotted: str) -> bool:
    """Whether a module of the package defines, or passes on, that name."""
    module, _, name = dotted.rpartition(".")
    path = SOURCE.joinpath(*module.split("."))
    file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    return file.is_file() and any(getattr(node, "name", None) == name for node in ast.walk(ast.parse(file.read_text("utf-8"))))


def test_the_rooms_hold_every_module_once_and_import_only_from_below() -> None:
    imports = rooms.room_imports(rooms.module_imports())
    assert imports["pipeline"] >= {"stages", "filters", "sources", "models and ledger"} and imports["records"] == set()
    assert "pipeline" not in set().union(*(imports[room.name] for _, held in rooms.LAYERS[3:] for room in held))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"newroom": {"errors"}}, "in no room, or gone: newroom"),
        ({"errors": {"pipeline"}}, "imports point upwards: errors -> pipeline"),
        ({"export": {"report"}, "report": {"export"}}, "cycle"),
    ],
)
def test_a_module_without_a_room_an_upward_import_and_a_circle_are_found(change: dict[str, set[str]], said: str) -> None:
    modules = rooms.module_imports()
    with pytest.raises(ValueError, match=said):
        rooms.room_imports({**modules, **{name: modules.get(name, set()) | targets for name, targets in change.items()}})


def test_the_picture_has_an_arrow_for_each_import_that_no_other_one_implies_and_no_more() -> None:
    drawn = re.findall(r"<title>(.+?) imports from (.+?)</title>", (DOCS / "architecture.svg").read_text("utf-8"))
    assert len(drawn) == len(set(drawn))
    imports, arrows = rooms.room_imports(rooms.module_imports()), {room.name: {target for name, target in drawn if name == room.name} for room in rooms.ROOMS}
    assert all(arrows[name] <= imports[name] for name in arrows)

    def reached(name: str, among: dict[str, set[str]]) -> set[str]:
        return set().union(*({target} | reached(target, among) for target in among[name]))

    assert {name: reached(name, arrows) for name in arrows} == {name: reached(name, imports) for name in arrows}
    assert sum(map(len, arrows.values())) == sum(map(len, rooms.direct(imports).values()))
