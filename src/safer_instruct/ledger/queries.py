"""What a ledger says, also while a run is writing it."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from safer_instruct.errors import RunDirectoryError
from safer_instruct.ledger.content import KEY_BYTES, Call, decode_generated, decode_request, decode_scored, is_scoring
from safer_instruct.ledger.rows import COLUMNS, DamagedRowError, Unpacker
from safer_instruct.ledger.schema import connect_to_read, explain
from safer_instruct.models.protocol import Completion, Usage
from safer_instruct.settings.models import ALWAYS_IN_PROCESS

_COUNT = "SELECT coalesce(max(number), 0) FROM calls"
_MARKED = 8  # keys, which are digests, are enough to know a ledger by
_CHUNK = 1000  # rows in one read transaction: a longer one would keep a run from reusing its write-ahead log


@dataclass(frozen=True, slots=True)
class Total:
    """What one model's calls of one stage add up to."""

    stage: str
    model: str
    calls: int
    usage: Usage

    @property
    def untold(self) -> bool:
        """Whether its calls, which left this process, tell no token at all: the endpoint reports no usage, so what they cost is not known."""
        told = self.usage.prompt_tokens or self.usage.completion_tokens or self.usage.cost
        return bool(self.calls) and not told and self.model.partition(":")[0] not in ALWAYS_IN_PROCESS

    @property
    def cost(self) -> float | None:
        """US dollars, None where they are not known."""
        return None if self.untold else self.usage.cost


def cost_of(totals: Iterable[Total]) -> float | None:
    """US dollars of all of them, None where those of one are not known."""
    costs = [total.cost for total in totals]
    return None if None in costs else sum(cost or 0.0 for cost in costs)


def read_totals(path: Path) -> list[Total]:
    """Totals per stage and model, in order of first use.

    Raises:
        RunDirectoryError: The file cannot be read.
    """
    query = "SELECT stage, model, calls, prompt_tokens, completion_tokens, cost, seconds FROM origins ORDER BY id"
    with closing(connect_to_read(path)) as connection:
        try:
            return [Total(stage, model, calls, Usage(*rest)) for stage, model, calls, *rest in connection.execute(query)]
        except sqlite3.Error as exc:
            raise explain(path, exc, "the ledger cannot be read") from exc


def read_mark(path: Path) -> dict[str, Any]:
    """What a ledger will be known by: how many calls it holds, and the first of their keys in the order of the keys.

    Raises:
        RunDirectoryError: The file cannot be read.
    """
    with closing(connect_to_read(path)) as connection:
        try:
            (calls,) = connection.execute(_COUNT).fetchone()
            keys = connection.execute("SELECT key FROM calls ORDER BY key LIMIT ?", (_MARKED,)).fetchall()
        except sqlite3.Error as exc:
            raise explain(path, exc, "the ledger cannot be read") from exc
    return {"calls": calls, "keys": [key.hex() for (key,) in keys]}


def bears_mark(path: Path, mark: Mapping[str, Any]) -> bool:
    """Whether a ledger is the one that `read_mark` told of, with whatever has come to it since; the order of its calls may be another.

    Raises:
        RunDirectoryError: The file cannot be read.
    """
    with closing(connect_to_read(path)) as connection:
        try:
            (calls,) = connection.execute(_COUNT).fetchone()
            found = [connection.execute("SELECT 1 FROM calls WHERE key = ?", (bytes.fromhex(key),)).fetchone() for key in mark["keys"]]
        except sqlite3.Error as exc:
            raise explain(path, exc, "the ledger cannot be read") from exc
    return calls >= mark["calls"] and all(found)


def read_calls(path: Path) -> Iterator[Call]:
    """Every call in order of commit, a chunk of them in memory at a time.

    Raises:
        RunDirectoryError: The file cannot be read, or is damaged.
    """
    with closing(connect_to_read(path)) as connection:
        unpacker, last = Unpacker.load(connection), 0
        query = f"SELECT {COLUMNS}, number FROM calls WHERE number > ? ORDER BY number LIMIT {_CHUNK}"  # noqa: S608 - constants
        try:
            while rows := connection.execute(query, (last,)).fetchall():
                last = rows[-1][-1]
                for *row, _ in rows:
                    if not unpacker.knows(row):
                        unpacker = Unpacker.load(connection)
                    yield unpacker.unpack(row)
        except (sqlite3.Error, DamagedRowError) as exc:
            raise explain(path, exc, "the ledger cannot be read") from exc


def find_calls(path: Path, text: str) -> Iterator[tuple[Call, str, int]]:
    """Calls with `text` in their request or answer, in order of commit: call, the text it is found in, and where.

    Upper and lower case are the same. Only what was written and answered is searched, not the settings.

    Raises:
        RunDirectoryError: The file cannot be read, or is damaged.
    """
    wanted = text.casefold()
    escaped = json.dumps(wanted, ensure_ascii=False)[1:-1]
    for call in read_calls(path):
        stored = call.request if is_scoring(call) else call.request + call.answer
        if escaped not in stored.decode("utf-8", "surrogatepass").casefold():  # cheap, and right but for JSON's own words
            continue
        for found in texts(call):
            at = found.casefold().find(wanted)
            if at >= 0:
                yield call, found, at
                break


def find_by_key(path: Path, prefix: str) -> Call:
    """The one call whose key begins so, in hexadecimal.

    Raises:
        RunDirectoryError: There is none, or there are several; or the file cannot be read, or is damaged.
    """
    digits = prefix.lower()
    if not digits or len(digits) > 2 * KEY_BYTES or set(digits) - set("0123456789abcdef"):
        raise RunDirectoryError(f"{prefix!r} is no key: give up to {2 * KEY_BYTES} hexadecimal digits, as --search shows them")
    first, last = (bytes.fromhex(digits.ljust(2 * KEY_BYTES, fill)) for fill in "0f")
    query = f"SELECT {COLUMNS} FROM calls WHERE key BETWEEN ? AND ? ORDER BY key LIMIT 3"  # noqa: S608 - constants
    with closing(connect_to_read(path)) as connection:
        try:
            rows = connection.execute(query, (first, last)).fetchall()
            if len(rows) > 1:
                raise RunDirectoryError(f"{path} holds several calls with a key that begins with {digits}, such as {', '.join(row[0].hex() for row in rows)}")
            if not rows:
                raise RunDirectoryError(f"{path} holds no call with a key that begins with {digits}")
            return Unpacker.load(connection).unpack(rows[0])
        except (sqlite3.Error, DamagedRowError) as exc:
            raise explain(path, exc, "the ledger cannot be read") from exc


def export_calls(path: Path, file: TextIO) -> int:
    """Write every call as a line of JSON, one in memory at a time; gives how many.

    Raises:
        RunDirectoryError: The file cannot be read, or is damaged.
    """
    count = 0
    for call in read_calls(path):
        file.write(json.dumps(as_record(call)) + "\n")
        count += 1
    return count


def as_record(call: Call) -> dict[str, Any]:
    """A call as plain data for JSON; a log-probability that is no finite number becomes None."""
    kind, request = decode_request(call.request)
    answer: dict[str, Any]
    if kind == "generate":
        generated = decode_generated(call.answer, call.usage)
        usage, answer = generated.usage, {"completions": [_completion(c) for c in generated.completions]}
    else:
        scored = decode_scored(call.answer, call.usage)
        usage, answer = scored.usage, {"logprobs": [_finite(value) for value in scored.logprobs]}
    finished_at = datetime.fromtimestamp(call.finished_at, UTC).isoformat(timespec="milliseconds")
    named = {"key": call.key.hex(), "stage": call.stage, "model": call.model, "kind": kind, "finished_at": finished_at}
    return named | asdict(usage) | {"request": request, "answer": answer}


def texts(call: Call) -> list[str]:
    """What a call asked, turn by turn, and what was answered."""
    kind, request = decode_request(call.request)
    prompt = request["prompt"]
    asked = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt]
    if kind == "generate":
        return asked + [c.text for c in decode_generated(call.answer, call.usage).completions]
    return [*asked, request["continuation"]]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _completion(completion: Completion) -> dict[str, Any]:
    plain = asdict(completion) | {"logprob": _finite(completion.logprob)}
    return plain if completion.alternatives else {name: value for name, value in plain.items() if name != "alternatives"}
