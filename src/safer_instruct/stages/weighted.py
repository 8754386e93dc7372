"""Expert evaluation by a judge whose probabilities are read: yes-or-no criteria, scales, and which response is better.

Each question is put twice, with its options in both orders, and the two replies likewise; the probabilities are averaged, so
that a liking for the first option cancels out, and how often the order turned the answer is recorded.
"""

from __future__ import annotations

from dataclasses import replace

from safer_instruct.config import VerifyConfig
from safer_instruct.conversation import in_context
from safer_instruct.domain import Category, Domain, Scale
from safer_instruct.errors import AnswerError, ConfigError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.together import together
from safer_instruct.stages.asking import LETTERS, SCALE, YES_NO, Asker, Interview, expected_score
from safer_instruct.stages.withheld import WithheldError, content_filter
from safer_instruct.templates import Template

_EVEN = 0.5
_YES_NO_WORDINGS = ("one word, Yes or No", "one word, No or Yes")


class WeightedVerifier:
    """A judge answers each criterion by probability, and says by probability which response is better, in both orders."""

    def __init__(self, asker: Asker, question: Template, prefer: Template, domain: Domain, config: VerifyConfig) -> None:
        """Check that every category has criteria.

        Raises:
            ConfigError: A category has none.
        """
        self._asker, self._question, self._prefer, self._domain, self._config = asker, question, prefer, domain, config
        for name, category in domain.categories.items():
            if not (category.criteria or category.scales):
                raise ConfigError(f"domain '{domain.name}', category '{name}': verify.form 'question' needs 'criteria' or 'scales', or use form 'contrast'")

    async def baseline(self, example: Example) -> float:
        """Nothing: the judge sees the rejected text beside each draft."""
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`; the margin is the probability of being better less that of being worse."""
        category, verdicts, margin = self._domain.category(example.category), list(draft.verdicts), None
        interview = self._asker.interview()
        try:
            criteria, flips = await self._criteria(interview, category, in_context(example.history, example.prompt), draft.text)
            verdicts += criteria
            if all(v.passed for v in verdicts):
                better, flipped = await self._better(interview, category, example, draft)
                verdicts.append(better)
                flips.append(flipped)
                margin = round(2 * (better.score or 0.0) - 1, 6)
            verdicts.append(Verdict("judge.flips", True, round(sum(flips) / len(flips), 6)))
        except AnswerError as exc:
            verdicts.append(Verdict("verify.unreadable", False, None, f"the judge: {exc}"))
        except WithheldError as exc:
            verdicts.append(content_filter("verify", exc.completion))
        return replace(draft, margin=margin, verdicts=tuple(verdicts))

    async def criterion(self, criterion: str | Scale, prompt: str, response: str, interview: Interview | None = None) -> tuple[float, bool]:
        """P(yes) or the expected point of the scale, and whether the order of the options turned the answer.

        Args:
            criterion: What is asked.
            prompt: What was answered.
            response: The answer.
            interview: That of further questions about the same texts, if there are any.

        Raises:
            ModelError: The judge failed, or its answer cannot be read.
            WithheldError: There is no answer.
        """
        scaled = isinstance(criterion, Scale)
        asked, wordings = (criterion.question, _scale_wordings(criterion)) if isinstance(criterion, Scale) else (criterion, _YES_NO_WORDINGS)
        options: tuple[str, ...] = SCALE if scaled else YES_NO
        shown = {"prompt": prompt, "response": response, "question": f"Question about the reply: {asked}"}
        interview = interview or self._asker.interview()
        answers = await together(interview.ask(self._question, options, options_=wording, **shown) for wording in wordings[: 1 + self._config.swaps])
        values = [expected_score(a) if scaled else a["Yes"] for a in answers]
        least = criterion.least if isinstance(criterion, Scale) else self._config.min_yes
        return round(sum(values) / len(values), 6), len({value >= least for value in values}) > 1

    async def _criteria(self, interview: Interview, category: Category, prompt: str, response: str) -> tuple[list[Verdict], list[bool]]:
        """One verdict for each criterion, then for each scale, and whether the order of the options turned it."""
        asked: list[str | Scale] = [*category.criteria, *category.scales]
        found = await together(self.criterion(criterion, prompt, response, interview) for criterion in asked)
        verdicts = [self._verdict(i, criterion, score) for i, (criterion, (score, _)) in enumerate(zip(asked, found, strict=True), 1)]
        return verdicts, [flipped for _, flipped in found]

    def _verdict(self, number: int, criterion: str | Scale, score: float) -> Verdict:
        name, scaled = f"verify.criterion_{number}", isinstance(criterion, Scale)
        least, asked = (criterion.least, criterion.question) if isinstance(criterion, Scale) else (self._config.min_yes, criterion)
        passed = score >= least
        said = f"the judge gives {score:.2f} of 5" if scaled else f"the judge says yes with probability {score:.2f}"
        return Verdict(name, passed, score, "" if passed else f"{said}, less than {least:g}, to: {asked}")

    async def _better(self, interview: Interview, category: Category, example: Example, draft: Draft) -> tuple[Verdict, bool]:
        """Whether the draft beats the rejected text in both orders; a judge that goes by position prefers it in one."""
        shown = {"prompt": in_context(example.history, example.prompt), "guideline": category.guideline}
        first, second = await together(
            interview.ask(self._prefer, LETTERS, first=a, second=b, **shown) for a, b in ((draft.text, example.text), (example.text, draft.text))
        )
        won = [first["A"] > _EVEN, second["B"] > _EVEN]
        score = round((first["A"] + second["B"]) / 2, 6)
        reason = "" if all(won) else f"the judge preferred it in {sum(won)} of 2 orders, with probability {score:.2f} on the mean"
        return Verdict("verify.better", all(won), score, reason), won[0] != won[1]


def _scale_wordings(scale: Scale) -> tuple[str, str]:
    low, high = f"1 ({scale.low})", f"5 ({scale.high})"
    return f"one number from {low} to {high}", f"one number from {high} down to {low}"
