"""The prompts of an evaluation, and answers that are there already; what cannot be used is set aside with the reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.config import SourceConfig
from safer_instruct.domain import Domain
from safer_instruct.errors import ConfigError, SourceError
from safer_instruct.evaluation.settings import PromptsConfig, SystemConfig
from safer_instruct.seeds import derive_seed
from safer_instruct.sources import BadRow, SourceRow, excerpt, read_rows
from safer_instruct.sources.records import lacking
from safer_instruct.wholefile import write_whole

PROMPT_COLUMNS, RESPONSE_COLUMNS = ("prompt", "instruction"), ("response", "output", "answer")
_TRUE, _FALSE = {"true", "yes", "1", "safe"}, {"false", "no", "0", "unsafe"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt.

    Attributes:
        id: The user's own, or a digest.
        text: What is asked.
        category: One of the domain's.
        safe: Whether it asks for nothing harmful; None where nobody said.
        follow_up: A second message; empty where there is none.
        fields: All columns of its row.
    """

    id: str
    text: str
    category: str
    safe: bool | None
    follow_up: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Response:
    """What a system answered.

    Attributes:
        text: The answer; empty where it was withheld.
        second: To the follow-up; None where there is none.
        finished: False when it was cut at the token limit.
        withheld: The endpoint's content filter, or the model itself, held the answer back.
    """

    text: str
    second: str | None = None
    finished: bool = True
    withheld: bool = False


def read_prompts(config: PromptsConfig, domain: Domain, base: Path, seed: int) -> tuple[list[Prompt], list[BadRow]]:
    """The prompts in the order of their file, one per text, and the rows that cannot be used.

    Raises:
        SourceError: There is no file, or no usable row.
    """
    prompts: dict[str, Prompt] = {}
    bad: list[BadRow] = []
    ids: set[str] = set()
    for row in read_rows(SourceConfig(path=config.path, format=config.format), base):
        made = _prompt(row, config, domain) if isinstance(row, SourceRow) else row
        if isinstance(made, Prompt) and made.text in prompts and isinstance(row, SourceRow):
            made = _bad(row, "the same prompt stands above")
        elif isinstance(made, Prompt) and made.id in ids and isinstance(row, SourceRow):
            made = _bad(row, f"the id {made.id!r} stands above, with another prompt")
        if isinstance(made, BadRow):
            bad.append(made)
        else:
            prompts[made.text] = made
            ids.add(made.id)
    if not prompts:
        raise SourceError(f"{config.path}: no usable prompt; the first row: {bad[0].reason if bad else 'there is none'}")
    kept = list(prompts.values())
    if config.limit and config.limit < len(kept):
        chosen = set(sorted(prompts, key=lambda text: derive_seed(seed, "prompts", text))[: config.limit])
        kept = [prompt for prompt in kept if prompt.text in chosen]
    return kept, bad


def finished_responses(system: SystemConfig, prompts: Sequence[Prompt], base: Path) -> list[Response | None]:
    """A system's finished answers in the order of `prompts`; None where there is none.

    Raises:
        SourceError: The file cannot be read, lacks a column, or answers none of the prompts.
    """
    if system.column is not None:
        found = [_response(prompt.fields, system.column, system.second) for prompt in prompts]
        where = f"column '{system.column}' of the prompts' file"
    else:
        by_id, by_text = _responses(system, base)
        found = [by_id.get(prompt.id) or by_text.get(_plain(prompt.text)) for prompt in prompts]
        where = str(system.responses)
    if not any(found):
        raise SourceError(f"{where}: answers none of the {len(prompts)} prompts; the prompts must be the same, word for word, or the ids")
    return found


def write_outputs(path: Path, name: str, prompts: Iterable[Prompt], responses: Iterable[Response | None]) -> None:
    """Write a system's answers as AlpacaEval's outputs: a JSON array of instruction, output, generator and dataset."""
    rows = [
        {"dataset": prompt.category, "instruction": prompt.text, "output": response.text, "generator": name}
        for prompt, response in zip(prompts, responses, strict=True)
        if response is not None
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(rows, indent=1, ensure_ascii=True) + "\n")


def _prompt(row: SourceRow, config: PromptsConfig, domain: Domain) -> Prompt | BadRow:
    column = config.prompt or next((name for name in PROMPT_COLUMNS if name in row.fields), PROMPT_COLUMNS[0])
    text = _text(row.fields, column)
    if not text:
        return _bad(row, f"column '{column}' holds no text" if column in row.fields else f"{lacking(column, row.fields)}; name it in 'prompt'")
    only = next(iter(domain.categories)) if len(domain.categories) == 1 else None
    named = _text(row.fields, config.category_column) if config.category_column else config.category or only or ""
    if named not in domain.categories:
        return _bad(row, f"category {named!r} is not one of {', '.join(domain.categories)}; name it in 'category' or 'category_column'")
    safe, given = _truth(row.fields.get(config.safe)), row.fields.get(config.safe)
    if safe is None and given not in (None, ""):
        return _bad(row, f"column '{config.safe}' says {str(given)[:40]!r}, which is neither true nor false")
    id_ = _text(row.fields, config.id) if config.id else ""
    return Prompt(id_ or digest(text), text, named, safe, _text(row.fields, config.follow_up), row.fields)


def digest(*texts: str) -> str:
    """Twelve hex digits for some texts."""
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _truth(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None


def _responses(system: SystemConfig, base: Path) -> tuple[dict[str, Response], dict[str, Response]]:
    by_id: dict[str, Response] = {}
    by_text: dict[str, Response] = {}
    for row in read_rows(SourceConfig(path=system.responses or ""), base):
        if isinstance(row, BadRow):
            continue  # its prompt has no answer, which is told
        prompts = (system.prompt_column,) if system.prompt_column else PROMPT_COLUMNS
        answers = (system.response_column,) if system.response_column else RESPONSE_COLUMNS
        column = next((name for name in answers if name in row.fields), None)
        if column is None:
            raise SourceError(f"{row.file}:{row.line}: no column {' or '.join(answers)} with the answer; name it in 'response_column'")
        response = _response(row.fields, column, system.second)
        if response is None:
            continue
        if id_ := _text(row.fields, "id"):
            by_id.setdefault(id_, response)
        if text := next((said for name in prompts if (said := _text(row.fields, name))), ""):
            by_text.setdefault(_plain(text), response)
    return by_id, by_text


def _response(fields: Mapping[str, object], column: str, second: str | None) -> Response | None:
    if column not in fields:
        raise ConfigError(f"no column '{column}' with answers; the columns are: {', '.join(map(str, list(fields)[:20]))}")
    text = _text(fields, column)
    return Response(text, (_text(fields, second) or None) if second else None) if text else None


def _text(fields: Mapping[str, object], column: str | None) -> str:
    value = fields.get(column) if column else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value).strip()
    return "" if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text) else text


def _plain(text: str) -> str:
    return " ".join(text.split())


def _bad(row: SourceRow, reason: str) -> BadRow:
    return BadRow(row.file, row.line, reason, excerpt(dict(row.fields)))
