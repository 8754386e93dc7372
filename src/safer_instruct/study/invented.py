"""Pairs made without any text, as is usual: prompts that a model invents, several answers to each, the best against the worst by a scorer.

The way of UltraFeedback (Cui et al. 2023), with the same scorer as the run that it is compared with, at that run's cost in tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safer_instruct.config import BudgetConfig, ModelConfig, RunConfig, VerifyConfig
from safer_instruct.detect.words import words
from safer_instruct.domain import Category, Domain, load_domain
from safer_instruct.errors import RequestError
from safer_instruct.evaluation.sitting import OpenModels, gathered, held_ledger
from safer_instruct.models.protocol import Generation, Model, Prompt, Sampling, Turn, Usage
from safer_instruct.running import run_to_end
from safer_instruct.seeds import derive_seed
from safer_instruct.stages.respond import expert_template
from safer_instruct.stages.verify import ContrastVerifier
from safer_instruct.state import note_calls_of
from safer_instruct.study.pairs import StudyPair
from safer_instruct.templates import Template, load_template

_AT_ONCE = 8
_SHOWN = 4
_FEWEST, _MOST = 3, 60  # words of a message that is taken
_ROUNDS_WITHOUT_A_PAIR = 5
_WARM = 0.7  # colder draws are too alike to have a best and a worst


@dataclass(frozen=True, slots=True)
class Recipe:
    """How pairs are invented.

    Attributes:
        run: The run that they are compared with: its domain, guideline, sampling and scorer are taken.
        inventor: Who invents prompts.
        writers: Who answers, in turn.
        answers: To each prompt.
        tokens: Read and written together, at most.
        seed: Of every draw.
    """

    run: RunConfig
    inventor: ModelConfig
    writers: tuple[ModelConfig, ...]
    answers: int
    tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Invented:
    """What came of it: the pairs, the prompts that were invented for them, and the tokens that these took."""

    pairs: tuple[StudyPair, ...]
    prompts: int
    tokens: int


def invent_pairs(recipe: Recipe, out: Path, tick: Callable[[int, int], None] = lambda done, of: None) -> Invented:
    """Make pairs until the tokens are used up; every call goes through a ledger in `out`.

    Args:
        recipe: How.
        out: A folder.
        tick: Is told how many tokens are used, and of how many.

    Raises:
        ModelError: A model failed after its retries, or the scorer cannot score.
        ConfigError: A category of the domain has no contrast.
    """
    out.mkdir(parents=True, exist_ok=True)
    return run_to_end(_invent(recipe, out, tick))


@dataclass(frozen=True, slots=True)
class _Hands:
    """Whom one invented pair is made by."""

    recipe: Recipe
    domain: Domain
    inventor: Model
    writers: tuple[Model, ...]
    verifier: ContrastVerifier
    invent: Template
    respond: Template


async def _invent(recipe: Recipe, out: Path, tick: Callable[[int, int], None]) -> Invented:
    run = recipe.run
    async with AsyncExitStack() as stack:
        ledger = stack.enter_context(held_ledger(out))
        named = [recipe.inventor, *recipe.writers, run.models.scorer]
        models = OpenModels(out, ledger, stack, models=named, base=run.base, budget=BudgetConfig(), prices=run.prices)
        domain, verify = load_domain(run.domain, run.base), VerifyConfig(examples=run.verify.examples)
        hands = _Hands(
            recipe,
            domain,
            models.open(recipe.inventor, "invent"),
            tuple(models.open(which, "answer") for which in recipe.writers),
            ContrastVerifier(models.open(run.models.scorer, "score"), load_template("contrast"), domain, verify),
            load_template("invent"),
            expert_template(run.respond.template, run.base),
        )
        return await _until_used_up(hands, models, tick)


async def _until_used_up(hands: _Hands, models: OpenModels, tick: Callable[[int, int], None]) -> Invented:
    """Prompts in rounds; each is counted in their order, so that nothing depends on timing, until one would pass the budget."""
    seen: set[tuple[str, ...]] = set()
    pairs: list[StudyPair] = []
    used, prompts, idle, rounds = 0, 0, 0, 0
    while idle < _ROUNDS_WITHOUT_A_PAIR:
        numbers = range(rounds * _AT_ONCE, (rounds + 1) * _AT_ONCE)
        invented: dict[int, str] = {}
        for number, text in zip(numbers, await gathered(partial(_prompt, hands), numbers, hands.inventor.concurrency), strict=True):
            said = tuple(words(text))
            if _FEWEST <= len(said) <= _MOST and said not in seen:
                invented[number] = text
            seen.add(said)
        made = dict(zip(invented, await gathered(partial(_pair, hands, invented), list(invented), hands.inventor.concurrency), strict=True))
        for number in numbers:
            took = _tokens_of(models, number)
            if used + took > hands.recipe.tokens:
                return Invented(tuple(pairs), prompts, used)
            used, prompts = used + took, prompts + (number in invented)
            pairs += [pair] if (pair := made.get(number)) else []
        idle = 0 if any(made.values()) else idle + 1
        rounds += 1
        tick(used, hands.recipe.tokens)
    return Invented(tuple(pairs), prompts, used)


async def _prompt(hands: _Hands, number: int) -> str:
    """One invented message; empty where there is none."""
    note_calls_of(str(number))
    name, category = _category(hands.domain, number)
    draw = derive_seed(hands.recipe.seed, "invent", name, number)
    shown = [example.prompt for example in category.examples]
    random.Random(draw).shuffle(shown)
    text = hands.invent.render(expert=hands.domain.expert, messages=shown[:_SHOWN]).rstrip()
    raw = hands.recipe.inventor.model.startswith(("embedded:", "served:"))
    asked: Prompt = text if raw else (Turn("user", f"{text}\n\nWrite that next message and nothing else."),)
    try:
        written = (await hands.inventor.generate(Generation(asked, Sampling(max_tokens=48, temperature=0.9, top_k=50), draw))).completions[0]
    except RequestError:
        return ""
    lines = [line.strip(" \"'") for line in written.text.strip().splitlines()]
    cut = not written.finished and len(lines) == 1  # in the middle of its only line
    return "" if cut or not lines else lines[0]


async def _pair(hands: _Hands, prompts: Mapping[int, str], number: int) -> StudyPair | None:
    """The best and the worst of the answers to one prompt; None where no two can be told apart."""
    note_calls_of(str(number))
    prompt, (name, category) = prompts[number], _category(hands.domain, number)
    found: list[tuple[float, str]] = []
    for answer in dict.fromkeys(await _answers(hands, number, prompt, category)):
        try:
            found.append((await hands.verifier.contrast(prompt, answer, category), answer))
        except RequestError:
            continue
    if len(found) < 2 or max(found)[0] == min(found)[0]:
        return None
    return StudyPair(prompt, max(found)[1], min(found)[1], name)


async def _answers(hands: _Hands, number: int, prompt: str, category: Category) -> list[str]:
    """Finished answers, long enough, of all writers."""
    respond, verify = hands.recipe.run.respond, hands.recipe.run.verify
    system = hands.respond.render(domain=hands.domain, category=category).strip()
    turns = (*([Turn("system", system)] if system else []), Turn("user", prompt))
    texts: list[str] = []
    for place, writer in enumerate(hands.writers):
        count = len(range(place, hands.recipe.answers, len(hands.writers)))
        sampling = Sampling(respond.max_tokens, max(respond.temperature, _WARM), respond.top_k, respond.repetition_penalty, count)
        try:
            request = Generation(turns, sampling, derive_seed(hands.recipe.seed, "answer", number, place))
            completions = (await writer.generate(request)).completions if count else ()
        except RequestError:
            continue
        texts += [c.text.strip() for c in completions if c.finished and not c.withheld and len(c.text.split()) >= verify.min_words]
    return texts


def _category(domain: Domain, number: int) -> tuple[str, Category]:
    """Categories in turn."""
    name = list(domain.categories)[number % len(domain.categories)]
    return name, domain.categories[name]


def _tokens_of(models: OpenModels, number: int) -> int:
    """What all calls for one prompt read and wrote, those that came from the ledger included."""
    usage = sum((used for stage in models.stages.values() for used in stage.meter.by_row.get(str(number), [])), Usage())
    return usage.prompt_tokens + usage.completion_tokens
