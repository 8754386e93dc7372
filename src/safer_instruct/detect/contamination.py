"""Instructions that stand in a benchmark: runs of thirteen words, as GPT-3's authors counted them (Brown et al. 2020, appendix C)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

from safer_instruct.detect.words import words_of
from safer_instruct.errors import SourceError

RUN_WORDS = 13
_SHORTEST_WORDS = 4  # a shorter prompt ("Tell me a joke") is everybody's
_PROMPT_KEYS = ("prompt", "instruction", "question", "input", "text")


@dataclass(frozen=True, slots=True)
class Contamination:
    """A benchmark's prompt that an instruction repeats.

    Attributes:
        benchmark: The name that the benchmark was given.
        prompt: The benchmark's prompt.
        run: The words in common: thirteen, or all where the prompt has fewer.
    """

    benchmark: str
    prompt: str
    run: str


class BenchmarkIndex:
    """Every run of thirteen words of some benchmarks' prompts; a shorter prompt must be met as a whole."""

    def __init__(self, benchmarks: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Index prompts.

        Args:
            benchmarks: Name and prompts of each.
        """
        self._prompts: list[tuple[str, str]] = []
        self._at: dict[str, int] = {}
        self._openings: set[tuple[str, str]] = set()  # the first two words of each run: most runs of a text begin otherwise
        for name, prompts in benchmarks:
            for prompt in prompts:
                self._prompts.append((name, prompt))
                parts = words_of(prompt).list
                for at in _starts(parts):
                    self._openings.add((parts[at], parts[at + 1]))
                    self._at.setdefault(_run(parts, at), len(self._prompts) - 1)

    def __len__(self) -> int:
        return len(self._prompts)

    def find(self, text: str) -> Contamination | None:
        """The first run of `text` that stands in a benchmark, or None."""
        parts, openings = words_of(text).list, self._openings
        starts = _starts(parts)
        if openings.isdisjoint(islice(pairwise(parts), len(starts))):
            return None
        for start, opening in zip(starts, pairwise(parts), strict=False):
            if opening in openings:
                run = _run(parts, start)
                at = self._at.get(run)
                if at is not None:
                    return Contamination(*self._prompts[at], run)
        return None


def _starts(parts: list[str]) -> range:
    """Where runs begin: one run of all where there are fewer than thirteen words, none where there are too few."""
    return range(max(1, len(parts) - RUN_WORDS + 1) if len(parts) >= _SHORTEST_WORDS else 0)


def _run(parts: list[str], at: int) -> str:
    return " ".join(parts[at : at + RUN_WORDS])


def read_prompts(path: Path) -> list[str]:
    """Prompts of a benchmark's file: JSONL (`prompt`, `instruction`, `question`, `input` or `text`, or plain strings), or one a line.

    Raises:
        SourceError: The file cannot be read, or a line of it holds no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"benchmark file {path}: {exc}; give a UTF-8 file with one prompt a line, or JSONL") from exc
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    if path.suffix not in (".jsonl", ".json", ".ndjson"):
        return [line.strip() for _, line in numbered]
    return [_prompt(line, f"{path}:{number}") for number, line in numbered]


def _prompt(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as exc:
        raise SourceError(f"benchmark file {where}: broken JSON: {exc}; give one JSON object a line") from exc
    if isinstance(value, str):
        return value
    found = next((value[key] for key in _PROMPT_KEYS if isinstance(value.get(key), str)), None) if isinstance(value, dict) else None
    if found is None:
        raise SourceError(f"benchmark file {where}: no prompt; name it {', '.join(_PROMPT_KEYS[:-1])} or {_PROMPT_KEYS[-1]}")
    return str(found)
