"""What each system writes and scores on each held-out pair; every call goes through the ledger, so a stopped evaluation goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safer_instruct.errors import AccessError, RequestError
from safer_instruct.evaluation.inducer.plan import EvaluationConfig, System
from safer_instruct.evaluation.sitting import Tick, gathered
from safer_instruct.models.protocol import Generation, Model, Sampling, Scoring
from safer_instruct.reverse import before_heading
from safer_instruct.seeds import derive_seed
from safer_instruct.templates import Template
from safer_instruct.tuning.pairs import Pair


@dataclass(frozen=True, slots=True)
class Induced:
    """What a system wrote for one response.

    Attributes:
        text: The instruction; empty where it was withheld or refused.
        finished: False when it was cut at the token limit.
        logprobs: Log-probability of each token of the true instruction under the system, in nats; None where the model does not score.
    """

    text: str
    finished: bool
    logprobs: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where the true response stands among the distractors, 1 for first; ties count half.

    Attributes:
        by_logprob: Ranked by mean log p(response | instruction) per token.
        by_gain: Ranked by that less mean log p(response): what the instruction adds, whatever the response is like by itself.
    """

    by_logprob: float
    by_gain: float


async def induce_all(system: System, model: Model, pairs: Sequence[Pair], config: EvaluationConfig, tick: Tick) -> list[Induced]:
    """What `system` writes for each response, and how likely it finds the true instruction.

    Raises:
        ModelError: The model failed after its retries.
    """
    sampling = Sampling(max_tokens=config.max_tokens, temperature=config.temperature)
    scores = True

    async def one(pair: Pair) -> Induced:
        nonlocal scores
        prompt = system.template.prompt(pair.response, history=pair.history)
        text, finished = "", True
        try:
            answer = await model.generate(Generation(prompt, sampling, derive_seed(config.seed, "evaluate", pair.response)))
            if not answer.withheld:
                completion = before_heading(system.template.read(answer.completions[0]))
                text, finished = completion.text.strip(), completion.finished
        except RequestError:  # too long for this model, say: it induced nothing here
            finished = False
        tick()
        logprobs = None
        if scores:
            try:
                logprobs = (await model.score(Scoring(prompt, system.template.completion(pair.prompt)))).logprobs
            except AccessError:  # generating worked, so it is scoring that this endpoint lacks
                scores = False
            except RequestError:
                logprobs = None
        tick()
        return Induced(text, finished, logprobs)

    return await gathered(one, pairs, model.concurrency)


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What responses are ranked among; the same for every system.

    Attributes:
        texts: Responses, shortened: those of the evaluated pairs and of all others that are held out.
        true: For each evaluated pair: which of them is its own.
        others: For each evaluated pair: which of them it is ranked among.
    """

    texts: tuple[str, ...]
    true: tuple[int, ...]
    others: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, pairs: Sequence[Pair], held_out: Sequence[Pair], config: EvaluationConfig) -> RoundTrip:
        """Draw the distractors of each pair from the held-out responses, by its content."""
        texts = tuple(dict.fromkeys(pair.response[: config.max_response_chars] for pair in (*pairs, *held_out)))
        place = {text: at for at, text in enumerate(texts)}
        true = tuple(place[pair.response[: config.max_response_chars]] for pair in pairs)
        return cls(texts, true, tuple(_distractors(at, texts, config) for at in true))

    @property
    def used(self) -> list[int]:
        """Which of the texts are ranked at all."""
        return sorted({*self.true, *(other for others in self.others for other in others)})

    @property
    def calls(self) -> int:
        """Scorings that one system's round trip takes."""
        return len(self.used) + sum(1 + len(others) for others in self.others)


async def rank_all(instructions: Sequence[str], trip: RoundTrip, forward: Model, template: Template, tick: Tick) -> list[Ranks]:
    """The round trip: how the true response ranks among others given each instruction.

    Raises:
        ModelError: The forward model failed, or cannot score.
    """

    async def mean(job: tuple[str, int]) -> float:
        instruction, at = job
        value = (await forward.score(Scoring(template.render(prompt=instruction), trip.texts[at]))).mean
        tick()
        return value

    among = [(true, *others) for true, others in zip(trip.true, trip.others, strict=True)]
    alone = dict(zip(trip.used, await gathered(mean, [("", at) for at in trip.used], forward.concurrency), strict=True))
    jobs = [(instruction, at) for instruction, ranked in zip(instructions, among, strict=True) for at in ranked]
    given = iter(await gathered(mean, jobs, forward.concurrency))
    ranks = []
    for ranked in among:
        likely = {at: next(given) for at in ranked}
        gain = {at: value - alone[at] for at, value in likely.items()}
        ranks.append(Ranks(_rank(likely, ranked[0]), _rank(gain, ranked[0])))
    return ranks


def _distractors(at: int, texts: Sequence[str], config: EvaluationConfig) -> tuple[int, ...]:
    others = [i for i in range(len(texts)) if i != at]
    others.sort(key=lambda i: derive_seed(config.seed, "distractors", texts[at], texts[i]))
    return tuple(others[: config.distractors])


def _rank(values: dict[int, float], true: int) -> float:
    above = sum(value > values[true] for value in values.values())
    equal = sum(value == values[true] for value in values.values()) - 1
    return 1 + above + equal / 2
