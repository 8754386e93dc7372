"""Instruction induction (arXiv 2311.08685): from a text to the instructions that it may answer."""

from __future__ import annotations

from dataclasses import replace

from safer_instruct.config import InduceConfig
from safer_instruct.example import Candidate, Example
from safer_instruct.models.protocol import Generation, Model, Sampling
from safer_instruct.reverse import ReversedTemplate
from safer_instruct.seeds import derive_seed
from safer_instruct.stages.withheld import content_filter


async def induce(example: Example, model: Model, template: ReversedTemplate, config: InduceConfig, *, seed: int) -> Example:
    """Draw candidate instructions for `example.text`, which comes after `example.history`.

    Args:
        example: A collected text.
        model: A reversed-tuned model, or one prompted to act as one.
        template: What it is asked with: as it was tuned, or as it is prompted.
        config: How many candidates, and how they are drawn.
        seed: The run's seed.

    Returns:
        A copy with `candidates` set, distinct, likeliest first, or dropped where all of them were withheld.

    Raises:
        ModelError: The model failed after its retries.
    """
    prompt = template.prompt(example.text, history=example.history, category=example.category)
    sampling = Sampling(max_tokens=config.max_tokens, temperature=config.temperature, top_k=config.top_k, n=config.candidates)
    answer = await model.generate(Generation(prompt, sampling, derive_seed(seed, "induce", example.text)))
    if answer.withheld:
        return example.with_verdicts(content_filter("induce", answer.withheld))
    read = replace(answer, completions=tuple(map(template.read, answer.completions)))
    return replace(example, candidates=tuple(Candidate(c.text, c.total_logprob, c.finished) for c in read.ranked(whole=True)))
