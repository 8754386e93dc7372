"""A model that follows a script: for tests, dry runs of a config, and load tests. Real in every way but its weights.

A script is a YAML file; the first rule whose `match` (a regular expression) is found in the prompt answers:

    generate:
      - match: "umbrella"
        answers: ["My umbrella broke on its first day."]   # one is drawn by seed
      - answers: ["Tell me about {words}."]                # {words}: pseudo-words made from prompt and seed
    score:
      - match: "kind"
        logprob: -1.0                                      # mean per token

`scripted:` without a file answers `{words}` and scores every token -1.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from safer_instruct import yamlfile
from safer_instruct.models.protocol import Completion, Generated, Generation, Prompt, Scored, Scoring, Usage
from safer_instruct.yamlfile import Strict

_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


def _regular(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as exc:
        raise ValueError(f"{pattern!r} is no regular expression: {exc}") from exc
    return pattern


Pattern = Annotated[str, AfterValidator(_regular)]


class GenerateRule(Strict):
    """Answers for prompts that `match`, and log-probabilities of first tokens for those who ask for them."""

    match: Pattern = ""
    answers: Annotated[tuple[str, ...], Field(min_length=1)]
    alternatives: dict[str, float] = Field(default_factory=dict)


class ScoreRule(Strict):
    """Mean log-probability per token for prompts that `match`."""

    match: Pattern = ""
    logprob: float


class Script(Strict):
    """A script file."""

    generate: tuple[GenerateRule, ...] = ()
    score: tuple[ScoreRule, ...] = ()
    latency_s: float = 0.0


class ScriptedModel:
    """Answers from a script, as a pure function of the request."""

    concurrency, priced, status = 64, True, ""

    def __init__(self, name: str = "", *, base: Path | None = None) -> None:
        """Read the script `name`, relative to `base`; an empty name is the default script.

        Raises:
            ConfigError: The script is missing or not valid.
        """
        self.name = f"scripted:{name}"
        self._script = yamlfile.load((base or Path()) / name, Script) if name else Script()
        self.fingerprint = "scripted:" + hashlib.sha256(self._script.model_dump_json().encode()).hexdigest()[:32]

    async def generate(self, request: Generation) -> Generated:
        """See `Model.generate`."""
        await self._wait()
        text = prompt_text(request.prompt)
        rule = next((r for r in self._script.generate if re.search(r.match, text)), None)
        answers = rule.answers if rule else ("{words}",)
        made = []
        for i in range(request.sampling.n):
            digest = hashlib.sha256(f"{request.seed}\n{i}\n{text}".encode()).digest()
            answer = answers[digest[0] % len(answers)].replace("{words}", _words(digest))
            likeliest = sorted(rule.alternatives.items(), key=lambda pair: -pair[1])[: request.alternatives] if rule and request.alternatives else []
            made.append(Completion(answer, -1.0 - digest[1] / 256, alternatives=tuple(likeliest)))
        return Generated(tuple(made), Usage(len(text.split()), sum(len(c.text.split()) for c in made)))

    async def score(self, request: Scoring) -> Scored:
        """See `Model.score`."""
        await self._wait()
        text = prompt_text(request.prompt)
        rule = next((r for r in self._script.score if re.search(r.match, text)), None)
        tokens = request.continuation.split()[: request.max_tokens]
        return Scored((rule.logprob if rule else -1.0,) * len(tokens), Usage(len(text.split()) + len(tokens), 0))

    async def close(self) -> None:
        """Nothing to give back."""

    async def _wait(self) -> None:
        if self._script.latency_s:
            await asyncio.sleep(self._script.latency_s)


def prompt_text(prompt: Prompt) -> str:
    """A prompt as one text: a chat's messages one below the other."""
    return prompt if isinstance(prompt, str) else "\n".join(turn.content for turn in prompt)


def _words(digest: bytes) -> str:
    pairs = zip(digest[2:18:2], digest[3:19:2], strict=True)
    return " ".join(_SYLLABLES[a % len(_SYLLABLES)] + _SYLLABLES[b % len(_SYLLABLES)] for a, b in pairs)
