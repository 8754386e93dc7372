"""Which statements of a file are run: each is preceded by a note of its line, so that nothing else of a test becomes slower."""

from __future__ import annotations

import ast
import builtins
from types import CodeType

_NOTE = "_note_of_mutate"


class Lines:
    """The lines of statements that were run, by file."""

    def __init__(self) -> None:
        self.run: dict[str, set[int]] = {}
        setattr(builtins, _NOTE, self._note)

    def _note(self, path: str, line: int) -> None:
        self.run.setdefault(path, set()).add(line)


def noting(path: str, source: bytes) -> CodeType:
    """The file's code with notes in its functions; what runs on import is as it was."""
    tree = ast.parse(source)
    for node in [*ast.walk(tree)]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            _note_all(node, path)
            node.body.insert(0, _note(path, node.lineno, at=node.body[0]))
    return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


def _note_all(node: ast.AST, path: str) -> None:
    """Every statement within it, down to the functions in it, which are noted by themselves."""
    for _, value in ast.iter_fields(node):
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            inner = [*value]
            value[:] = [part for statement in inner for part in (_note(path, statement.lineno, at=statement), statement)]
        else:
            inner = [child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST)]
        for child in inner:
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                _note_all(child, path)


def _note(path: str, line: int, *, at: ast.stmt) -> ast.stmt:
    call = ast.Call(ast.Name(_NOTE, ast.Load()), [ast.Constant(path), ast.Constant(line)], [])
    return ast.copy_location(ast.Expr(call), at)
