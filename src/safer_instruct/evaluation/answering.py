"""What the systems answer: drawn now, through the ledger, or read from files."""

from __future__ import annotations

from collections.abc import Sequence

from safer_instruct.errors import RequestError
from safer_instruct.evaluation.prompts import Prompt, Response
from safer_instruct.evaluation.settings import GenerateConfig
from safer_instruct.evaluation.sitting import Tick, gathered
from safer_instruct.models.protocol import Generation, Model, Sampling, Turn
from safer_instruct.seeds import derive_seed
from safer_instruct.state import note_calls_of


async def answer_all(model: Model, prompts: Sequence[Prompt], config: GenerateConfig, seed: int, tick: Tick, *, two_turns: bool) -> list[Response | None]:
    """A model's answers in the order of `prompts`; None where it cannot take the prompt.

    Args:
        model: Who answers.
        prompts: What is asked.
        config: How it draws.
        seed: Of the draws; each depends on the prompt alone.
        tick: Called after each prompt.
        two_turns: Put the follow-ups too, where there are some.

    Raises:
        ModelError: The model failed after its retries.
    """
    sampling = Sampling(config.max_tokens, config.temperature, config.top_k, config.repetition_penalty)
    opening = (Turn("system", config.system),) if config.system else ()

    async def ask(turns: tuple[Turn, ...], *drawn: object) -> Response | None:
        try:
            answer = await model.generate(Generation(turns, sampling, derive_seed(seed, "evaluate", *drawn)))
        except RequestError:  # too long for this model, say
            return None
        if answer.withheld:
            return Response("", withheld=True)
        completion = answer.completions[0]
        return Response(completion.text.strip(), finished=completion.finished)

    async def one(prompt: Prompt) -> Response | None:
        note_calls_of(prompt.id)
        turns = (*opening, Turn("user", prompt.text))
        first = await ask(turns, prompt.text)
        if two_turns and prompt.follow_up and first and first.text:
            again = await ask((*turns, Turn("assistant", first.text), Turn("user", prompt.follow_up)), prompt.text, prompt.follow_up)
            first = Response(first.text, again.text if again else None, first.finished, first.withheld)
        tick()
        return first

    return await gathered(one, prompts, model.concurrency)
