"""What a review comes to so far: progress and pace of one reader, agreement among several."""

from __future__ import annotations

import itertools
import json
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from safer_instruct.analysis.agreement import cohen_kappa, krippendorff_alpha, observed_agreement
from safer_instruct.review.store import Store

_PAUSE_S = 300.0  # a gap longer than this is a break, and no reading time
_PACE_OVER = 50  # decisions that the pace is taken from
_DISAGREEMENTS_SHOWN = 100
_STANDING = "label JOIN idx.item AS item ON item.id = label.id AND item.digest = label.digest"
_CURRENT = f"{_STANDING} WHERE annotator = ?"


@dataclass(frozen=True, slots=True)
class Progress:
    """What one reader has done.

    Attributes:
        accepted, rejected, skipped: Examples, as they stand now.
        edited: How many of the accepted ones were accepted as corrected.
        seconds_each: Median time per decision over the last fifty; None before the third.
        today: Decisions since midnight, local time.
    """

    accepted: int
    rejected: int
    skipped: int
    edited: int
    seconds_each: float | None
    today: int


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """How far two annotators agree on what both decided; kappa is None where it tells nothing."""

    first: str
    second: str
    shared: int
    observed: float
    kappa: float | None


def progress(store: Store, annotator: int) -> Progress:
    """Progress and pace of one reader; what was said of texts that the run no longer holds rests, and is not counted."""
    counts = dict(store.query(f"SELECT decision, count(*) FROM {_CURRENT} GROUP BY decision", (annotator,)))  # noqa: S608 - parts of ours
    accepted = f"SELECT count(*) FROM {_CURRENT} AND decision = 'accept'"  # noqa: S608 - parts of ours
    edited = store.query(f"{accepted} AND json_extract(said, '$.edit') <> '{{}}'", (annotator,))
    return Progress(counts.get("accept", 0), counts.get("reject", 0), counts.get("skip", 0), edited[0][0], _pace(store, annotator), _today(store, annotator))


def standing(store: Store) -> list[tuple[str, str, str]]:
    """Annotator, example and digest of all that was said of the texts as they stand; what was said of others, which the run has replaced since, rests."""
    return store.query(f"SELECT name, label.id, label.digest FROM {_STANDING} JOIN annotator ON number = annotator ORDER BY label.id, number")  # noqa: S608 - part of ours


def agreement(store: Store) -> dict[str, Any]:
    """Agreement on accept and reject: each two annotators, all together, each question, and where they differ.

    Examples that fewer than two decided, those skipped, and what was said of texts that the run no longer holds do not count.
    """
    units = _shared(store)
    names = sorted({name for said in units.values() for name in said})
    order = {name: i for i, name in enumerate(names)}
    decisions = [[_as_number(said.get(name, (None, {}))[0]) for name in names] for said in units.values()]
    return {
        "shared": len(units),
        "annotators": names,
        "alpha": krippendorff_alpha(decisions),
        "pairs": [asdict(found) for pair in itertools.combinations(names, 2) if (found := _two(units, *pair))],
        "questions": _by_question(units, order),
        "disagreements": _disagreements(units),
    }


def _pace(store: Store, annotator: int) -> float | None:
    rows = store.query(
        "SELECT seconds FROM event WHERE annotator = ? AND undoes IS NULL AND NOT undone AND seconds > 0 ORDER BY number DESC LIMIT ?", (annotator, _PACE_OVER)
    )
    seconds = sorted(s for (s,) in rows if s < _PAUSE_S)
    return seconds[len(seconds) // 2] if len(seconds) > 2 else None


def _today(store: Store, annotator: int) -> int:
    now = time.localtime()
    midnight = time.mktime((now.tm_year, now.tm_mon, now.tm_mday, 0, 0, 0, 0, 0, -1))
    return int(store.query("SELECT count(*) FROM label WHERE annotator = ? AND decision IS NOT NULL AND at >= ?", (annotator, midnight))[0][0])


Said = dict[str, tuple[str | None, dict[str, bool]]]  # decision and answers, by annotator


def _shared(store: Store) -> dict[str, Said]:
    """What was decided of each example, as it stands, that at least two annotators decided."""
    rows = store.query(
        f"SELECT label.id, name, decision, json_extract(said, '$.answers') FROM {_STANDING} JOIN annotator ON number = annotator"  # noqa: S608 - part of ours
        " WHERE decision IN ('accept', 'reject') AND label.id IN (SELECT id FROM label WHERE decision IN ('accept', 'reject') GROUP BY id HAVING count(*) > 1)"
    )
    units: dict[str, Said] = defaultdict(dict)
    for id_, name, decision, answers in rows:
        units[id_][name] = (decision, json.loads(answers))
    return {id_: said for id_, said in sorted(units.items()) if len(said) > 1}


def _two(units: dict[str, Said], first: str, second: str) -> PairAgreement | None:
    both = [(said[first][0], said[second][0]) for said in units.values() if first in said and second in said]
    if not both:
        return None
    ours, theirs = zip(*both, strict=True)
    return PairAgreement(first, second, len(both), observed_agreement(ours, theirs), cohen_kappa(ours, theirs))


def _by_question(units: dict[str, Said], order: dict[str, int]) -> list[dict[str, Any]]:
    answers: dict[str, list[list[float | None]]] = defaultdict(list)
    for said in units.values():
        for question in {q for _, given in said.values() for q in given}:
            row: list[float | None] = [None] * len(order)
            for name, (_, given) in said.items():
                if question in given:
                    row[order[name]] = float(given[question])
            if sum(value is not None for value in row) > 1:
                answers[question].append(row)
    return [{"id": question, "shared": len(rows), "alpha": krippendorff_alpha(rows)} for question, rows in sorted(answers.items())]


def _disagreements(units: dict[str, Said]) -> list[dict[str, Any]]:
    differing = [(id_, {name: decision for name, (decision, _) in said.items()}) for id_, said in units.items() if len({d for d, _ in said.values()}) > 1]
    return [{"id": id_, "said": said} for id_, said in differing[:_DISAGREEMENTS_SHOWN]]


def _as_number(decision: str | None) -> float | None:
    return None if decision is None else float(decision == "accept")
