"""Expert evaluation by a judge that is asked (arXiv 2311.08685): the category's criteria, and which response is better."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from safer_instruct.config import VerifyConfig
from safer_instruct.conversation import in_context
from safer_instruct.domain import Category, Domain
from safer_instruct.errors import AnswerError, ConfigError
from safer_instruct.example import Draft, Example, Verdict
from safer_instruct.models.protocol import Generation, Model, Sampling, Schema, Turn
from safer_instruct.models.structured import object_schema, parse, strict_object
from safer_instruct.models.together import together
from safer_instruct.oneline import shortened
from safer_instruct.stages.fence import mark_for
from safer_instruct.stages.withheld import WithheldError, answered, content_filter
from safer_instruct.templates import Template

_REASON = {"type": "string"}
_YES_NO = {"type": "string", "enum": ["yes", "no"]}
_LETTER = {"type": "string", "enum": ["A", "B"]}
_PREFERENCE = object_schema("preference", reason=_REASON, better=_LETTER)
_PREFERRED = Schema.of("preferred", _PREFERENCE.definition | {"required": ["better"]})
_REASON_CHARS = 200


class QuestionVerifier:
    """A judge answers the category's criteria with yes or no, and says which response is better, in both orders.

    All criteria are one call: the texts, which are most of the tokens, are paid for once, and a reason that is written out
    before each answer keeps the answers apart. Which one is better is asked only of a draft that meets them.
    """

    def __init__(self, judge: Model, question: Template, pairwise: Template, domain: Domain, config: VerifyConfig, *, json_schema: bool = True) -> None:
        """Check that every category has criteria.

        Args:
            judge: A strong model.
            question: Asks all criteria; it is given `questions`, `prompt`, `response`, and the `mark` that they stand between.
            pairwise: Asks which of two is better; it is given `guideline`, `prompt`, `first`, `second` and `mark`.
            domain: Holds criteria and guidelines.
            config: Caps the answers.
            json_schema: Hold the judge to a JSON schema; without it the templates alone ask for JSON.

        Raises:
            ConfigError: A category has none.
        """
        self._model, self._question, self._pairwise, self._domain = judge, question, pairwise, domain
        self._sampling, self._json_schema = Sampling(max_tokens=config.max_tokens, temperature=0.0), json_schema
        for name, category in domain.categories.items():
            if not category.criteria:
                raise ConfigError(f"domain '{domain.name}', category '{name}': verify.form 'question' needs 'criteria'; give them, or use form 'contrast'")
            if category.scales:
                raise ConfigError(f"domain '{domain.name}', category '{name}': 'scales' need verify.answers 'weighted'")

    async def baseline(self, example: Example) -> float:
        """Nothing: the judge sees the rejected text beside each draft."""
        return 0.0

    async def judge(self, example: Example, draft: Draft, baseline: float) -> Draft:
        """See `Verifier.judge`; the margin is the share of orders won less the share lost."""
        category, verdicts, margin = self._domain.category(example.category), list(draft.verdicts), None
        try:
            verdicts += await self._criteria(category, in_context(example.history, example.prompt), draft.text)
            if all(v.passed for v in verdicts):
                won = await self._orders_won(category, example, draft)
                verdicts.append(Verdict("verify.better", won == 2, None, "" if won == 2 else f"the judge preferred it in {won} of 2 orders"))
                margin = float(won - 1)
        except AnswerError as exc:
            verdicts.append(Verdict("verify.unreadable", False, None, f"the judge: {exc}"))
        except WithheldError as exc:
            verdicts.append(content_filter("verify", exc.completion))
        return replace(draft, margin=margin, verdicts=tuple(verdicts))

    async def _criteria(self, category: Category, prompt: str, response: str) -> list[Verdict]:
        """One verdict per criterion, or one on all of them where the judge said no to them as a whole."""
        shown = {"mark": mark_for(prompt, response), "prompt": prompt, "response": response}
        said = await self._ask(self._question.render(questions=category.criteria, **shown), _criteria_schema(len(category.criteria)))
        answers = read_criteria(said, len(category.criteria))
        if len(answers) < len(category.criteria):
            return [Verdict("verify.criteria", False, None, "the judge said no to the criteria as a whole")]
        return [
            Verdict(f"verify.criterion_{i}", yes, None, "" if yes else f"the judge said no to: {criterion}{reason and f' ({reason})'}")
            for i, (criterion, (yes, reason)) in enumerate(zip(category.criteria, answers, strict=True), 1)
        ]

    async def _orders_won(self, category: Category, example: Example, draft: Draft) -> int:
        """In how many of the two orders the judge preferred the draft to the rejected text."""
        orders = ((draft.text, example.text, "A"), (example.text, draft.text, "B"))
        prompt = in_context(example.history, example.prompt)
        shown = {"mark": mark_for(prompt, draft.text, example.text), "prompt": prompt, "guideline": category.guideline}
        asked = [self._pairwise.render(first=a, second=b, **shown) for a, b, _ in orders]
        said = await together(self._ask(text, _PREFERENCE) for text in asked)
        return sum(read_preference(text) == letter for text, (_, _, letter) in zip(said, orders, strict=True))

    async def _ask(self, text: str, schema: Schema) -> str:
        request = Generation((Turn("user", text),), self._sampling, schema=schema if self._json_schema else None)
        return (await answered(self._model, request)).text.strip()


def read_criteria(said: str, count: int) -> list[tuple[bool, str]]:
    """Yes or no to each of `count` criteria, and why; one element where the judge said no to several in one word.

    Raises:
        AnswerError: The answer says neither.
    """
    try:
        read = parse(said, _answers_schema(count))
    except AnswerError:
        lines = {int(i): word for i, word in re.findall(r"^[^\w\n]*(?:criterion[ _])?(\d{1,3})[^\w\n]+(yes|no)\b", said, re.I | re.M)}
        if lines.keys() == set(range(1, count + 1)):
            return [(lines[i].lower() == "yes", "") for i in sorted(lines)]
        word = _first_word(said, "yes", "no")
        if not word:
            raise
        return [(True, "")] * count if word == "yes" else [(False, "")]
    return [(answer == "yes", reason) for answer, reason in map(_answer_and_reason, read.values())]


def read_preference(said: str) -> str:
    """The letter that the judge chose.

    Raises:
        AnswerError: It chose none.
    """
    try:
        return str(parse(said, _PREFERRED)["better"])
    except AnswerError:
        if letter := _first_word(said, "A", "B"):
            return letter
        raise


def _criteria_schema(count: int) -> Schema:
    """What the judge is asked for: a reason, then the answer, for each criterion."""
    return object_schema("criteria", **{f"criterion_{i}": strict_object(reason=_REASON, answer=_YES_NO) for i in range(1, count + 1)})


def _answers_schema(count: int) -> Schema:
    """What is understood: the same without reasons, or without the inner objects."""
    rule: dict[str, Any] = {"type": ["object", "string"], "properties": {"reason": _REASON, "answer": _YES_NO}, "required": ["answer"], "enum": _YES_NO["enum"]}
    names = [f"criterion_{i}" for i in range(1, count + 1)]
    return Schema.of("answers", {"type": "object", "properties": dict.fromkeys(names, rule), "required": names})


def _answer_and_reason(read: str | dict[str, str]) -> tuple[str, str]:
    if isinstance(read, str):
        return read, ""
    return read["answer"], shortened(" ".join(read.get("reason", "").split()), _REASON_CHARS)


def _first_word(said: str, *options: str) -> str:
    """The option that the judge's answer begins with, perhaps behind 'Answer:' or 'Reply'; empty when it begins otherwise."""
    end = r"(?=\W*$|[.,:;!)*\n]|\s+is\b)" if max(map(len, options)) == 1 else r"\b"  # 'A better reply is B' does not say A
    found = re.match(rf"\W*(?:(?:the )?(?:answer|reply|response)\b(?: is)?\W*)?({'|'.join(options)}){end}", said, re.I)
    return next((o for o in options if found and found.group(1).lower() == o.lower()), "")
