"""One question to a judge, answered by how likely each option is as its first token (G-Eval, Liu et al. 2023, section 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from safer_instruct.errors import AnswerError
from safer_instruct.models.protocol import Completion, Generation, Model, Sampling, Turn
from safer_instruct.models.structured import object_schema, parse
from safer_instruct.stages.fence import mark_for
from safer_instruct.templates import Template

_ALTERNATIVES = 20  # as many as OpenAI and vLLM give
_LEAST_MASS = 0.05  # of probability on the options; a judge that means to say something else has not answered
YES_NO, LETTERS, SCALE = ("Yes", "No"), ("A", "B"), ("1", "2", "3", "4", "5")


class WithheldError(Exception):
    """The judge's answer was withheld."""

    def __init__(self, completion: Completion) -> None:
        super().__init__(completion.withheld)
        self.completion = completion


class Asker:
    """Puts questions with a handful of options to one judge.

    Where the judge tells no probabilities it writes its answer into JSON, and the option that it names has all of them.
    """

    def __init__(self, judge: Model, *, max_tokens: int, json_schema: bool = True, logprobs: bool = True) -> None:
        """Ask nothing yet.

        Args:
            judge: Whom to ask.
            max_tokens: Cap on a written answer.
            json_schema: Hold a written answer to a JSON schema.
            logprobs: Ask for probabilities at all.
        """
        self._judge, self._max_tokens, self._json_schema = judge, max_tokens, json_schema
        self._tells = logprobs

    async def ask(self, template: Template, options: Sequence[str], **values: str) -> dict[str, float]:
        """The probability of each option, given that it is one of them.

        Args:
            template: Shows the texts between marks; it is given `mark`, `written` and `values`.
            options: What may be answered.
            values: Texts, and what is asked of them.

        Raises:
            AnswerError: A written answer names no option.
            WithheldError: There is no answer.
            ModelError: The judge failed after its retries.
        """
        mark = mark_for(*values.values())
        if self._tells:
            request = Generation(_said(template.render(mark=mark, written=False, **values)), Sampling(1, 0.0, 0), alternatives=_ALTERNATIVES)
            completion = await self._first(request)
            if found := option_probabilities(completion.alternatives, options):
                return found
            self._tells = bool(completion.alternatives)  # an endpoint that does not tell once never does
        return await self._written(_said(template.render(mark=mark, written=True, **values)), options)

    async def _written(self, prompt: tuple[Turn, ...], options: Sequence[str]) -> dict[str, float]:
        schema = object_schema("answer", reason={"type": "string"}, answer={"type": "string", "enum": list(options)})
        request = Generation(prompt, Sampling(self._max_tokens, 0.0, 0), schema=schema if self._json_schema else None)
        said = (await self._first(request)).text.strip()
        try:
            named = str(parse(said, schema)["answer"])
        except AnswerError:
            named = next((o for o in options if said.strip("\"'*. \n").casefold() == o.casefold()), "")
            if not named:
                raise
        return {option: float(option == named) for option in options}

    async def _first(self, request: Generation) -> Completion:
        completion = (await self._judge.generate(request)).completions[0]
        if completion.withheld:
            raise WithheldError(completion)
        return completion


def option_probabilities(alternatives: Sequence[tuple[str, float]], options: Sequence[str]) -> dict[str, float]:
    """The probability of each option among `alternatives`, first tokens with their log-probabilities, given that it is one of them.

    Case and white space make no difference. Empty where the options together are unlikely: the judge has not answered.
    """
    mass = dict.fromkeys(options, 0.0)
    named = {option.casefold(): option for option in options}
    for token, logprob in alternatives:
        if option := named.get(token.strip().casefold()):
            mass[option] += math.exp(logprob)
    total = sum(mass.values())
    return {option: value / total for option, value in mass.items()} if total >= _LEAST_MASS else {}


def expected_score(probabilities: Mapping[str, float]) -> float:
    """The mean of a scale under the probabilities of its points."""
    return sum(int(point) * probability for point, probability in probabilities.items())


def _said(text: str) -> tuple[Turn, ...]:
    return (Turn("user", text),)
