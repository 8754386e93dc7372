"""Judges of answers: those that score each answer by itself, and those that are asked which of two is better, in both orders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from safer_instruct.config import VerifyConfig
from safer_instruct.domain import Domain, Scale
from safer_instruct.errors import AnswerError, ConfigError, RequestError
from safer_instruct.evaluation.prompts import Prompt, Response
from safer_instruct.evaluation.settings import JudgeConfig
from safer_instruct.models.protocol import Generation, Model, Sampling, Scoring, Turn
from safer_instruct.models.structured import object_schema, parse
from safer_instruct.models.together import together
from safer_instruct.stages.asking import LETTERS, Asker
from safer_instruct.stages.fence import mark_for
from safer_instruct.stages.verify import ContrastVerifier
from safer_instruct.stages.weighted import WeightedVerifier
from safer_instruct.stages.withheld import WithheldError, answered
from safer_instruct.templates import Template, load_template

T = TypeVar("T")
_EVEN = 0.5
_GRADE = object_schema("grade", reason={"type": "string"}, grade={"type": "integer"})
_GRADED = object_schema("graded", grade={"type": "integer"})
LOWEST, HIGHEST = 1, 10


@dataclass(frozen=True, slots=True)
class Preference:
    """How one judge likes the first of two answers beside the second.

    Attributes:
        outcome: 1.0 where it wins, 0.0 where it loses, 0.5 for a tie.
        share: Probability that it is the better one, the mean over both orders; the outcome where the judge tells none.
        shown_first_won: Whether the answer that was shown first was preferred, in the first order and in the second; empty where
            nothing was shown in an order.
    """

    outcome: float
    share: float
    shown_first_won: tuple[bool, ...] = ()


TIE = Preference(0.5, 0.5)


class ScoringJudge:
    """Gives each answer a number, higher for better: the guideline contrast, or a reward model's."""

    def __init__(self, model: Model, config: JudgeConfig, domain: Domain) -> None:
        """Check that the domain has what the form needs.

        Raises:
            ConfigError: A category has no contrast.
        """
        self.concurrency, self._model, self._config, self._domain = model.concurrency, model, config, domain
        verify = VerifyConfig(examples=config.examples)
        self._contrast = ContrastVerifier(model, load_template("contrast"), domain, verify) if config.form == "contrast" else None
        self.threshold = config.min_contrast if config.form == "contrast" else config.min_reward

    async def score(self, prompt: Prompt, text: str) -> float | None:
        """The number of one answer; None where the model cannot take it.

        Raises:
            ModelError: The model failed after its retries, or cannot score.
        """
        try:
            if self._contrast:
                return await self._contrast.contrast(prompt.text, text, self._domain.category(prompt.category))
            return round((await self._model.score(Scoring((Turn("user", prompt.text),), text))).mean, 6)
        except RequestError:
            return None

    def prefer(self, first: float | None, second: float | None) -> Preference | None:
        """Which of two numbers is better."""
        if first is None or second is None:
            return None
        apart = first - second
        if abs(apart) <= self._config.min_difference:
            return TIE
        outcome = float(apart > 0)
        return Preference(outcome, outcome)


class AskingJudge:
    """Is asked which of two answers is better, whether an answer meets the criteria, and for a grade."""

    def __init__(self, model: Model, config: JudgeConfig, domain: Domain) -> None:
        """Ask nothing yet."""
        self.concurrency, self._model, self._domain, self._config = model.concurrency, model, domain, config
        json_schema, weighted = config.model.json_schema, config.answers == "weighted"
        self._asker = Asker(model, max_tokens=config.max_tokens, json_schema=json_schema, logprobs=weighted and config.model.logprobs)
        self._prefer, self._grade = load_template("prefer"), load_template("grade")

    async def prefer(self, prompt: Prompt, first: str, second: str, guideline: str) -> Preference | None:
        """Which of two different answers follows `guideline` better, asked in both orders; None where there is no answer.

        Raises:
            ModelError: The judge failed after its retries.
        """
        shown = {"prompt": prompt.text, "guideline": guideline}
        orders, interview = ((first, second), (second, first)), self._asker.interview()
        said = await _answered(lambda: together(interview.ask(self._prefer, LETTERS, first=a, second=b, **shown) for a, b in orders))
        if said is None:
            return None
        one, other = said
        shares = (one["A"], other["B"])
        won, lost = sum(share > _EVEN for share in shares), sum(share < _EVEN for share in shares)
        outcome = 1.0 if won == 2 else 0.0 if lost == 2 else 0.5
        return Preference(outcome, sum(shares) / 2, (one["A"] > _EVEN, other["A"] > _EVEN))

    async def harmful(self, verifier: WeightedVerifier, prompt: Prompt, text: str) -> bool | None:
        """Whether an answer misses one of its category's criteria or scales; None where the judge does not say.

        Raises:
            ModelError: The judge failed after its retries.
        """
        category = self._domain.category(prompt.category)
        asked: list[str | Scale] = [*category.criteria, *category.scales]
        interview = self._asker.interview()
        bounds = [self._config.min_yes] * len(category.criteria) + [scale.least for scale in category.scales]
        found = await _answered(lambda: together(verifier.criterion(criterion, prompt.text, text, interview) for criterion in asked))
        return any(score < least for (score, _), least in zip(found, bounds, strict=True)) if found else None

    def verifier(self) -> WeightedVerifier:
        """Whoever puts the criteria to this judge.

        Raises:
            ConfigError: A category of the domain has none.
        """
        verify = VerifyConfig(form="question", answers="weighted", swaps=self._config.swaps, min_yes=self._config.min_yes, max_tokens=self._config.max_tokens)
        return WeightedVerifier(self._asker, load_template("weighted"), self._prefer, self._domain, verify)

    async def grade(self, prompt: Prompt, response: Response, guideline: str, *, second: bool) -> int | None:
        """A grade from 1 to 10 for the answer, or for the answer to the follow-up; None where the judge gives none.

        Raises:
            ModelError: The judge failed after its retries.
        """
        values = {"prompt": prompt.text, "response": response.text, "follow_up": prompt.follow_up, "second": (response.second or "") if second else ""}
        said = await _answered(lambda: self._written(self._grade, guideline, values))
        if said is None:
            return None
        try:
            grade = int(parse(said, _GRADED)["grade"])
        except AnswerError:
            return None
        return grade if LOWEST <= grade <= HIGHEST else None

    async def _written(self, template: Template, guideline: str, values: dict[str, str]) -> str:
        asked = template.render(mark=mark_for(*values.values()), guideline=guideline, **values)
        schema = _GRADE if self._config.model.json_schema else None
        request = Generation((Turn("user", asked),), Sampling(self._config.max_tokens, 0.0, 0), schema=schema)
        return (await answered(self._model, request)).text


Judge = ScoringJudge | AskingJudge


def open_judge(model: Model, config: JudgeConfig, domain: Domain, name: str) -> Judge:
    """The judge that a config asks for.

    Raises:
        ConfigError: The domain lacks what it needs.
    """
    try:
        return AskingJudge(model, config, domain) if config.form == "question" else ScoringJudge(model, config, domain)
    except ConfigError as exc:
        raise ConfigError(f"judges.{name}: {exc}") from exc


async def _answered(ask: Callable[[], Awaitable[T]]) -> T | None:
    """What the judge says, or None where it says nothing that can be read: one such answer ends no evaluation."""
    try:
        return await ask()
    except (AnswerError, RequestError, WithheldError):
        return None
