"""The rooms of the package and who imports whom, read from the imports themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[2] / "src" / "safer_instruct"


@dataclass(frozen=True)
class Room:
    """Modules and folders that belong together.

    Attributes:
        name: As the picture has it.
        holds: Top-level modules of the package, folders with a slash behind them.
        what: Its purpose, in a few words.
    """

    name: str
    holds: tuple[str, ...]
    what: str

    @property
    def modules(self) -> set[str]:
        """Their names as they are imported."""
        return {held.rstrip("/") for held in self.holds}


LAYERS: tuple[tuple[str, tuple[Room, ...]], ...] = (
    (
        "What is typed",
        (
            Room(
                "command line",
                ("__init__", "__main__", "cli", "commands/", "views/", "doctor", "estimate"),
                "parse, call, print, exit code; a view for each command",
            ),
        ),
    ),
    (
        "What people get",
        (
            Room("audit", ("audit/", "auditing", "judging"), "what is wrong with anybody's pairs"),
            Room("report", ("report/",), "one page about one run"),
            Room("export", ("export/", "selected"), "formats, splits, cards, hub"),
            Room("review", ("review/",), "people read, decide, correct"),
            Room("calibrate", ("calibration/",), "thresholds from labels"),
            Room("terminal", ("terminal", "bars"), "stages, funnel, samples"),
            Room("start", ("starter", "domainfile", "domaincheck"), "commented configs and domains"),
        ),
    ),
    (
        "The flow",
        (
            Room("runners", ("runners/",), "the same flow on a Ray cluster"),
            Room("twins", ("twins/",), "harmless look-alikes of pairs"),
            Room("pipeline", ("pipeline", "collect", "distinct", "equipment", "ordered"), "the method, from top to bottom"),
            Room("study", ("study/",), "what are the pairs worth?"),
            Room("training", ("training/",), "SFT and DPO on the pairs"),
            Room("evaluation", ("evaluation/",), "which model is more harmless?"),
        ),
    ),
    (
        "A run's books",
        (
            Room("remote", ("remote/",), "runs at an address in a bucket"),
            Room(
                "run directory",
                (
                    *("rundir", "tables", "state", "roles", "running", "accounts", "stored"),
                    *("barrier", "card", "derived", "margins", "notes", "progress", "replacing", "tally", "target", "texts", "uniqueids", "variety"),
                ),
                "who may write, what is counted, which model does what",
            ),
            Room("analysis", ("analysis/",), "figures over a finished set"),
        ),
    ),
    (
        "The method",
        (
            Room("stages", ("stages/",), "induce, choose, respond, verify"),
            Room("inducer", ("reverse", "tuning/"), "P(instruction | response): asked, and tuned"),
            Room("filters", ("filters/", "choosing", "selection", "routing", "embed", "minilm"), "what may stay; which of many"),
        ),
    ),
    (
        "Texts and models",
        (
            Room("sources", ("sources/", "sheets"), "rows, documents, crawls; bad ones set aside"),
            Room(
                "models and ledger",
                ("models/", "ledger/", "budget", "bounds", "spent", "storage/"),
                "every call: sent once, paid once, on disk before it is used",
            ),
        ),
    ),
    (
        "What a user writes",
        (
            Room("domain", ("domain", "placeholders"), "categories, guidelines, verifiers"),
            Room("config", ("config", "settings/", "selectconfig", "thresholds", "yamlfile"), "YAML, checked key by key"),
            Room("prices", ("prices",), "what a token costs"),
            Room("prompts", ("templates", "conversation"), "texts are values, never templates"),
        ),
    ),
    (
        "The ground",
        (
            Room("sandbox", ("sandbox/",), "other people's programs"),
            Room("detect", ("detect/",), "what a text holds, without a model"),
            Room(
                "errors",
                (
                    *("changes", "errors", "extras", "holding", "moving", "nearest", "oneline", "partfile", "scratch", "seeds", "stopping"),
                    *("utf8", "visible", "wholefile"),
                ),
                "one tree of errors; files that appear whole, folders that are held",
            ),
            Room("records", ("example",), "Example: all that moves between rooms"),
        ),
    ),
)
"""From the top down: a room imports from layers below its own, and from its neighbours without a circle."""
ROOMS = tuple(room for _, rooms in LAYERS for room in rooms)


class Import(NamedTuple):
    """One import statement, or one name of it.

    Attributes:
        name: Dotted, as it is written.
        runs: Whether it runs as soon as the module is imported: not in a function, and not for type checking only.
        line: Where it stands.
    """

    name: str
    runs: bool
    line: int


def imports(tree: ast.AST, *, runs: bool = True) -> Iterator[Import]:
    """Every import below `tree`, in functions and under TYPE_CHECKING too.

    Raises:
        ValueError: An import is relative.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, runs, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: imports are absolute here")
            yield from (Import(f"{node.module}.{alias.name}", runs, node.lineno) for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, runs=False)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(ast.Module([*node.body], []), runs=False)
            yield from imports(ast.Module([*node.orelse], []), runs=runs)
        else:
            yield from imports(node, runs=runs)


def _module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {_module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
"""Dotted name below the package -> file; the package itself is `__init__`."""


def own(name: str) -> str | None:
    """The module of this package that an imported dotted name leads to, or None for another package's."""
    if name.partition(".")[0] != "safer_instruct":
        return None
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "__init__"


@cache
def module_imports() -> dict[str, set[str]]:
    """Top-level module or folder -> those that anything in it imports, in functions and for type checking too."""
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        targets = {_top(target) for one in imports(ast.parse(path.read_text("utf-8"))) if (target := own(one.name))}
        found.setdefault(_top(module), set()).update(targets - {_top(module)})
    return found


def _top(module: str) -> str:
    return module.partition(".")[0]


def layer(module: str) -> int:
    """In which layer a module stands, from 0 at the top.

    Raises:
        ValueError: It stands in no room.
    """
    levels = {held: level for level, (_, rooms) in enumerate(LAYERS) for room in rooms for held in room.modules}
    if _top(module) not in levels:
        raise ValueError(f"'{_top(module)}' stands in no room: add it to LAYERS in {Path(__file__).name}")
    return levels[_top(module)]


def room_imports(modules: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Room -> rooms that it imports from.

    Raises:
        ValueError: A module stands in no room or in two, an import points upwards, or rooms import each other.
    """
    homes: dict[str, str] = {}
    for room in ROOMS:
        for module in room.modules:
            if module in homes:
                raise ValueError(f"'{module}' stands in two rooms, {homes[module]} and {room.name}")
            homes[module] = room.name
    if lost := modules.keys() ^ homes.keys():
        raise ValueError(f"in no room, or gone: {', '.join(sorted(lost))}; mend LAYERS in {Path(__file__).name}")
    found: dict[str, set[str]] = {room.name: set() for room in ROOMS}
    for module, targets in modules.items():
        found[homes[module]] |= {homes[target] for target in targets} - {homes[module]}
    depth = {room.name: level for level, (_, rooms) in enumerate(LAYERS) for room in rooms}
    if upward := [f"{name} -> {target}" for name, targets in found.items() for target in targets if depth[target] < depth[name]]:
        raise ValueError(f"imports point upwards: {', '.join(upward)}")
    TopologicalSorter(found).prepare()  # CycleError is a ValueError
    return found


def direct(imports: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """Without the imports that another one implies, in the order of the picture: A -> C goes where A -> B -> C is."""
    below: dict[str, set[str]] = {}
    for name in TopologicalSorter(imports).static_order():
        below[name] = set(imports[name]).union(*(below[target] for target in imports[name]))
    order = [room.name for room in ROOMS]
    return {name: sorted((t for t in targets if not any(t in below[o] for o in targets)), key=order.index) for name, targets in imports.items()}
