"""Blinded A/B sheets for people, and what they answered: agreement among them and with the judges."""

from __future__ import annotations

import base64
import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import combinations
from pathlib import Path

from safer_instruct import sheets
from safer_instruct.analysis.agreement import cohen_kappa, krippendorff_alpha, observed_agreement
from safer_instruct.analysis.bootstrap import Bootstrap, Interval
from safer_instruct.analysis.proportion import mean_outcome
from safer_instruct.errors import ConfigError
from safer_instruct.evaluation.figures import Agreement, Counts, adjusted, counted
from safer_instruct.evaluation.judging import Pair, Responses
from safer_instruct.evaluation.prompts import Prompt, Response, digest
from safer_instruct.oneline import no_formula
from safer_instruct.replacing import replace_own
from safer_instruct.seeds import derive_seed
from safer_instruct.sources.tables import FilledRows
from safer_instruct.visible import visible

COLUMNS = ("id", "prompt", "answer_a", "answer_b", "answer")
_SAID = {"a": "A", "b": "B", "tie": "tie", "equal": "tie", "both": "tie", "neither": "tie", "=": "tie"}
_HTML = "people.html"
_AGREE_LITTLE = 0.2


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a sheet: which of two answers to a prompt is better; `swapped` where the pair's second system is shown as A."""

    id: str
    pair: Pair
    at: int
    swapped: bool


@dataclass(frozen=True, slots=True)
class People:
    """What people said.

    Attributes:
        counts: `SYSTEM / OTHER` -> wins, ties and losses, by the majority of the people.
        p_adjusted: The same pairs -> the sign test's p, by Holm's method for all of them.
        win_rates: The same pairs -> win rate with its interval.
        people: Name -> answers.
        agreement: Of each two people.
        alpha: Krippendorff's, of all people.
        with_judges: Their majority and that of the judges.
    """

    counts: dict[str, Counts]
    p_adjusted: dict[str, float]
    win_rates: dict[str, Interval]
    people: dict[str, int]
    agreement: tuple[Agreement, ...]
    alpha: float | None
    with_judges: Agreement | None


def items(prompts: Sequence[Prompt], responses: Responses, pairs: Sequence[Pair], seed: int, count: int | None = None) -> list[Item]:
    """The questions in an order that tells nothing: prompts drawn by hash, sides and places by hash.

    Prompts on which an answer is missing, or both are equal, are not asked.
    """
    made = []
    for a, b in pairs:
        for at, prompt in enumerate(prompts):
            first, second = responses[a][at], responses[b][at]
            if first and second and first.text and second.text and first.text != second.text:
                id_ = digest(str(seed), prompt.text, a, b, first.text, second.text)
                made.append(Item(id_, (a, b), at, bool(derive_seed(seed, "side", id_) & 1)))
    drawn = sorted(made, key=lambda item: derive_seed(seed, "drawn", prompts[item.at].text, item.pair))
    kept = drawn if count is None else _evenly(drawn, pairs, count)
    return sorted(kept, key=lambda item: item.id)


def check_sheet(path: Path) -> None:
    """That a sheet and its page may be written there, before the systems are asked anything.

    Raises:
        ConfigError: What stands there is filled in, or is something else.
    """
    sheets.check_place(path, COLUMNS, "answer")
    if not path.exists() and (page := path.with_suffix(".html")).exists():
        raise ConfigError(f"{page}, where the page would go, exists already; give --sheet another name, or move it away")


def write_sheet(path: Path, asked: Sequence[Item], prompts: Sequence[Prompt], responses: Responses) -> list[Path]:
    """Write the sheet as CSV, and beside it as a page that needs nothing else; neither names a system.

    Returns:
        Both files.

    Raises:
        ConfigError: As `sheets.write_sheet`: the file is filled in, or is something else.
    """
    rows = [(item.id, prompts[item.at].text, *_shown(item, responses), "") for item in asked]
    sheets.write_sheet(path, COLUMNS, "answer", ([id_, *map(no_formula, texts)] for id_, *texts in rows))
    page = path.with_suffix(".html")
    replace_own(page, _page(rows, path.stem))
    return [path, page]


def check_files(paths: Sequence[Path]) -> None:
    """Look at files of answers before the systems are asked anything.

    Raises:
        ConfigError: One cannot be read, lacks a column, or answers nothing.
    """
    for path in paths:
        if not any(True for _ in _answered_rows(path)):
            raise ConfigError(f"{path}: no row is answered; write A, B or tie into the column 'answer'")


def read_answers(paths: Sequence[Path], asked: Sequence[Item]) -> dict[str, dict[str, float]]:
    """Person (the file's name) -> question -> 1 where the pair's first system was preferred, 0 where the second, 0.5 for a tie.

    Rows without an answer are passed over.

    Raises:
        ConfigError: A file cannot be read, lacks a column, or answers what was not asked.
    """
    known = {item.id: item for item in asked}
    said: dict[str, dict[str, float]] = {}
    for path in paths:
        if path.stem in said:
            raise ConfigError(f"{path}: another file of answers has the name '{path.stem}' too; give each person's file a name of its own")
        answers: dict[str, float] = {}
        for where, id_, word in _answered_rows(path):
            if id_ not in known:
                raise ConfigError(f"{where}: no question has the id '{id_[:40]}'; the sheet was written for another config, or for other answers")
            if word not in _SAID:
                raise ConfigError(f"{where}: the answer {word[:40]!r} is none of A, B and tie")
            first = "B" if known[id_].swapped else "A"
            value = 0.5 if _SAID[word] == "tie" else float(_SAID[word] == first)
            if answers.setdefault(id_, value) != value:
                raise ConfigError(f"{where}: the question '{id_}' is answered twice, and differently; keep one")
        said[path.stem] = answers
    return said


def people(
    said: Mapping[str, Mapping[str, float]], asked: Sequence[Item], judged: Mapping[str, Sequence[float | None]], *, resamples: int, level: float, seed: int
) -> People:
    """The figures of a human study.

    Args:
        said: From `read_answers`.
        asked: The questions.
        judged: `SYSTEM / OTHER` -> what the judges say, by prompt.
        resamples: Of the bootstrap.
        level: Of its intervals.
        seed: Of its draws.
    """
    by_pair: dict[str, list[float]] = defaultdict(list)
    both: list[tuple[float, float]] = []
    for item in asked:
        values = [answers[item.id] for answers in said.values() if item.id in answers]
        if not values:
            continue
        key = f"{item.pair[0]} / {item.pair[1]}"
        balance = sum(v > 0.5 for v in values) - sum(v < 0.5 for v in values)
        most = 0.5 if balance == 0 else float(balance > 0)
        by_pair[key].append(most)
        machine = judged[key][item.at] if key in judged else None
        if machine is not None:
            both.append((most, machine))
    units = [[answers.get(item.id) for answers in said.values()] for item in asked]
    counts = {key: counted(values) for key, values in by_pair.items()}
    return People(
        counts,
        dict(zip(counts, adjusted(list(counts.values())), strict=True)),
        {key: mean_outcome(values, Bootstrap(len(values), resamples=resamples, level=level, seed=seed)) for key, values in by_pair.items()},
        {name: len(answers) for name, answers in said.items()},
        tuple(_pairwise(said)),
        krippendorff_alpha(units, "nominal") if len(said) > 1 else None,
        _agree("people", "judges", both),
    )


def people_warnings(found: People | None) -> list[str]:
    """Where people agree hardly more than by chance.

    Below 0.2 agreement is slight at most (Landis and Koch 1977, of kappa); Krippendorff (2004) has conclusions, and tentative ones, from 0.667 on only.
    Where nearly everybody says the same of every question alpha is low by itself, and the questions tell too little apart.
    """
    if found is None or found.alpha is None or found.alpha >= _AGREE_LITTLE:
        return []
    return [
        f"people: {len(found.people)} people agree little beyond what their shares of wins, ties and losses give by themselves (Krippendorff's alpha "
        f"{found.alpha:.2f}), and p knows nothing of that: read what they answered differently before relying on the win rate, or ask more people"
    ]


def _evenly(drawn: Sequence[Item], pairs: Sequence[Pair], count: int) -> list[Item]:
    """`count` questions, as many of each pair as can be."""
    queues = [[item for item in drawn if item.pair == pair] for pair in pairs]
    turns = [queue[i] for i in range(max(map(len, queues), default=0)) for queue in queues if i < len(queue)]
    return turns[:count]


def _shown(item: Item, responses: Responses) -> tuple[str, str]:
    first, second = (responses[name][item.at] or Response("") for name in item.pair)
    return (second.text, first.text) if item.swapped else (first.text, second.text)


def _answered_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = FilledRows(file)
            if missing := [name for name in ("id", "answer") if name not in (reader.fieldnames or ())]:
                raise ConfigError(f"{path}: the column '{missing[0]}' is missing; a file of answers has id,answer")
            for row in reader:
                if word := (row["answer"] or "").strip().lower():
                    yield f"{path}:{reader.first_line}", (row["id"] or "").strip(), word
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"{path}: cannot be read as a CSV file in UTF-8: {exc}") from exc


def _pairwise(said: Mapping[str, Mapping[str, float]]) -> Iterator[Agreement]:
    for a, b in combinations(said, 2):
        if found := _agree(a, b, [(said[a][id_], said[b][id_]) for id_ in said[a] if id_ in said[b]]):
            yield found


def _agree(first: str, second: str, both: Sequence[tuple[float, float]]) -> Agreement | None:
    if not both:
        return None
    ours, theirs = [x for x, _ in both], [y for _, y in both]
    return Agreement(first, second, len(both), observed_agreement(ours, theirs), cohen_kappa(ours, theirs))


def _page(rows: Sequence[tuple[str, ...]], name: str) -> str:
    """The sheet as one page: all texts escaped, one script of ours allowed by its hash, no request to anywhere."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    script, style = _file("people.js"), _file("people.css")
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_visible, trim_blocks=True, lstrip_blocks=True)
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    shown = [{"id": id_, "prompt": prompt, "a": a, "b": b} for id_, prompt, a, b, _ in rows]
    return environment.from_string(_file(_HTML)).render(
        rows=shown,
        name=name,
        policy=policy,
        script=Markup(script),  # noqa: S704 (our own file)
        style=Markup(style),  # noqa: S704
    )


def _visible(value: object) -> object:
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _file(name: str) -> str:
    return resources.files("safer_instruct.evaluation").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")
