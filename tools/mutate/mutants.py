"""Every small change of one source file that a test ought to notice.

Changed are comparisons (`<` to `<=`), arithmetic, `and` and `or`, numbers, truth values, `min` and `any` and their opposites, conditions (negated),
and statements that do something (left out) or return something (None instead). Strings, annotations, decorators, what an error says, and `strict`
of zip are left alone.
"""

from __future__ import annotations

import ast
import copy
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

_SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_NEGATED_BY_SWAPPING = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: bytes `start` to `end` of the file become `after`; `first` and `last` are the lines of the statement it is in."""

    function: str
    on_import: bool
    first: int
    last: int
    start: int
    end: int
    before: str
    after: str
    nth: int = 1

    @property
    def key(self) -> str:
        """The function and the change, without the line, which moves; of several that read alike the second is `#2`."""
        again = f" #{self.nth}" if self.nth > 1 else ""
        return f"{self.function}: {' '.join(self.before.split())} -> {' '.join(self.after.split())}{again}"

    def applied(self, source: bytes) -> bytes:
        """The file with this change."""
        return source[: self.start] + self.after.encode() + source[self.end :]

    def __str__(self) -> str:
        """The line, and the key."""
        return f"{self.first} {self.key}"


def find_mutants(source: bytes) -> list[Mutant]:
    """All that compile, in order of place."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found: dict[tuple[int, int, str], Mutant] = {}
    for place in _places(ast.parse(source)):
        for after in [_negated(place.node)] if place.is_condition else _changes(place.node):
            start = starts[place.node.lineno - 1] + place.node.col_offset
            end = starts[(place.node.end_lineno or 0) - 1] + (place.node.end_col_offset or 0)
            mutant = Mutant(place.function, place.on_import, *place.lines, start, end, source[start:end].decode(), after)
            if mutant.before != after and _compiles(mutant.applied(source)):
                found.setdefault((start, end, after), mutant)
    alike: Counter[str] = Counter()
    numbered = []
    for mutant in sorted(found.values(), key=lambda mutant: (mutant.start, mutant.end, mutant.after)):
        alike[mutant.key] += 1
        numbered.append(replace(mutant, nth=alike[mutant.key]))
    return numbered


def sample_mutants(mutants: list[Mutant], size: int, seed: str) -> list[Mutant]:
    """At most `size` of them, the same for the same seed, in order of place."""
    if len(mutants) <= size:
        return mutants
    return [mutants[i] for i in sorted(random.Random(seed).sample(range(len(mutants)), size))]


@dataclass(frozen=True, slots=True)
class _Place:
    node: ast.stmt | ast.expr
    function: str
    lines: tuple[int, int]
    on_import: bool
    is_condition: bool = False


def _places(node: ast.AST, function: str = "", statement: ast.stmt | None = None, *, on_import: bool = True) -> Iterator[_Place]:
    """Every node that may change, with the function and the statement that it stands in."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    statement = node if isinstance(node, ast.stmt) else statement
    conditions: list[ast.expr] = []
    if statement is not None:
        if isinstance(node, ast.If | ast.While):
            conditions = [node.test]
        elif isinstance(node, ast.comprehension):
            conditions = node.ifs
        if isinstance(node, ast.stmt | ast.expr):
            yield _Place(node, function, _own_lines(statement), on_import)
        for test in conditions:
            if not _is_negated_elsewhere(test):
                yield _Place(test, function, _own_lines(statement), on_import, is_condition=True)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        function, on_import = f"{function}.{node.name}".lstrip("."), on_import and isinstance(node, ast.ClassDef)
    for child in _children(node):
        yield from _places(child, function, statement, on_import=on_import)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.JoinedStr | ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):  # places within f-strings are wrong before Python 3.12
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":  # of zip: it guards against mistakes of ours, which no test can make
        return
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "keywords" if isinstance(node, ast.ClassDef) else ""):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


def _own_lines(statement: ast.stmt) -> tuple[int, int]:
    """Without the lines of the statements within it."""
    body = getattr(statement, "body", None)
    last = body[0].lineno - 1 if body else statement.end_lineno or statement.lineno
    return statement.lineno, max(statement.lineno, last)


def _changes(node: ast.stmt | ast.expr) -> Iterator[str]:
    """What may stand in its place, as source text."""
    match node:
        case ast.stmt():
            yield from _changed_statement(node)
        case ast.Compare():
            for i in range(len(node.ops)):
                other = copy.deepcopy(node)
                other.ops[i] = _SWAPPED[type(other.ops[i])]()
                yield f"({ast.unparse(other)})"
        case ast.BoolOp() | ast.BinOp() if type(node.op) in _SWAPPED and not _joins_texts(node):
            yield f"({_with_swapped(node)})"
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield f"({ast.unparse(node.operand)})"
        case ast.IfExp() if not _is_negated_elsewhere(node.test):
            other = copy.deepcopy(node)
            other.test = ast.UnaryOp(ast.Not(), other.test)
            yield f"({ast.unparse(other)})"
        case ast.Constant():
            yield from _changed_constant(node.value)
        case ast.Name(ctx=ast.Load()) if node.id in _OPPOSITES:
            yield _OPPOSITES[node.id]


def _changed_statement(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.Delete():
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield "pass"
        case ast.AugAssign():
            yield "pass"
            if type(node.op) in _SWAPPED:
                yield _with_swapped(node)
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "return None"
        case ast.Continue():
            yield "break"
        case ast.Break():
            yield "pass"


def _changed_constant(value: object) -> Iterator[str]:
    if isinstance(value, bool):
        yield str(not value)
    elif isinstance(value, int):
        yield str(value + 1)
    elif isinstance(value, float):
        yield repr(value * 2 if value else 1.0)


def _negated(test: ast.AST) -> str:
    return f"not ({ast.unparse(test)})"


def _is_negated_elsewhere(test: ast.expr) -> bool:
    """Whether another change of the same condition is its negation."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return True
    return isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], _NEGATED_BY_SWAPPING)


def _joins_texts(node: ast.BoolOp | ast.BinOp) -> bool:
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else ()
    return any(isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes)) for side in sides)


def _with_swapped(node: ast.BoolOp | ast.BinOp | ast.AugAssign) -> str:
    other = copy.deepcopy(node)
    other.op = _SWAPPED[type(other.op)]()
    return ast.unparse(other)


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True
