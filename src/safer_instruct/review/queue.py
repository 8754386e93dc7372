"""Which example comes next, for whom, under which filters.

Every look-up walks an index of SQLite from where the reader is, so that its cost does not grow with the run.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Literal

from safer_instruct.review.index import PAIR, facet_token
from safer_instruct.review.store import Store

State = Literal["open", "accept", "reject", "skip", "done", "any"]
CLAIM_S = 30 * 60.0  # how long an example that somebody has on the screen is kept for them
COUNTED_TO = 10_000  # matches of a search are counted up to here
_WORD = re.compile(r"\w+")
_ITEM = "item.row, item.place, item.id, item.category, item.outcome, item.part, item.at, item.digest, item.excerpt, item.draw"


@dataclass(frozen=True, slots=True)
class Item:
    """An example as the index knows it; see the columns of `index.py`."""

    row: int
    place: int
    id: str
    category: str
    outcome: str
    part: int
    at: int
    digest: str
    excerpt: str
    draw: int


@dataclass(frozen=True, slots=True)
class Filters:
    """What a reader wants to see.

    Attributes:
        category: Of the domain; empty for all.
        outcome: `pair`, `dropped`, a verdict that dropped examples, or empty for all.
        state: `open`: nothing decided by this reader, and not taken by others; `done`: anything decided.
        search: Words that must all occur; `*` at the end makes the last, from two letters on, the beginning of one.
    """

    category: str = ""
    outcome: str = PAIR
    state: State = "open"
    search: str = ""


def find_item(store: Store, id_: str) -> Item | None:
    """The example of that id."""
    rows = store.query(f"SELECT {_ITEM} FROM idx.item WHERE id = ?", (id_,))  # noqa: S608 - columns of ours
    return Item(*rows[0]) if rows else None


def step(store: Store, annotator: int, filters: Filters, overlap: float, *, after: Item | None, back: bool = False) -> Item | None:
    """The next example behind `after`, or before it, that the filters let through; from the beginning where `after` is None."""
    found = select(store, annotator, filters, overlap, after=after, back=back, limit=1)
    return found[0] if found else None


def select(store: Store, annotator: int, filters: Filters, overlap: float, *, after: Item | None = None, back: bool = False, limit: int = 1) -> list[Item]:
    """Up to `limit` examples in reading order; in the order of the run where words are searched for."""
    source, where, parameters, order = _parts(annotator, filters, overlap)
    if after is not None:
        where.append(f"{order} {'<' if back else '>'} ?")
        parameters.append(after.row if filters.search else after.place)
    sql = f"SELECT {_ITEM} FROM {source} WHERE {' AND '.join(where) or '1'} ORDER BY {order} {'DESC' if back else ''} LIMIT ?"  # noqa: S608 - parts of ours
    return [Item(*row) for row in store.query(sql, (*parameters, limit))]


def count(store: Store, annotator: int, filters: Filters, overlap: float) -> int:
    """How many examples the filters let through, counted up to `COUNTED_TO` + 1."""
    if not filters.search and filters.state == "any":
        return _in_facets(store, filters)
    source, where, parameters, _ = _parts(annotator, filters, overlap)
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {source} WHERE {' AND '.join(where) or '1'} LIMIT ?)"  # noqa: S608 - parts of ours
    return int(store.query(sql, (*parameters, COUNTED_TO + 1))[0][0])


def facets(store: Store) -> list[tuple[str, str, int]]:
    """Category, outcome and number of examples, most first."""
    return [(str(c), str(o), int(n)) for c, o, n in store.query("SELECT category, outcome, count FROM idx.facet ORDER BY count DESC, category, outcome")]


def _in_facets(store: Store, filters: Filters) -> int:
    def fits(category: str, outcome: str) -> bool:
        return filters.category in ("", category) and (filters.outcome in ("", outcome) or (filters.outcome == "dropped" and outcome != PAIR))

    return sum(n for category, outcome, n in facets(store) if fits(category, outcome))


def _parts(annotator: int, filters: Filters, overlap: float) -> tuple[str, list[str], list[Any], str]:
    """FROM, conditions, their parameters, and the column to sort by."""
    source, where, parameters, order = "idx.item AS item", [], [], "item.place"
    if filters.search:
        source, order = "idx.word AS word CROSS JOIN idx.item AS item ON item.row = word.rowid", "word.rowid"
        where.append("word MATCH ?")
        parameters.append(_match(filters))
    elif filters.state in ("accept", "reject", "skip", "done"):  # what one has decided is little beside what there is
        source = "label CROSS JOIN idx.item AS item ON item.id = label.id"
    if filters.category:
        where.append("item.category = ?")
        parameters.append(filters.category)
    if filters.outcome == "dropped":
        where.append("item.outcome <> ?")
        parameters.append(PAIR)
    elif filters.outcome:
        where.append("item.outcome = ?")
        parameters.append(filters.outcome)
    _by_state(annotator, filters, overlap, where, parameters)
    return source, where, parameters, order


def _by_state(annotator: int, filters: Filters, overlap: float, where: list[str], parameters: list[Any]) -> None:
    if filters.state == "any":
        return
    decided = "IS NOT NULL" if filters.state in ("open", "done") else "= ?"
    mine = f"annotator = ? AND decision {decided} AND label.digest = item.digest"
    if filters.state == "open":
        where.append(f"NOT EXISTS (SELECT 1 FROM label WHERE label.id = item.id AND {mine})")  # noqa: S608 - parts of ours
    elif filters.search:
        where.append(f"EXISTS (SELECT 1 FROM label WHERE label.id = item.id AND {mine})")  # noqa: S608 - parts of ours
    else:
        where.append(mine)
    parameters.append(annotator)
    if decided == "= ?":
        parameters.append(filters.state)
    if filters.state == "open":
        where.append(
            "(SELECT count(*) FROM (SELECT annotator FROM label WHERE label.id = item.id AND label.digest = item.digest AND annotator <> ?"
            " AND decision IN ('accept', 'reject')"
            " UNION SELECT annotator FROM claim WHERE claim.id = item.id AND annotator <> ? AND until > ?)) < CASE WHEN item.draw < ? THEN 2 ELSE 1 END"
        )
        parameters += [annotator, annotator, time.time(), round(overlap * 10_000)]


def _match(filters: Filters) -> str:
    """A query of the full-text table: every word is quoted, so that none is read as an operator."""
    words = _WORD.findall(filters.search)
    terms = [f'"{word}"' for word in words]
    if terms and filters.search.endswith("*") and len(words[-1]) > 1:
        terms[-1] += " *"
    terms += [f'"{facet_token("category", filters.category)}"'] if filters.category else []
    terms += [f'"{facet_token("outcome", filters.outcome)}"'] if filters.outcome not in ("", "dropped") else []
    return " AND ".join(terms) or '""'
