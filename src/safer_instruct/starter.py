"""`safer-instruct init`: a commented config to start from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from safer_instruct.domain import Domain, load_domain, shipped_domains
from safer_instruct.domainfile import NewDomain, as_text
from safer_instruct.errors import ColumnError, ConfigError, SourceError
from safer_instruct.oneline import many, shortened
from safer_instruct.placeholders import MODEL
from safer_instruct.settings.sources import SourceConfig
from safer_instruct.sources import BadRow, SourceText, read_source
from safer_instruct.sources.files import DOCUMENTS, describe, find
from safer_instruct.sources.records import advice, visible
from safer_instruct.wholefile import write_whole

_CONFIG = """\
# Safer-Instruct: from a pile of texts to preference pairs.   safer-instruct run {name}.yaml
# Keys that are left out have sensible defaults; an unknown key is an error that names the nearest valid one.

domain: {domain}                # a shipped domain ({shipped}) or a YAML file beside this one

source:
  path: {path}# a file, a folder or a glob: .jsonl .json .csv .tsv .parquet .txt, also .gz and .zst of these;
                                # with the extra docs .html .pdf .docx, cut into passages (docs/documents.md)
  text: {text}# the column with the {side} response
  # messages: messages          # instead of 'text': a column of conversations (docs/conversations.md); 'turns: all' takes each answer
  {id}# the column with your own id; without it the id is a digest of the text
  # license: cc0-1.0            # of these texts, for the dataset card
{category}
models:
  # The inducer writes the instruction that a text answers. The adapter was tuned for customer support; tune your own
  # with 'safer-instruct tune', or name a strong instruct model here, which is then prompted to do it.
  inducer:
    model: embedded:smollm2-135m-instruct
    adapter: civility-inducer
  # {writes} 'openai:' is any OpenAI-compatible endpoint: vLLM, SGLang, llama-server,
  # Ollama, hosted APIs. The key is read from the environment variable, never from a file.
  {role}:
{writer}
  # The scorer needs log-probabilities of given texts; the embedded model has them for free.
  scorer: embedded:smollm2-135m-instruct
{judge}
induce:
  # template: prompted          # for a strong instruct model that was not tuned: it is shown the domain's examples
{induce}
filter:
  text:                         # filters on each source text, before a model reads it
    length: {{min_words: 4, max_words: 2000}}   # nobody can tell what 'Ok.' answers; longer ones are better cut into passages
    language: {{languages: {languages}}}    # those of the domain; empty list: any
  near_duplicate: 0.7           # Jaccard similarity of word trigrams; null switches it off
  # min_logprob: -6.0           # least log P(instruction | text) in nats; with the shipped adapter this keeps about half
  prompt:                       # filters on each instruction; null switches one off, 'mode: flag' only records
    copying: {{max_shared_run: 7}}   # longest run of words an instruction may share with its text; one that stands in it whole fails anyway
    language: {{languages: {languages}}}    # those of the domain; empty list: any
    # mine: {{path: my_filter.py}}   # a filter of your own; there is also 'pair:' (docs/filters.md)
  consistency:
    min_gain: 0.1               # nats per token; a default, not calibrated on your data

respond:
  drafts: 2                     # responses per round; the best is taken
{respond}  # revise: 1                   # who wrote a draft that failed is shown why, and mends it; for strong models (docs/experts.md)
  # boilerplate: {{near: 0.7, regenerate: 2}}   # responses that nearly repeat an accepted one are written anew, at most so often

verify:
  form: {form}                # contrast: log-probabilities; question: the judge answers the domain's criteria
  rounds: 2                     # then the example is dropped, with the reasons
{verify}  # also: [grounded, refusal]   # further checks: speaks to its prompt; declines only where its category says so

# target: 10000                 # pairs, in all or by category ({{a: 500, b: 300}}): the run goes on until it has them
# ceiling: {{passes: 3}}          # and stops there all the same

# rejected: matched             # the source text rewritten in the length of the chosen response; or 'student' (docs/pairs.md)
# twins: {{share: 0.2}}           # harmless look-alikes, whose chosen response helps and whose rejected one needlessly refuses

# Every threshold above is a default until people have labelled some examples: safer-instruct calibrate (docs/judges-and-calibration.md)
# calibration: runs/NAME/calibration.yaml

# budget:
#   max_cost: 10.00             # US dollars; the run stops before it would spend more, with everything saved

seed: 0
license: ""                     # of your dataset, for its card
"""

_EMBEDDED_EXPERT = """\
    model: embedded:smollm2-135m-instruct
    adapter: civility-expert
    # model: openai:gpt-4.1-mini
    # base_url: https://api.openai.com/v1
    # api_key_env: OPENAI_API_KEY"""

_EMBEDDED_STUDENT = f"""\
    model: embedded:smollm2-135m-instruct
    # model: openai:{MODEL}
    # base_url: http://127.0.0.1:8000/v1"""

_DRAWN = """\
  candidates: 4                 # instructions drawn per text; the likeliest that passes the filter is taken
  temperature: 0.8              # of the draw; with the embedded model 10 candidates at 0.6 were better
"""
_DRAWN_EMBEDDED = """\
  candidates: 10                # instructions drawn per text; the likeliest that passes the filter is taken
  max_tokens: 48                # longer ones are cut, and dropped for it
  temperature: 0.6              # of the draw
"""
_RESPONSES_EMBEDDED = """\
  max_tokens: 96                # longer ones are cut, and written again
  temperature: 0.4              # of the draw
  repetition_penalty: 1.0       # 1.1 for models that loop
"""
_PICKED_EMBEDDED = """\
  pick: first                   # the likeliest draft that passes is taken: fewer calls than with 'best'
"""

_REMOTE_EXPERT = f"""\
    model: openai:{MODEL}
    base_url: http://127.0.0.1:8000/v1
    api_key_env: OPENAI_API_KEY     # where the endpoint asks for a key
    # price_per_million: [0.40, 1.60]   # US dollars, prompt and completion, of a hosted model that the price table lacks"""

_JUDGE = f"""\
  judge:
    model: openai:{MODEL}
    base_url: http://127.0.0.1:8000/v1
"""

_LOOKED_AT = 20
"""Rows that `init` reads: one of them at least must be good."""
_NAME_COLUMNS = "name the column with the text by --text, and that with your own id by --id"

_LIST = re.compile(r"""\[\s*["'].*["']\s*\]""", re.DOTALL)  # of texts, as Python, NumPy and JSON write it
_SHOWN_CHARS = 60

_NO_TEXTS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # what YAML takes for something else

_TEXT, _CATEGORY = "text", "category"
_CATEGORY_LINES = {
    True: f"  category_column: {_CATEGORY}     # one of: {{names}}\n",
    False: "  # category_column: COLUMN     # name the column that holds one of: {names}\n",
}

_LANGUAGES = ("en",)
"""Of a domain file that is only being written."""

_SIDES = {"rejected": "undesirable text: it becomes the rejected", "chosen": "good text: it becomes the chosen"}
_WRITERS = {
    "rejected": ("expert", "The expert writes the chosen response."),
    "chosen": ("student", "The student writes the rejected response: the model to be tuned, or a weak one."),
}


@dataclass(frozen=True, slots=True)
class StarterSource:
    """Where the texts are, as far as that is known already.

    Attributes:
        path: A file, a folder or a glob, from where the command is given.
        text: The column with the text; None where nobody has named it: then it is `text`.
        id: That with the user's own id.
        category: Whether there is a column `category`, as far as one can tell.
    """

    path: str
    text: str | None = None
    id: str | None = None
    category: bool = True


def write_starter(
    domain: str, folder: Path, source: StarterSource | None = None, *, embedded: bool = False, told: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Write `DOMAIN.yaml`, and for a domain that is not shipped `DOMAIN-domain.yaml`, if it is not there yet; existing files are never touched.

    Args:
        domain: A shipped one, or the name of one's own.
        folder: Where to write.
        source: The texts, which are looked at; None leaves a place to fill in.
        embedded: The embedded model in every role, to see it go without any other.
        told: Is given a line on texts that can be read and are hardly meant so.

    Returns:
        The files written.

    Raises:
        ConfigError: The name cannot be a file name, the config is there already, or the domain file is and is not valid, or has the name of
            a shipped domain; or the domain needs a judge, which the embedded model is not.
        SourceError: The texts are not there, have no such column, or give no text at their beginning.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", domain):
        raise ConfigError(f"'{domain}' cannot name a domain; use small letters, digits, '-' and '_'")
    own = folder / f"{domain}-domain.yaml"
    if domain in shipped_domains() and own.exists():
        raise ConfigError(
            f"'{domain}' is a shipped domain, and {own} would not be read; rename that file to my-{own.name}, then: safer-instruct init my-{domain}; "
            "or for the shipped one give another --dir"
        )
    there = domain not in shipped_domains() and own.exists()
    placed = _placed(source, folder, told)
    files = {folder / f"{domain}.yaml": _config(domain, _of_own(own) if there else None, placed, embedded=embedded)}
    if domain not in shipped_domains() and not there:
        files[own] = as_text(NewDomain(domain))
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} exists already; give another --dir, or move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{folder} cannot be a folder: {exc}") from exc
    for path, text in files.items():
        write_whole(path, text)
    return list(files)


def _placed(source: StarterSource | None, folder: Path, told: Callable[[str], None]) -> StarterSource:
    """With its path as the config will say it; its first rows are read, so that a wrong path, column or encoding is told now."""
    if source is None:
        return StarterSource("texts.jsonl")
    try:
        if source.text or source.id:
            _refuse_without_columns(source.path)
        first = list(islice(read_source(SourceConfig(path=source.path, text=source.text or _TEXT, id=source.id), Path()), _LOOKED_AT))
    except ColumnError as exc:
        raise ColumnError(exc.problem, _NAME_COLUMNS) from exc
    if all(isinstance(row, BadRow) for row in first):
        said = f"{first[0].file}:{first[0].line}: {first[0].reason}" if first and isinstance(first[0], BadRow) else "it holds none"
        remedy = advice(said) or (f"; {_NAME_COLUMNS}" if "column '" in said else "")
        raise SourceError(f"{source.path}: none of its first rows can be used: {said}{remedy}")
    if note := _note_on_lists([row for row in first if isinstance(row, SourceText)], source.text or _TEXT):
        told(note)
    path = source.path if Path(source.path).is_absolute() else os.path.relpath(source.path, folder)
    return StarterSource(path, source.text, source.id, _has_category(source))


def _note_on_lists(texts: Sequence[SourceText], column: str) -> str:
    """What to say of texts that are the representation of a list, as a table holds them that was written from a frame; empty where none is."""
    lists = [text for text in texts if _LIST.fullmatch(text.text)]
    if not lists:
        return ""
    shown = shortened(visible(lists[0].text), _SHOWN_CHARS)
    return (
        f"{len(lists)} of the first {many(len(texts), 'text')} {'looks like a list' if len(lists) == 1 else 'look like lists'} written as text, "
        f"such as {lists[0].file}:{lists[0].line}: {shown}; a pair would hold that as it stands: "
        f"write one text a row (in pandas, before the file is written: frame.explode('{visible(column)}'))"
    )


def _refuse_without_columns(path: str) -> None:
    """Where no file has columns, none can be named: perhaps a table has the ending of plain text."""
    config = SourceConfig(path=path)
    files = [describe(file, config, Path()) for file in find(config, Path())]
    if all(file.format in ("text", *DOCUMENTS) for file in files):
        table = "if it is a table, rename it so that it ends in .csv or .tsv; otherwise leave them out, and each paragraph is a text"
        remedy = table if files[0].format == "text" else "leave them out"
        raise SourceError(f"{files[0].name}: there are no columns in it, so --text and --id name nothing; {remedy}")


def _has_category(source: StarterSource) -> bool:
    """Whether the column that a domain of several categories is told by has the name that it has in the config."""
    try:
        first = list(islice(read_source(SourceConfig(path=source.path, text=source.text or _TEXT, category_column=_CATEGORY), Path()), _LOOKED_AT))
    except SourceError:
        return False
    return not all(isinstance(row, BadRow) for row in first)


def _of_own(path: Path) -> Domain:
    try:
        return load_domain(path.name, path.parent)
    except ConfigError as exc:
        raise ConfigError(f"{path} exists already, and is no domain file: {exc}") from exc


def _config(domain: str, own: Domain | None, source: StarterSource, *, embedded: bool) -> str:
    shipped = domain in shipped_domains()
    known = load_domain(domain) if shipped else own
    categories: tuple[str, ...] = tuple(known.categories) if known else ("main",)
    direction = known.direction if known else "rejected"
    role, writes = _WRITERS[direction]
    if embedded and known and not all(category.contrast for category in known.categories.values()):
        raise ConfigError(
            f"domain '{domain}' is verified by a judge, which the embedded model is not: give its categories a 'contrast', or leave out --embedded"
        )
    strong = shipped and domain != "civility" and not embedded
    category = _CATEGORY_LINES[source.category].format(names=", ".join(categories)) if len(categories) > 1 else ""
    local = {"rejected": _EMBEDDED_EXPERT, "chosen": _EMBEDDED_STUDENT}[direction]
    return _CONFIG.format(
        name=domain,
        domain=domain if shipped else f"{domain}-domain.yaml",
        shipped=", ".join(shipped_domains()),
        path=_padded(source.path),
        text=_padded(source.text or _TEXT),
        id=f"id: {_padded(source.id, 26)}" if source.id else "# id: id                      ",
        category=category,
        languages=f"[{', '.join(known.languages if known else _LANGUAGES)}]",
        side=_SIDES[direction],
        role=role,
        writes=writes,
        writer=local if embedded or domain == "civility" else _REMOTE_EXPERT,
        judge=_JUDGE if strong else "",
        induce=_DRAWN_EMBEDDED if embedded else _DRAWN,
        respond=_RESPONSES_EMBEDDED if embedded else "",
        verify=_PICKED_EMBEDDED if embedded else "",
        form="question" if strong else "contrast",
    )


def _padded(value: str, width: int = 24) -> str:
    """As YAML, with room up to the comment behind it."""
    plain = value if re.fullmatch(r"[A-Za-z][\w./-]*", value) and value.lower() not in _NO_TEXTS else json.dumps(value, ensure_ascii=False)
    return f"{plain:<{width - 1}} "
