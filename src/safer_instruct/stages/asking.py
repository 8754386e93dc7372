"""One question to a judge, answered by how likely each option is as its first token (G-Eval, Liu et al. 2023, section 2)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

from safer_instruct.errors import AnswerError
from safer_instruct.models.protocol import Generation, Model, Sampling, Turn
from safer_instruct.models.structured import object_schema, parse
from safer_instruct.stages.fence import mark_for
from safer_instruct.stages.withheld import answered
from safer_instruct.templates import Template

_ALTERNATIVES = 20  # as many as OpenAI and vLLM give
_LEAST_MASS = 0.05  # of probability on the options; a judge that means to say something else has not answered
YES_NO, LETTERS, SCALE = ("Yes", "No"), ("A", "B"), ("1", "2", "3", "4", "5")


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
        self.judge, self.max_tokens, self.json_schema, self.logprobs = judge, max_tokens, json_schema, logprobs

    def interview(self) -> Interview:
        """For several questions about the same texts."""
        return Interview(self)

    async def ask(self, template: Template, options: Sequence[str], **values: str) -> dict[str, float]:
        """See `Interview.ask`; a single question."""
        return await self.interview().ask(template, options, **values)


class Interview:
    """Questions about the same texts. The first that is answered shows whether the judge tells probabilities; the others wait for it.

    Nothing is kept from one interview to the next, so what is asked depends on the texts and the answers alone, and not on which
    of many calls in flight is answered first: the same run given again asks the same.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._tells: bool | None = None if asker.logprobs else False
        self._settling = asyncio.Lock()

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
        told = await self._told(_said(template.render(mark=mark, written=False, **values)))
        return option_probabilities(told, options) or await self._written(_said(template.render(mark=mark, written=True, **values)), options)

    async def _told(self, prompt: tuple[Turn, ...]) -> Sequence[tuple[str, float]]:
        """The likeliest first tokens of the answer; none where the judge does not tell."""
        request = Generation(prompt, Sampling(1, 0.0, 0), alternatives=_ALTERNATIVES)
        if self._tells is None:
            async with self._settling:
                if self._tells is None:  # those before it failed, or were withheld
                    told = (await answered(self._asker.judge, request)).alternatives
                    self._tells = bool(told)
                    return told
        return (await answered(self._asker.judge, request)).alternatives if self._tells else ()

    async def _written(self, prompt: tuple[Turn, ...], options: Sequence[str]) -> dict[str, float]:
        schema = object_schema("answer", reason={"type": "string"}, answer={"type": "string", "enum": list(options)})
        request = Generation(prompt, Sampling(self._asker.max_tokens, 0.0, 0), schema=schema if self._asker.json_schema else None)
        said = (await answered(self._asker.judge, request)).text.strip()
        try:
            named = str(parse(said, schema)["answer"])
        except AnswerError:
            named = next((o for o in options if said.strip("\"'*. \n").casefold() == o.casefold()), "")
            if not named:
                raise
        return {option: float(option == named) for option in options}


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
