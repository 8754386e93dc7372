"""From rows of a source to examples: categories, texts mended, the same text once."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import aclosing, closing
from dataclasses import replace

from safer_instruct.config import RunConfig
from safer_instruct.distinct import distinct
from safer_instruct.domain import Domain
from safer_instruct.equipment import Equipment
from safer_instruct.example import Candidate, Example, Verdict
from safer_instruct.filters.checks import Check, sifted
from safer_instruct.ordered import Examples
from safer_instruct.routing import Router
from safer_instruct.sources import BadRow, SourceText, excerpt, read_source
from safer_instruct.state import RunState, StageState
from safer_instruct.uniqueids import UniqueIds


def entering(
    equipment: Equipment, set_aside: Callable[[BadRow], None], rows: Container[int] | None = None, noted: Callable[[Examples], Examples] | None = None
) -> Examples:
    """What comes out of the source, or of `rows` of it only: examples, mended, the same text once."""
    config, collect = equipment.config, equipment.state.stages["collect"]
    examples = _examples(config, equipment.domain, equipment.router(), equipment.state, set_aside, rows)
    examples = _sifted(noted(examples) if noted else examples, equipment.filters.text, collect)
    return distinct(examples, "text", config.filter, equipment.seen, collect)


async def first_usable(equipment: Equipment, state: RunState, set_aside: Callable[[BadRow], None]) -> Example | None:
    """What the first row that can become an example becomes; the rows before it are counted in `state`. None where there is no such row."""
    async with aclosing(_examples(equipment.config, equipment.domain, equipment.router(), state, set_aside, None)) as examples:
        return await anext(examples, None)


async def _examples(
    config: RunConfig, domain: Domain, router: Router | None, state: RunState, set_aside: Callable[[BadRow], None], rows: Container[int] | None
) -> Examples:
    """Examples from the source, or from `rows` of it only; rows that cannot become one are set aside."""
    only = next(iter(domain.categories)) if len(domain.categories) == 1 else None
    with closing(UniqueIds()) as ids:
        for number, row in enumerate(read_source(config.source, config.base, state.changed.__setitem__)):
            if rows is not None and number not in rows:
                continue
            state.rows += 1
            routed: tuple[Verdict, ...] = ()
            if router and isinstance(row, SourceText):
                category, verdict = router.route(row.text)
                row, routed = replace(row, category=category), (verdict,)
            if isinstance(row, SourceText) and (row.category or only) not in domain.categories:
                row = BadRow(row.file, row.line, f"category {row.category!r} is not one of {', '.join(domain.categories)}", excerpt(row.text))
            if isinstance(row, BadRow):
                state.set_aside += 1
                set_aside(row)
                continue
            given = (Candidate(row.asked),) if config.induce.given == "keep" else ()
            id_, category = ids.of(row.id or row.digest), row.category or only or ""
            state.renumbered += bool(row.id) and id_ != row.id
            yield Example(id_, row.text, category, row.file, row.line, given, verdicts=routed, history=row.history, license=row.license, place=row.place)


async def _sifted(examples: Examples, checks: Sequence[Check], stage: StageState) -> Examples:
    """Mend the source texts, and drop what a filter on them stands in the way of."""
    async with aclosing(examples):
        async for example in examples:
            left = sifted(checks, example)
            stage.dropped += not left.alive
            yield left
