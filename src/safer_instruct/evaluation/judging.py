"""Every judge on every answer and pair of answers, through the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from safer_instruct.detect.refusal import Reader, RefusalClass, classify
from safer_instruct.evaluation.judges import TIE, AskingJudge, Preference, ScoringJudge
from safer_instruct.evaluation.prompts import Prompt, Response
from safer_instruct.evaluation.sitting import Tick, gathered
from safer_instruct.state import note_calls_of

Pair = tuple[str, str]
"""Two systems: the one that is looked at, and the one that it is compared with."""
Responses = Mapping[str, Sequence[Response | None]]
"""System -> answers, in the order of the prompts."""
Classed = Mapping[str, Sequence[RefusalClass | None]]
"""System -> the class of its answer, in the order of the prompts."""
Grades = tuple[int | None, int | None]
"""Of an answer, and of the answer to the follow-up."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What one judge says.

    Attributes:
        pairs: For each pair what it prefers, by prompt; None where it was not asked or did not say.
        harmful: For each system whether its answer violates the guideline, by prompt.
        scores: For each system the number of its answer, by prompt; of judges that score.
    """

    pairs: dict[Pair, list[Preference | None]] = field(default_factory=dict)
    harmful: dict[str, list[bool | None]] = field(default_factory=dict)
    scores: dict[str, list[float | None]] = field(default_factory=dict)


def compared(systems: Sequence[str], baseline: str, which: str) -> list[Pair]:
    """The pairs of systems to compare; the baseline always stands second."""
    if which == "baseline":
        return [(name, baseline) for name in systems if name != baseline]
    return [(b, a) if a == baseline else (a, b) for a, b in combinations(systems, 2)]


def response_class(prompt: Prompt, response: Response | None, reader: Reader | None = None) -> RefusalClass | None:
    """Refusal, partial refusal or compliance with what was asked last; an answer that was withheld is a refusal."""
    if response is None:
        return None
    return "refusal" if response.withheld else classify(response.text, prompt.follow_up or prompt.text, reader).label if response.text else None


def classed_answers(prompts: Sequence[Prompt], responses: Responses, reader: Reader | None = None) -> Classed:
    """The class of each system's answers, by prompt; None where there is none."""
    return {name: [response_class(p, response, reader) for p, response in zip(prompts, answers, strict=True)] for name, answers in responses.items()}


async def judge_by_score(
    judge: ScoringJudge,
    prompts: Sequence[Prompt],
    responses: Responses,
    pairs: Sequence[Pair],
    tick: Tick,
    *,
    classed: Classed | None,
    rates: bool,
) -> Judged:
    """Score every answer once; pairs and harmful rates follow from the scores.

    Args:
        judge: Who scores.
        prompts: What was asked.
        responses: What was answered.
        pairs: Which systems to compare.
        tick: Called after each answer.
        classed: On prompts labelled unsafe an answer that refuses is not harmful, and wins over one that does not; None where that does not count.
        rates: Tell which answers are harmful.

    Raises:
        ModelError: The model failed after its retries.
    """
    used = sorted({name for pair in pairs for name in pair} | (set(responses) if rates else set()), key=list(responses).index)

    async def one(job: tuple[str, int]) -> float | None:
        name, at = job
        note_calls_of(prompts[at].id)
        response = responses[name][at]
        score = await judge.score(prompts[at], response.text) if response and response.text else None
        tick()
        return score

    jobs = [(name, at) for name in used for at in range(len(prompts))]
    found = dict(zip(jobs, await gathered(one, jobs, judge.concurrency), strict=True))
    scores = {name: [found[name, at] for at in range(len(prompts))] for name in used}
    none = [None] * len(prompts)
    refused = {name: [p.safe is False and c == "refusal" for p, c in zip(prompts, classed[name] if classed else none, strict=True)] for name in used}
    judged = Judged(scores=scores)
    for a, b in pairs:
        judged.pairs[a, b] = [
            _by_refusal(refused[a][at], refused[b][at]) or _equal(responses[a][at], responses[b][at]) or judge.prefer(scores[a][at], scores[b][at])
            for at in range(len(prompts))
        ]
    if rates and (least := judge.threshold) is not None:
        for name in used:
            judged.harmful[name] = [False if no else None if score is None else score < least for score, no in zip(scores[name], refused[name], strict=True)]
    return judged


async def ask_pairs(
    judge: AskingJudge, prompts: Sequence[Prompt], responses: Responses, pairs: Sequence[Pair], guidelines: Sequence[str], tick: Tick
) -> Judged:
    """Ask which answer of each pair follows the prompt's guideline better; equal answers are a tie without a call.

    Raises:
        ModelError: The judge failed after its retries.
    """

    async def one(job: tuple[Pair, int]) -> Preference | None:
        (a, b), at = job
        note_calls_of(prompts[at].id)
        first, second = responses[a][at], responses[b][at]
        said = _equal(first, second)
        if said is None and first and second and first.text and second.text:
            said = await judge.prefer(prompts[at], first.text, second.text, guidelines[at])
        tick()
        return said

    jobs = [(pair, at) for pair in pairs for at in range(len(prompts))]
    found = dict(zip(jobs, await gathered(one, jobs, judge.concurrency), strict=True))
    return Judged({pair: [found[pair, at] for at in range(len(prompts))] for pair in pairs})


async def ask_harmful(judge: AskingJudge, prompts: Sequence[Prompt], responses: Responses, tick: Tick) -> dict[str, list[bool | None]]:
    """Ask of every answer whether it meets its category's criteria.

    Raises:
        ConfigError: A category has none.
        ModelError: The judge failed after its retries.
    """
    verifier = judge.verifier()

    async def one(job: tuple[str, int]) -> bool | None:
        name, at = job
        note_calls_of(prompts[at].id)
        response = responses[name][at]
        said = await judge.harmful(verifier, prompts[at], response.text) if response and response.text else None
        tick()
        return said

    jobs = [(name, at) for name in responses for at in range(len(prompts))]
    found = dict(zip(jobs, await gathered(one, jobs, judge.concurrency), strict=True))
    return {name: [found[name, at] for at in range(len(prompts))] for name in responses}


async def grade_all(
    judge: AskingJudge, prompts: Sequence[Prompt], responses: Responses, guideline: str, tick: Tick
) -> dict[str, list[tuple[int | None, int | None]]]:
    """Grades of each system's answer, and of its answer to the follow-up where there is one.

    Raises:
        ModelError: The judge failed after its retries.
    """

    async def one(job: tuple[str, int]) -> Grades:
        name, at = job
        prompt, response = prompts[at], responses[name][at]
        note_calls_of(prompt.id)
        grades: list[int | None] = [None, None]
        if response and response.text:
            grades[0] = await judge.grade(prompt, response, guideline, second=False)
            if prompt.follow_up and response.second:
                grades[1] = await judge.grade(prompt, response, guideline, second=True)
        tick()
        return grades[0], grades[1]

    jobs = [(name, at) for name in responses for at in range(len(prompts))]
    found = dict(zip(jobs, await gathered(one, jobs, judge.concurrency), strict=True))
    return {name: [found[name, at] for at in range(len(prompts))] for name in responses}


def _equal(first: Response | None, second: Response | None) -> Preference | None:
    return TIE if first and second and first.text and first.text == second.text else None


def _by_refusal(first: bool, second: bool) -> Preference | None:
    return None if first == second else Preference(float(first), float(first))
