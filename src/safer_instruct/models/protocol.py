"""What a model is to the rest of the package: two verbs over frozen requests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Turn:
    """One chat message."""

    role: str
    content: str


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
class Generation:
    """A request for `sampling.n` completions of `prompt`."""

    prompt: Prompt
    sampling: Sampling
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Scoring:
    """A request for the log-probability of `continuation` after `prompt`."""

    prompt: Prompt
    continuation: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call took: tokens read and written, cost in US dollars, seconds of work."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = field(default=0.0, compare=False)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion.

    Attributes:
        text: What the model wrote.
        logprob: Mean log-probability per generated token in nats, where the model tells.
        finished: False when it was cut at `max_tokens`.
        tokens: How many tokens `logprob` is the mean of, where the model tells.
    """

    text: str
    logprob: float | None = None
    finished: bool = True
    tokens: int | None = None

    @property
    def total_logprob(self) -> float | None:
        """Log-probability of the whole completion in nats; the mean per token where the model does not tell how many there are."""
        return self.logprob if self.logprob is None or self.tokens is None else self.logprob * self.tokens


@dataclass(frozen=True, slots=True)
class Generated:
    """The answer to a `Generation`: `sampling.n` completions."""

    completions: tuple[Completion, ...]
    usage: Usage = Usage()

    def ranked(self, *, whole: bool = False) -> list[Completion]:
        """Distinct completions without the white space around them, likeliest first; the text breaks ties.

        Likeliest per token, or with `whole` as a whole, which speaks for short ones.
        """
        distinct = {c.text.strip(): c for c in reversed(self.completions)}
        stripped = [replace(c, text=text) for text, c in distinct.items()]

        def unlikeliness(completion: Completion) -> float:
            value = completion.total_logprob if whole else completion.logprob
            return 0.0 if value is None else -value

        return sorted(stripped, key=lambda c: (unlikeliness(c), c.text))


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to a `Scoring`: log-probability of every token of the continuation, in nats."""

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
