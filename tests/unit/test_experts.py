"""Several experts: whose turn it is, and what each is asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from safer_instruct.config import ExpertConfig, RespondConfig, RunConfig
from safer_instruct.domain import Category, Contrast, Domain
from safer_instruct.errors import ConfigError
from safer_instruct.example import Example
from safer_instruct.models.protocol import Completion, Generated, Generation, Scored, Scoring
from safer_instruct.stages.experts import Expert, Experts, choice_note, expert_of
from safer_instruct.stages.respond import respond
from safer_instruct.templates import load_template

CATEGORY = Category(definition="Rude.", guideline="Be kind.", contrast=Contrast(good="kind", bad="rude"))
DOMAIN = Domain(name="test", description="For tests.", categories={"orders": CATEGORY, "refunds": CATEGORY})
EXAMPLE = Example("r1", "Look again.", "orders", "t.jsonl", 1, prompt="Where is my parcel?")
TEMPLATE = load_template("respond")


class Writes:
    """A model that writes its name, and remembers what it was asked."""

    fingerprint, concurrency, priced, status = "writes", 1, True, ""

    def __init__(self, name: str) -> None:
        self.name, self.asked = name, list[Generation]()

    async def generate(self, request: Generation) -> Generated:
        self.asked.append(request)
        return Generated((Completion(f"{self.name} answers", -1.0),))

    async def score(self, request: Scoring) -> Scored:
        return Scored((-1.0,))

    async def close(self) -> None:
        """Nothing."""


def several(choose: str = "weight", **which: ExpertConfig) -> tuple[Experts, dict[str, Writes]]:
    config, models = RespondConfig.model_validate({"choose": choose}), {name: Writes(name) for name in which}
    return Experts({name: expert_of(name, models[name], w, TEMPLATE, config) for name, w in which.items()}, DOMAIN, config), models


def turns(experts: Experts, prompts: int, seed: int = 0) -> Counter[str]:
    return Counter(experts.turn(replace(EXAMPLE, prompt=f"prompt {i}"), 0, seed)[0].name for i in range(prompts))


def test_prompts_are_shared_out_by_weight() -> None:
    experts, _ = several(often=ExpertConfig(model="scripted:", weight=3), seldom=ExpertConfig(model="scripted:"))
    assert 0.7 < turns(experts, 2000)["often"] / 2000 < 0.8


def test_whose_turn_it_is_depends_on_prompt_round_and_seed_and_not_on_the_order_in_the_config() -> None:
    a, b = ExpertConfig(model="scripted:", weight=2), ExpertConfig(model="scripted:")
    one, other = several(a=a, b=b)[0], several(b=b, a=a)[0]
    prompts = [replace(EXAMPLE, prompt=f"p{i}") for i in range(60)]
    assert [one.turn(e, 0, 0)[0].name for e in prompts] == [other.turn(e, 0, 0)[0].name for e in prompts]
    assert [one.turn(e, 0, 0)[0].name for e in prompts] != [one.turn(e, 1, 0)[0].name for e in prompts]
    assert [one.turn(e, 0, 0)[0].name for e in prompts] != [one.turn(e, 0, 7)[0].name for e in prompts]


def test_neither_name_nor_order_says_whose_draft_comes_first_where_all_write() -> None:
    a, b = ExpertConfig(model="scripted:"), ExpertConfig(model="scripted:")
    one, other = several("best", a=a, b=b)[0], several("best", b=b, a=a)[0]
    drawn = [replace(EXAMPLE, id=f"r{i}") for i in range(400)]
    first = [one.turn(e, 0, 0)[0].name for e in drawn]
    assert first == [other.turn(e, 0, 0)[0].name for e in drawn] == [one.turn(e, 1, 0)[0].name for e in drawn]
    assert first != [one.turn(e, 0, 7)[0].name for e in drawn]
    assert 150 < Counter(first)["a"] < 250


@pytest.mark.parametrize(
    ("changed", "noted"),
    [
        ({}, "a judge that writes gives every draft that it accepts the same margin"),
        ({"verify": {"form": "program"}}, "programs give no margin"),
        ({"verify": {"form": "question", "answers": "weighted"}}, ""),
        ({"verify": {"form": "contrast"}}, ""),
        ({"respond": {"choose": "weight"}}, ""),
    ],
)
def test_a_choice_among_equal_margins_is_noted(changed: dict[str, Any], noted: str) -> None:
    models = {"experts": {"a": "scripted:", "b": "scripted:"}, "judge": "scripted:", "inducer": "scripted:"}
    given = {"domain": "d.yaml", "source": {"path": "t.jsonl"}, "models": models, "respond": {"choose": "best"}, "verify": {"form": "question"}}
    note = choice_note(RunConfig.model_validate({**given, **changed}))
    assert noted in note and bool(note) == bool(noted)


def test_an_expert_writes_for_its_categories_only() -> None:
    experts, models = several(a=ExpertConfig(model="scripted:", categories=("refunds",)), b=ExpertConfig(model="scripted:", categories=("orders",)))
    drafts = asyncio.run(experts.write(EXAMPLE, 0, seed=0))
    assert [(d.text, d.expert) for d in drafts] == [("b answers", "b")] and not models["a"].asked


def test_where_the_best_is_taken_all_of_them_write() -> None:
    experts, _ = several("best", b=ExpertConfig(model="scripted:"), a=ExpertConfig(model="scripted:"))
    assert [d.expert for d in asyncio.run(experts.write(EXAMPLE, 0, seed=0))] == ["a", "b"]


def test_each_has_its_own_temperature_length_and_seed() -> None:
    experts, models = several("best", a=ExpertConfig(model="scripted:", temperature=0.1, max_tokens=9), b=ExpertConfig(model="scripted:"))
    asyncio.run(experts.write(EXAMPLE, 0, seed=0, warmer=0.2))
    (a,), (b,) = models["a"].asked, models["b"].asked
    assert (a.sampling.temperature, a.sampling.max_tokens) == (0.3, 9)
    assert (b.sampling.temperature, b.sampling.max_tokens) == (0.9, RespondConfig().max_tokens)
    assert a.seed != b.seed


def test_a_single_expert_is_asked_what_it_always_was_so_that_ledgers_stay_good() -> None:
    alone, before = Writes("alone"), Writes("before")
    experts = Experts({"expert": Expert("expert", alone, TEMPLATE, RespondConfig())}, DOMAIN, RespondConfig())
    asyncio.run(experts.write(EXAMPLE, 1, seed=5))
    asyncio.run(respond(EXAMPLE, before, TEMPLATE, DOMAIN, RespondConfig(), seed=5, attempt=1))
    assert alone.asked == before.asked


def test_a_category_without_a_writer_and_a_writer_without_a_category_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="nobody writes for category 'refunds'; give it to one of a"):
        several(a=ExpertConfig(model="scripted:", categories=("orders",)))
    with pytest.raises(ConfigError, match=r"models\.experts\.a: domain 'test' has no category 'oders'; it has: orders, refunds"):
        several(a=ExpertConfig(model="scripted:", categories=("oders",)))
