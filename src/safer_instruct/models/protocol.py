"""What a model is to the rest of the package: two verbs over frozen requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, Protocol

from safer_instruct.example import Turn as Turn

UNFINISHED_USER = "user, unfinished"
"""Role of a chat's last turn that the model is to go on with, as the user. Embedded models know it; endpoints take a raw prompt instead."""
Prompt = str | tuple[Turn, ...]
"""A raw prompt, which the model continues, or a chat, which it answers."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw a completion.

    Attributes:
        max_tokens: Cap on each completion, in the model's tokens.
        temperature: 0 is greedy.
        top_k: Draw among the k likeliest tokens only; 0 for all of them.
        repetition_penalty: Above 1 makes repeated tokens less likely (Keskar et al. 2019, section 4.1).
        n: Completions per request.
    """

    max_tokens: int = 128
    temperature: float = 0.8
    top_k: int = 40
    repetition_penalty: float = 1.0
    n: int = 1


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON schema that an answer is to fit, as a value that can be hashed.

    Attributes:
        name: Letters, digits, `_` and `-`; endpoints ask for one.
        json: The schema as compact JSON. Its properties stay in the order given: models write them in that order, so a
            reason that stands before its answer is thought of before it.
    """

    name: str
    json: str

    @classmethod
    def of(cls, name: str, definition: Mapping[str, Any]) -> Schema:
        """The schema `definition`."""
        return cls(name, json.dumps(definition, separators=(",", ":")))

    @property
    def definition(self) -> dict[str, Any]:
        """The schema as a dict, shared by all who ask: not to be changed."""
        return _definition(self.json)


@lru_cache(maxsize=256)
def _definition(text: str) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads(text)
    return definition


@dataclass(frozen=True, slots=True)
class Generation:
    """A request for completions of a prompt.

    `repr` leaves `schema` and `alternatives` out: the embedded engine draws its seed from it, and neither changes what it draws.

    Attributes:
        prompt: A text to continue, or a chat to answer.
        sampling: How, and how many.
        seed: Of the draw.
        schema: What the completions are to fit, where the model can be held to it.
        alternatives: Each completion tells so many of the likeliest first tokens, where the model can.
    """

    prompt: Prompt
    sampling: Sampling
    seed: int = 0
    schema: Schema | None = field(default=None, repr=False)
    alternatives: int | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Scoring:
    """A request for the log-probability of a given text.

    Attributes:
        prompt: What it stands behind.
        continuation: The text.
        max_tokens: Only its first tokens, so many; None for all.
    """

    prompt: Prompt
    continuation: str
    max_tokens: int | None = None


def encode_request(kind: str, request: Generation | Scoring) -> bytes:
    """The request as sorted JSON, which calls are known by on disk; a change of a single byte here makes every key another."""
    plain = isinstance(request, Generation) and request.schema is None and request.alternatives is None
    if isinstance(request, Generation) and plain and not isinstance(request.prompt, str):  # most calls: the same, faster
        turns = ", ".join(f'{{"content": {_quoted(turn.content)}, "role": {_quoted(turn.role)}}}' for turn in request.prompt)
        sampling = _sampling_json(*_fields_of_sampling(request.sampling))
        return f'["{kind}", {{"prompt": [{turns}], "sampling": {sampling}, "seed": {request.seed}}}]'.encode("utf-8", "surrogatepass")
    return _request_json([kind, request]).encode("utf-8", "surrogatepass")


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass as a dict of its fields; unlike `asdict` it copies nothing below.

    What is None is left out, so a field that requests were given later changes no key of those that do without it.
    """
    return {name: given for name in value.__dataclass_fields__ if (given := getattr(value, name)) is not None}


_quoted = json.encoder.encode_basestring
_request_json = json.JSONEncoder(default=_fields, ensure_ascii=False, sort_keys=True).encode
_fields_of_sampling = attrgetter(*Sampling.__dataclass_fields__)


@lru_cache(maxsize=256, typed=True)  # 1 and 1.0 are equal, and are written differently
def _sampling_json(*fields: float) -> str:
    return _request_json(dict(zip(Sampling.__dataclass_fields__, fields, strict=True)))


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call took.

    Attributes:
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        cost: US dollars; 0 where the price is not known.
        seconds: Of work.
        cached_tokens: Those of the prompt that the server had read before, where it tells.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = field(default=0.0, compare=False)
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
            self.seconds + other.seconds,
            self.cached_tokens + other.cached_tokens,
        )


Withheld = Literal["", "filter", "refusal"]
"""Why there is no answer: the endpoint's content filter, or the model itself, which said so; empty where there is one."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion.

    Attributes:
        text: What the model wrote; of a completion that was withheld what came in its place, if anything.
        logprob: Mean log-probability per generated token in nats, where the model tells.
        finished: False when it was cut at `max_tokens`.
        tokens: How many tokens `logprob` is the mean of, where the model tells.
        withheld: Set where this is not to be taken for an answer.
        alternatives: The likeliest first tokens with their log-probabilities in nats, where they were asked for and the model tells.
    """

    text: str
    logprob: float | None = None
    finished: bool = True
    tokens: int | None = None
    withheld: Withheld = ""
    alternatives: tuple[tuple[str, float], ...] = ()

    @property
    def total_logprob(self) -> float | None:
        """Log-probability of the whole completion in nats; the mean per token where the model does not tell how many there are."""
        return self.logprob if self.logprob is None or self.tokens is None else self.logprob * self.tokens


@dataclass(frozen=True, slots=True)
class Generated:
    """The answer to a `Generation`.

    A request that a content filter stopped is answered too, with completions that were withheld: it is not asked again.

    Attributes:
        completions: [n] As they were drawn.
        usage: What the call took.
    """

    completions: tuple[Completion, ...]
    usage: Usage = Usage()

    @property
    def withheld(self) -> Completion | None:
        """The first completion, where every one of them was withheld."""
        return self.completions[0] if self.completions and all(c.withheld for c in self.completions) else None

    def ranked(self, *, whole: bool = False) -> list[Completion]:
        """Distinct completions without the white space around them, likeliest first; the text breaks ties, and none was withheld.

        Likeliest per token, or with `whole` as a whole, which speaks for short ones.
        """
        distinct = {c.text.strip(): c for c in reversed(self.completions) if not c.withheld}
        stripped = [replace(c, text=text) for text, c in distinct.items()]

        def unlikeliness(completion: Completion) -> float:
            value = completion.total_logprob if whole else completion.logprob
            return 0.0 if value is None else -value

        return sorted(stripped, key=lambda c: (unlikeliness(c), c.text))


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to a `Scoring`.

    Attributes:
        logprobs: [tokens] Log-probability of every token of the continuation, in nats.
        usage: What the call took.
    """

    logprobs: tuple[float, ...]
    usage: Usage = Usage()

    @property
    def mean(self) -> float:
        """Mean log-probability per token, 0 for an empty continuation."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else 0.0


class Model(Protocol):
    """A language model, local or remote."""

    @property
    def name(self) -> str:
        """The model string it was opened by, `provider:model`; holds no secret."""

    @property
    def fingerprint(self) -> str:
        """Everything that its answers depend on, adapter digest included; part of every ledger key."""

    @property
    def concurrency(self) -> int:
        """How many requests are worth having in flight."""

    @property
    def priced(self) -> bool:
        """Whether `Usage.cost` says what its calls cost; otherwise the price is not known, and it says 0."""

    @property
    def status(self) -> str:
        """What its calls wait for at this moment, in words to show; empty while they flow."""

    async def generate(self, request: Generation) -> Generated:
        """Complete a prompt; the same request gives the same answer whatever else is in flight.

        Raises:
            ModelError: The model failed after its retries.
        """

    async def score(self, request: Scoring) -> Scored:
        """Log-probability of a given continuation.

        Raises:
            ModelError: The model failed after its retries, or cannot score.
        """

    async def close(self) -> None:
        """Give back connections, threads and memory."""
