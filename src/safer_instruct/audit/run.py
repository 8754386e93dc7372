"""All checks of an audit, in the order of its table."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from functools import partial
from pathlib import Path

from safer_instruct.audit import origin, sameness, sides, texts
from safer_instruct.audit.finding import Finding
from safer_instruct.audit.reading import PairSet

CHECKS: dict[str, Callable[[PairSet], Finding]] = {
    "rows": texts.unreadable,
    "empty": texts.empty,
    "identical": texts.identical,
    "ties": texts.ties,
    "prompt-is-response": texts.prompt_equal,
    "containment": texts.contained,
    "duplicates": sameness.duplicates,
    "repeats": sameness.repeats,
    "contradictions": sameness.contradictions,
    "circles": sameness.circles,
    "refusals": sameness.refusals,
    "length": sides.length,
    "format": sides.layout,
    "openings": sides.openings,
    "style": sides.style_only,
    "order-flips": origin.order_flips,
    "self-preference": origin.self_preference,
    "contamination": partial(origin.contamination, benchmarks={}),
    "provenance": origin.provenance,
}
"""Every check by its name, in the order in which they are told."""


def audit_set(
    pairs: PairSet, benchmarks: Mapping[str, Path | str] | None = None, told: Callable[[str], None] = lambda _: None, *, only: Container[str] | None = None
) -> list[Finding]:
    """Ask every check about a set, or those that are named.

    Args:
        pairs: From `read_set`.
        benchmarks: Files of prompts by the benchmark's name, for `contamination`.
        told: Is given each check's name before it begins.
        only: Names of `CHECKS`.

    Raises:
        SourceError: A benchmark's file cannot be read.
    """
    files = {name: Path(file) for name, file in (benchmarks or {}).items()}
    checks = CHECKS | {"contamination": partial(origin.contamination, benchmarks=files)}
    found = []
    for name, check in checks.items():
        if only is None or name in only:
            told(name)
            found.append(check(pairs))
    return found
