"""What an evaluation found, computed from answers and judgements, and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safer_instruct.accounts import budget_record
from safer_instruct.analysis.bootstrap import Bootstrap, Interval
from safer_instruct.detect.words import words
from safer_instruct.domain import Domain
from safer_instruct.evaluation import honesty
from safer_instruct.evaluation.downstream import TaskScore
from safer_instruct.evaluation.figures import Measure, measure
from safer_instruct.evaluation.judging import Classed, Grades, Judged, Pair, compared
from safer_instruct.evaluation.people import People, items, people, people_warnings, read_answers
from safer_instruct.evaluation.prompts import Prompt, Response
from safer_instruct.evaluation.rates import HarmfulRates, Refusals, harmful_rates, refusals
from safer_instruct.evaluation.settings import EvaluateConfig
from safer_instruct.evaluation.sitting import Counter, OpenModels
from safer_instruct.sources import BadRow

RESULT, REPORT, OUTPUTS = "evaluation.json", "evaluation.md", "outputs"


@dataclass(frozen=True, slots=True)
class TwoTurn:
    """Grades of one system, 1 to 10, by all judges.

    Attributes:
        first: Mean of the first answers; None where there is none.
        second: Mean of the answers to the follow-up.
        difference: Mean of both turns less the baseline's, paired by prompt; None for the baseline.
        ungraded: Prompts without a grade of the first answer.
    """

    first: Interval | None
    second: Interval | None
    difference: Interval | None
    ungraded: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        path: Where report, result and ledger are.
        baseline: The system that the others are compared with.
        prompts: How many there are.
        set_aside: Rows of the prompts' file that cannot be used.
        answers: System -> prompts it answered, and mean words of an answer.
        harmlessness: By pairs; None where it was left out.
        harmful: Harmful rates by system; empty where no judge told.
        refusals: By system; empty where they were left out.
        helpfulness: By pairs; None where it was left out.
        two_turn: Grades by system; empty where they were left out.
        downstream: Figures by system; empty where they were left out.
        people: The human study; None where nobody's answers were given.
        overlap: With the training prompts; None where no training data is named.
        warnings: What makes the figures flatter, in plain words.
        calls: Model calls in all.
        from_ledger: How many of them the ledger had the answers of before this sitting.
        repeated: How many of them are equal to another one of this sitting, and took its answer.
        calls_without_usage: How many of them were answered without a word on what they took, so that their cost is not known.
        cost: US dollars, of calls in this sitting and earlier ones; None where they are not known.
        budget: What all sittings have spent, and what of it this one set aside, as `summary.json` of a run has it.
        seconds: Wall time of this sitting.
    """

    path: Path
    baseline: str
    prompts: int
    set_aside: tuple[BadRow, ...]
    answers: dict[str, tuple[int, float]]
    harmlessness: Measure | None
    harmful: dict[str, HarmfulRates]
    refusals: dict[str, Refusals]
    helpfulness: Measure | None
    two_turn: dict[str, TwoTurn]
    downstream: dict[str, list[TaskScore]]
    people: People | None
    overlap: honesty.Overlapping | None
    warnings: tuple[str, ...]
    calls: int
    from_ledger: int
    repeated: int
    calls_without_usage: int
    cost: float | None
    budget: dict[str, Any]
    seconds: float


@dataclass(slots=True)
class Work:
    """What an evaluation works with, and what it has found."""

    config: EvaluateConfig
    domain: Domain
    prompts: Sequence[Prompt]
    set_aside: Sequence[BadRow]
    models: OpenModels
    counter: Counter
    responses: dict[str, list[Response | None]] = field(default_factory=dict)
    harmless: dict[str, Judged] = field(default_factory=dict)
    helpful: dict[str, Judged] = field(default_factory=dict)
    grades: dict[str, dict[str, list[Grades]]] = field(default_factory=dict)
    tasks: dict[str, list[TaskScore]] = field(default_factory=dict)
    classed: Classed = field(default_factory=dict)


def pairs_of(config: EvaluateConfig, which: str | None = None) -> list[Pair]:
    """The pairs of systems that are compared, for harmlessness where nothing else is said."""
    return compared(list(config.systems), config.against, which or (config.harmlessness.pairs if config.harmlessness else "baseline"))


def result_of(work: Work, out: Path, answers: Sequence[Path], seconds: float) -> Evaluation:
    """The figures and warnings.

    Args:
        work: Answers and judgements.
        out: The evaluation's directory.
        answers: Files of what people answered.
        seconds: Wall time of this sitting.

    Raises:
        SaferInstructError: A file of answers or of training data cannot be used.
    """
    config, prompts, responses = work.config, work.prompts, work.responses
    bootstrap = Bootstrap(len(prompts), resamples=config.resamples, level=config.level, seed=config.seed)
    pairs = bool(pairs_of(config))
    harmless = measure("harmless", work.harmless, responses, bootstrap) if work.harmless and pairs else None
    helpful = measure("helpful", work.helpful, responses, bootstrap) if work.helpful and pairs else None
    overlap = honesty.find_overlap(prompts, config)
    warnings = honesty.circularity(config, honesty.builders(config)) + honesty.overlap_warnings(overlap)
    for kind, found in (("harmlessness", harmless), ("helpfulness", helpful)):
        warnings += honesty.bias_warnings(kind, found) if found else []
    used = work.models.used()
    said = _people(work, answers, harmless) if answers else None
    warnings += people_warnings(said)
    return Evaluation(
        out,
        config.against,
        len(prompts),
        tuple(work.set_aside),
        {name: _described(found) for name, found in responses.items()},
        harmless,
        harmful_rates(work.harmless, prompts, config.against, config.level),
        refusals(prompts, work.classed, config.against, config.level) if config.over_refusal else {},
        helpful,
        _two_turn(work, bootstrap),
        work.tasks,
        said,
        overlap,
        tuple(warnings),
        used.calls,
        used.from_ledger,
        used.repeated,
        used.unreported,
        work.models.cost,
        budget_record(work.models.budget),
        seconds,
    )


def _described(responses: Sequence[Response | None]) -> tuple[int, float]:
    there = [response for response in responses if response is not None]
    return len(there), sum(len(words(response.text)) for response in there) / len(there) if there else 0.0


def _two_turn(work: Work, bootstrap: Bootstrap) -> dict[str, TwoTurn]:
    found = {}
    turns = {name: _by_prompt(work, name) for name in work.responses} if work.grades else {}
    both = {name: [[*a, *b] for a, b in zip(*given, strict=True)] for name, given in turns.items()}
    for name, (first, second) in turns.items():
        apart = None if name == work.config.against else _apart(both[name], both[work.config.against], bootstrap)
        found[name] = TwoTurn(_mean_grade(first, bootstrap), _mean_grade(second, bootstrap), apart, sum(not grades for grades in first))
    return found


def _by_prompt(work: Work, name: str) -> tuple[list[list[int]], list[list[int]]]:
    """All judges' grades of a system's first answers, and of its second ones, by prompt."""
    said = [[judged[name][at] for judged in work.grades.values()] for at in range(len(work.prompts))]
    first, second = ([[g for grades in given if (g := grades[turn]) is not None] for given in said] for turn in (0, 1))
    return first, second


def _apart(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]], bootstrap: Bootstrap) -> Interval | None:
    """The mean difference of two systems' grades over the prompts that both have grades for."""
    both = [(sum(a) / len(a) - sum(b) / len(b)) if a and b else None for a, b in zip(ours, theirs, strict=True)]
    if all(value is None for value in both):
        return None
    return bootstrap.ratio([value or 0.0 for value in both], [float(value is not None) for value in both])


def _mean_grade(grades: Sequence[Sequence[int]], bootstrap: Bootstrap) -> Interval | None:
    return bootstrap.ratio([float(sum(said)) for said in grades], [float(len(said)) for said in grades]) if any(grades) else None


def _people(work: Work, answers: Sequence[Path], harmless: Measure | None) -> People:
    config = work.config
    asked = items(work.prompts, work.responses, pairs_of(config), config.seed)
    said = read_answers(answers, asked)
    judged = harmless.outcomes if harmless else {}
    return people(said, asked, judged, resamples=config.resamples, level=config.level, seed=config.seed)
