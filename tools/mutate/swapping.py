"""A mutant put into modules that are imported already: its functions get the changed code, wherever they are held."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import CodeType, FunctionType

_RUN_WHERE_IT_STANDS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


def swap(path: str, before: bytes, new: CodeType) -> bool:
    """Give the functions of a file that is imported the code that they have in `new`; False where that is not all of the change.

    What runs on import (constants, defaults, class bodies) has run already.
    """
    old = compile(before, path, "exec", dont_inherit=True)
    changed = {}
    for one, other in _paired(old, new):
        if one.co_flags & 1:  # a function: CO_OPTIMIZED
            if one.co_freevars != other.co_freevars or (one.co_name in _RUN_WHERE_IT_STANDS and _deep(one) != _deep(other)):
                return False
            changed[one.co_qualname, one.co_firstlineno] = one, other
        elif (one.co_code, _constants(one)) != (other.co_code, _constants(other)):
            return False
    found = [o for o in gc.get_objects() if isinstance(o, FunctionType) and o.__code__.co_filename == path]
    for function in found:
        pair = changed.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
        if pair and _deep(pair[0]) != _deep(pair[1]):
            function.__code__ = pair[1]
    return True


def _paired(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Each piece of code beside what it became, down to the outermost functions: what is within one comes with it."""
    yield old, new
    if not old.co_flags & 1:
        for one, other in zip(_codes(old), _codes(new), strict=True):
            yield from _paired(one, other)


def _codes(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _constants(code: CodeType) -> list[str]:
    return [repr(constant) for constant in code.co_consts if not isinstance(constant, CodeType)]


def _deep(code: CodeType) -> tuple[object, ...]:
    return code.co_code, _constants(code), code.co_names, [_deep(inner) for inner in _codes(code)]
