"""What a Python file defines, as its text says: a verifier is untrusted, so nothing imports it here to find out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

_NAMES_AT_RUN_TIME = frozenset(("globals", "vars", "locals", "exec", "setattr"))
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def lacks(file: Path, name: str) -> str:
    """Why `file` gives no function `name`; empty where it does, and where only running it would tell."""
    try:
        nodes = list(_at_top_level(ast.parse(file.read_bytes())))
    except (OSError, SyntaxError, ValueError, RecursionError) as exc:
        return f"{file.name} cannot be read as Python: {exc}"
    names = {bound for node in nodes for bound in _bound(node)}
    if names & {name, "*", "__getattr__"}:
        return ""
    functions = ", ".join(node.name for node in nodes if isinstance(node, _FUNCTION))
    return f"{file.name} has no function '{name}'; it has {functions or 'none'}"


def _at_top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node that is not inside a function or a class, in order."""
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, (*_FUNCTION, ast.ClassDef)):
            left.extend(reversed(list(ast.iter_child_nodes(node))))


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a node gives a value; `*` where its text does not say which."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.alias():
            yield (node.asname or node.name).partition(".")[0]
        case ast.Name(ctx=ast.Store()):
            yield node.id
        case ast.Name() if node.id in _NAMES_AT_RUN_TIME:
            yield "*"
