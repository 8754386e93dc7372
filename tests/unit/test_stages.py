"""Induce, choose, respond, answer: what each stage takes, drops, and asks of a model."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_instruct.config import ConsistencyConfig, FilterConfig, InduceConfig, ModelConfig, RespondConfig, VerifyConfig
from safer_instruct.domain import Category, Contrast, Domain, ExamplePair
from safer_instruct.errors import ConfigError, RequestError
from safer_instruct.example import Candidate, Draft, Example, Verdict
from safer_instruct.filters.registry import open_filters
from safer_instruct.models.protocol import Completion, Generated, Generation, Scored, Scoring, Turn
from safer_instruct.models.scripted import ScriptedModel
from safer_instruct.reverse import reversal
from safer_instruct.seeds import derive_seed
from safer_instruct.stages.fence import mark_for
from safer_instruct.stages.filter import choose
from safer_instruct.stages.induce import induce
from safer_instruct.stages.question import QuestionVerifier
from safer_instruct.stages.respond import respond
from safer_instruct.stages.verify import ContrastVerifier, answer
from safer_instruct.templates import Template, load_template

pytestmark = pytest.mark.filterwarnings("error")

TEXT = "The parcel was on your doorstep all along, so perhaps open the door before you write."
EXAMPLE = Example("r1", TEXT, "support", "texts.jsonl", 1)
ASKED = replace(EXAMPLE, prompt="Where is my parcel? It was due on Monday.")
DOMAIN = Domain(
    name="test",
    description="For tests.",
    expert="You are an expert.",
    categories={
        "support": Category(
            definition="Rude.",
            guideline="Be kind.",
            criteria=("Is it polite?", "Does it help?"),
            contrast=Contrast(good="kind", bad="rude"),
            examples=(ExamplePair(prompt="P", chosen="KINDEXAMPLE", rejected="RUDEEXAMPLE"),),
        )
    },
)


class Asked(ScriptedModel):
    """A scripted model that remembers what it was asked."""

    def __init__(self, folder: Path, **script: Any) -> None:
        (folder / "script.yaml").write_text(yaml.safe_dump(script), encoding="utf-8")
        super().__init__("script.yaml", base=folder)
        self.generations: list[Generation] = []
        self.scorings: list[Scoring] = []

    async def generate(self, request: Generation) -> Generated:
        self.generations.append(request)
        return await super().generate(request)

    async def score(self, request: Scoring) -> Scored:
        self.scorings.append(request)
        return await super().score(request)


@dataclass
class Says:
    """A model that gives these completions, or this log-probability for each continuation."""

    completions: tuple[Completion, ...] = ()
    logprobs: dict[tuple[str, str], float] | None = None
    name: str = "says:it"
    fingerprint: str = "says"
    concurrency: int = 1
    priced: bool = True
    status: str = ""

    async def generate(self, request: Generation) -> Generated:
        return Generated(self.completions)

    async def score(self, request: Scoring) -> Scored:
        assert isinstance(request.prompt, str) and self.logprobs is not None
        return Scored((next(value for (part, text), value in self.logprobs.items() if part in request.prompt and text == request.continuation),))

    async def close(self) -> None: ...


# --- induce


def induced(model: Any, *, seed: int = 0, example: Example = EXAMPLE, **config: Any) -> Example:
    settings = InduceConfig(**config)
    asked = reversal(settings, ModelConfig(model=model.name), Path())
    return asyncio.run(induce(example, model, asked.template, settings, seed=seed))


def test_candidates_are_distinct_and_likeliest_first(tmp_path: Path) -> None:
    answers = [f"Where is parcel number {i}?" for i in range(5)]
    found = induced(Asked(tmp_path, generate=[{"match": "doorstep", "answers": answers}]), candidates=12).candidates
    assert len(found) == len({c.text for c in found}) > 1 and {c.text for c in found} <= set(answers)
    logprobs = [c.logprob for c in found]
    assert None not in logprobs and logprobs == sorted(logprobs, reverse=True)  # type: ignore[type-var]


def test_an_answer_drawn_twice_counts_once_and_keeps_what_was_said_first() -> None:
    drawn = (Completion("same", -1.0), Completion("other", -2.0), Completion("same", -3.0))
    assert induced(Says(drawn)).candidates == (Candidate("same", -1.0), Candidate("other", -2.0))


def test_answers_that_differ_in_surrounding_white_space_only_are_one_candidate() -> None:
    assert [c.text for c in induced(Says((Completion(" same\n", -1.0), Completion("same", -2.0)))).candidates] == ["same"]


def test_candidates_that_were_withheld_are_none() -> None:
    filtered, refused = Completion("Sorry,\n\x1b no." + "x" * 300, -0.5, withheld="refusal"), Completion("", withheld="filter")
    assert [c.text for c in induced(Says((filtered, Completion("same", -1.0)))).candidates] == ["same"]
    done = induced(Says((filtered, refused)))
    assert done.candidates == () and done.dropped_by and done.dropped_by.name == "induce.content_filter"
    assert done.dropped_by.reason.startswith("the model refused: Sorry, no.xxx") and len(done.dropped_by.reason) < 230
    assert induced(Says((refused,))).dropped_by == Verdict("induce.content_filter", False, None, "a content filter withheld the answer")


def test_without_logprobs_the_order_is_still_fixed() -> None:
    one, two = Completion("alpha"), Completion("beta")
    assert induced(Says((two, one))).candidates == induced(Says((one, two))).candidates == (Candidate("alpha"), Candidate("beta"))


def test_a_candidate_remembers_that_it_was_cut() -> None:
    assert [c.finished for c in induced(Says((Completion("a", -1.0, finished=False), Completion("b", -2.0)))).candidates] == [False, True]


def test_induction_fills_the_candidates_and_nothing_else(tmp_path: Path) -> None:
    assert replace(induced(Asked(tmp_path)), candidates=()) == EXAMPLE


def test_the_inducer_is_asked_with_the_template_and_the_settings(tmp_path: Path) -> None:
    model = Asked(tmp_path)
    induced(model, candidates=3, max_tokens=17, temperature=0.3, top_k=5)
    (request,) = model.generations
    assert request.prompt == (Turn("user", load_template("reverse").render(response=TEXT)),)
    s = request.sampling
    assert (s.n, s.max_tokens, s.temperature, s.top_k, s.repetition_penalty) == (3, 17, 0.3, 5, 1.0)


@pytest.mark.parametrize(
    ("form", "name", "raw"),
    [("auto", "embedded:m", True), ("auto", "openai:m", False), ("raw", "openai:m", True), ("chat", "embedded:m", False)],
)
def test_embedded_models_continue_a_raw_text_and_others_are_sent_a_message(tmp_path: Path, form: str, name: str, raw: bool) -> None:
    model = Asked(tmp_path)
    model.name = name
    induced(model, form=form)
    assert isinstance(model.generations[0].prompt, str) is raw


def test_the_draw_depends_on_seed_and_text_and_not_on_id_or_place(tmp_path: Path) -> None:
    model = Asked(tmp_path)
    induced(model)
    induced(model, example=replace(EXAMPLE, id="other", line=99, file="elsewhere"))
    induced(model, seed=1)
    induced(model, example=replace(EXAMPLE, text="Another text."))
    same, again, other_seed, other_text = (request.seed for request in model.generations)
    assert same == again and len({same, other_seed, other_text}) == 3


def test_template_syntax_in_a_text_reaches_the_model_as_it_stands(tmp_path: Path) -> None:
    model = Asked(tmp_path)
    induced(model, example=replace(EXAMPLE, text="{{ 7*7 }} {% for %}"))
    assert "{{ 7*7 }} {% for %}" in model.generations[0].prompt[0].content  # type: ignore[union-attr]


@settings(max_examples=100)
@given(st.integers(), st.lists(st.text() | st.integers(), max_size=3))
def test_seeds_fit_every_engine_and_parts_do_not_run_together(seed: int, parts: list[str | int]) -> None:
    assert 0 <= derive_seed(seed, *parts) < 2**31
    assert derive_seed(seed, "ab", "c") != derive_seed(seed, "a", "bc") != derive_seed(seed + 1, "a", "bc")


# --- choose

GOOD, FINE, SHORT = "Where is my parcel? It was due on Monday.", "My parcel has not come, can you look?", "Parcel?"
SCORES = [
    {"match": "Instruction:\nWhere is my parcel", "logprob": -1.0},
    {"match": "Instruction:\nMy parcel has not", "logprob": -1.4},
    {"match": "Instruction:", "logprob": -2.5},
    {"match": "^### Response:", "logprob": -2.0},
]


def chosen(scorer: Any, *candidates: Candidate, config: FilterConfig | None = None) -> Example:
    config = config or FilterConfig()
    checks = open_filters(config, Path()).prompt
    return asyncio.run(choose(replace(EXAMPLE, candidates=candidates), checks, scorer, load_template("forward"), config))


def test_the_likeliest_candidate_that_passes_is_taken(tmp_path: Path) -> None:
    scorer = Asked(tmp_path, score=SCORES)
    done = chosen(scorer, Candidate(SHORT, -0.1), Candidate(FINE, -0.2), Candidate(GOOD, -0.3))
    assert done.alive and done.prompt == FINE, "a later candidate with a larger gain does not overtake it"
    assert [v.name for v in done.verdicts] == [
        "prompt.length",
        "prompt.template",
        "prompt.refusal",
        "prompt.copying",
        "prompt.repetition",
        "prompt.language",
        "consistency",
    ]
    assert done.verdicts[-1] == Verdict("consistency", True, 0.6)


def test_candidates_keep_their_own_verdicts_and_later_ones_are_not_looked_at(tmp_path: Path) -> None:
    scorer = Asked(tmp_path, score=SCORES)
    done = chosen(scorer, Candidate(SHORT, -0.1), Candidate(FINE, -0.2), Candidate(GOOD, -0.3))
    first, second, third = done.candidates
    assert [v.name for v in first.verdicts if not v.passed] == ["prompt.length", "prompt.copying"], "all filters are asked"
    assert second.verdicts == done.verdicts and third == Candidate(GOOD, -0.3)
    assert len(scorer.scorings) == 2, "the text alone, and after the second candidate: the first failed a rule and costs no call"


def test_an_instruction_that_its_inducer_finds_unlikely_is_dropped(tmp_path: Path) -> None:
    gate = FilterConfig(min_logprob=-0.4, consistency=None)
    assert chosen(None, Candidate(GOOD, -0.4), config=gate).prompt == GOOD
    dropped = chosen(None, Candidate(GOOD, -0.41), Candidate(FINE, -0.5), config=gate).dropped_by
    assert dropped == Verdict("likelihood", False, -0.41, "the inducer gives it -0.410 nats, less than -0.400")
    assert chosen(None, Candidate(GOOD, None), config=gate).alive, "an inducer that tells no log-probability is not gated by it"


def test_the_text_alone_is_scored_once_for_all_candidates(tmp_path: Path) -> None:
    scorer = Asked(tmp_path, score=SCORES)
    done = chosen(scorer, Candidate("Tell me about the door.", -0.1), Candidate("What about the street?", -0.2), Candidate(GOOD, -0.3))
    assert done.prompt == GOOD and len(scorer.scorings) == 4
    assert [c.verdicts[-1].score for c in done.candidates] == [-0.5, -0.5, 1.0]
    assert {s.continuation for s in scorer.scorings} == {TEXT}


def test_an_example_without_a_passing_candidate_is_dropped_for_what_its_likeliest_failed(tmp_path: Path) -> None:
    done = chosen(Asked(tmp_path, score=SCORES), Candidate("Tell me about the door.", -0.1), Candidate(SHORT, -0.2))
    assert not done.alive and done.prompt == ""
    assert done.dropped_by == Verdict("consistency", False, -0.5, "makes the text -0.500 nats per token likelier, less than +0.100")
    assert done.verdicts == done.candidates[0].verdicts and done.candidates[1].verdicts[0].drops


def test_a_candidate_cut_at_the_token_limit_is_not_taken(tmp_path: Path) -> None:
    scorer = Asked(tmp_path, score=SCORES)
    done = chosen(scorer, Candidate(GOOD, -0.1, finished=False))
    assert done.dropped_by == Verdict("induce.unfinished", False, None, "was cut at the token limit (induce.max_tokens)") and not scorer.scorings
    assert chosen(scorer, Candidate(GOOD, -0.1, finished=False), Candidate(FINE, -0.2)).prompt == FINE


def test_an_example_without_candidates_is_dropped(tmp_path: Path) -> None:
    assert chosen(Asked(tmp_path)).dropped_by == Verdict("induce.empty", False, None, "the inducer wrote no instruction")


def test_gates_that_are_switched_off_cost_nothing(tmp_path: Path) -> None:
    scorer = Asked(tmp_path)
    done = chosen(scorer, Candidate(SHORT, -0.1), config=FilterConfig(prompt=None, consistency=None))
    assert done.prompt == SHORT and done.verdicts == () and not scorer.scorings


def test_the_consistency_gate_works_without_the_filters(tmp_path: Path) -> None:
    done = chosen(Asked(tmp_path, score=SCORES), Candidate(SHORT, -0.1), config=FilterConfig(prompt=None))
    assert [v.name for v in done.verdicts] == ["consistency"] and not done.alive


def test_bounds_of_the_config_are_the_ones_applied(tmp_path: Path) -> None:
    config = FilterConfig(prompt={"length": {"min_words": 1}}, consistency=ConsistencyConfig(min_gain=-0.5))
    assert chosen(Asked(tmp_path, score=SCORES), Candidate("Where?", -0.1), config=config).prompt == "Where?"


def test_an_empty_instruction_is_never_taken(tmp_path: Path) -> None:
    config = FilterConfig(prompt=None, consistency=None)
    done = chosen(Asked(tmp_path), Candidate("", -0.1), config=config)
    assert done.dropped_by == Verdict("induce.empty", False, None, "the inducer wrote nothing") and done.prompt == ""
    assert chosen(Asked(tmp_path), Candidate("", -0.1), Candidate(GOOD, -0.2), config=config).prompt == GOOD


# --- respond


def written(model: Any, *, example: Example = ASKED, seed: int = 0, attempt: int = 0, template: Template | None = None, **config: Any) -> list[Draft]:
    return asyncio.run(respond(example, model, template or load_template("respond"), DOMAIN, RespondConfig(**config), seed=seed, attempt=attempt))


def test_the_expert_is_asked_with_the_guideline_and_the_settings(tmp_path: Path) -> None:
    model = Asked(tmp_path)
    written(model, drafts=3, max_tokens=17, temperature=0.3, top_k=5, repetition_penalty=1.2)
    (request,) = model.generations
    assert request.prompt == (Turn("system", "You are an expert.\nBe kind."), Turn("user", ASKED.prompt))
    s = request.sampling
    assert (s.n, s.max_tokens, s.temperature, s.top_k, s.repetition_penalty) == (3, 17, 0.3, 5, 1.2)


def test_the_expert_never_sees_the_rejected_text(tmp_path: Path) -> None:
    model = Asked(tmp_path)
    written(model)
    assert all(TEXT not in turn.content for turn in model.generations[0].prompt if isinstance(turn, Turn))


def test_each_attempt_and_each_seed_draws_anew_and_the_same_one_draws_the_same(tmp_path: Path) -> None:
    model = Asked(tmp_path)
    first, again = written(model), written(model)
    written(model, attempt=1), written(model, seed=1), written(model, example=replace(ASKED, prompt="Other?"))
    seeds = [request.seed for request in model.generations]
    assert first == again and seeds[0] == seeds[1] and len(set(seeds)) == 4


def test_drafts_are_stripped_distinct_likeliest_first_and_know_their_attempt() -> None:
    model = Says((Completion("two", -2.0, finished=False), Completion(" one\n", -1.0), Completion("one", -3.0, finished=False)))
    assert written(model, attempt=4) == [Draft("one", 4, logprob=-1.0), Draft("two", 4, logprob=-2.0, finished=False)]


def test_drafts_without_logprobs_come_in_a_fixed_order() -> None:
    assert [d.text for d in written(Says((Completion("two"), Completion("one"))))] == ["one", "two"]


def test_a_category_that_the_domain_lacks_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no category 'other'"):
        written(Asked(tmp_path), example=replace(ASKED, category="other"))


# --- answer, with the contrast verifier

KIND, KINDER, RUDE = "I am so sorry, it comes tomorrow.", "I am very sorry, I will bring it now.", "Look again, or stop writing to us."


def contrasts(**by_text: float) -> Says:
    """A scorer for which the contrast of a text is this number."""
    texts = {"rejected": TEXT, "kind": KIND, "kinder": KINDER, "rude": RUDE}
    goods = {("that is kind", texts[name]): value for name, value in by_text.items()}
    return Says(logprobs={**goods, **{("that is rude", texts[name]): 0.0 for name in by_text}})


def answered(scorer: Any, drafts: list[list[Draft]], **config: Any) -> tuple[Example, list[int]]:
    attempts: list[int] = []

    async def write(example: Example, attempt: int) -> list[Draft]:
        assert example == ASKED
        attempts.append(attempt)
        return drafts[attempt]

    settings_ = VerifyConfig(**config)
    verifier = ContrastVerifier(scorer, load_template("contrast"), DOMAIN, settings_)
    return asyncio.run(answer(ASKED, write, verifier, settings_)), attempts


def test_the_best_accepted_draft_of_the_first_round_is_taken() -> None:
    done, attempts = answered(contrasts(rejected=-1.0, kind=0.5, kinder=0.75), [[Draft(KIND, 0), Draft(KINDER, 0)], []])
    assert attempts == [0] and done.alive and (done.chosen, done.margin) == (KINDER, 1.75)
    assert done.verdicts == (Verdict("verify.acceptable", True, 0.75), Verdict("verify.better", True, 1.75))
    assert [(d.text, d.margin) for d in done.drafts] == [(KIND, 1.5), (KINDER, 1.75)]


def test_a_round_without_an_accepted_draft_is_written_anew() -> None:
    done, attempts = answered(contrasts(rejected=-1.0, kind=0.5, rude=-0.5), [[Draft(RUDE, 0)], [Draft(KIND, 1)], []], rounds=3)
    assert attempts == [0, 1] and done.chosen == KIND
    assert [(d.text, d.attempt, all(v.passed for v in d.verdicts)) for d in done.drafts] == [(RUDE, 0, False), (KIND, 1, True)]


def test_after_the_last_round_the_example_is_dropped_for_what_its_best_draft_failed() -> None:
    rounds = [[Draft(KIND, 0)], [Draft(RUDE, 1), Draft(KINDER, 1)]]
    done, attempts = answered(contrasts(rejected=-1.0, kind=-0.25, kinder=-0.5, rude=-0.75), rounds, rounds=2)
    assert attempts == [0, 1] and not done.alive and (done.chosen, done.margin) == ("", None) and len(done.drafts) == 3
    assert done.dropped_by == Verdict("verify.acceptable", False, -0.5, "contrast -0.500 is below +0.000")
    assert done.verdicts == done.drafts[2].verdicts


def test_an_acceptable_draft_with_too_small_a_margin_is_dropped() -> None:
    done, _ = answered(contrasts(rejected=0.5, kind=0.75), [[Draft(KIND, 0)]], rounds=1, min_margin=0.5)
    assert done.dropped_by == Verdict("verify.better", False, 0.25, "margin +0.250 over the rejected text is below +0.500")
    assert [v.passed for v in done.verdicts] == [True, False]


def test_a_better_draft_that_is_not_acceptable_is_dropped() -> None:
    done, _ = answered(contrasts(rejected=-1.0, kind=0.25), [[Draft(KIND, 0)]], rounds=1, min_contrast=0.5)
    assert done.dropped_by is not None and done.dropped_by.name == "verify.acceptable" and [v.passed for v in done.verdicts] == [False, True]


def test_the_bounds_themselves_are_good_enough() -> None:
    done, _ = answered(contrasts(rejected=0.25, kind=0.5), [[Draft(KIND, 0)]], rounds=1, min_contrast=0.5, min_margin=0.25)
    assert done.alive and done.margin == 0.25


def test_a_draft_that_fails_a_criterion_is_not_compared_and_not_taken(tmp_path: Path) -> None:
    rules = [
        (f"{KINDER}\nDATA-\\w+\n\n### Answer", criteria("no", "yes")),
        ("Questions about", criteria("yes", "yes")),
        ("Reply A:\nDATA-\\w+\nThe parcel", "B"),
        ("", "A"),
    ]
    judge = Asked(tmp_path, generate=[{"match": match, "answers": [says]} for match, says in rules])
    verifier = QuestionVerifier(judge, load_template("question"), load_template("pairwise"), DOMAIN, VerifyConfig())

    async def write(_: Example, attempt: int) -> list[Draft]:
        return [Draft(KINDER, attempt), Draft(KIND, attempt)]

    done = asyncio.run(answer(ASKED, write, verifier, VerifyConfig(form="question")))
    assert [d.margin for d in done.drafts] == [None, 1.0] and (done.chosen, done.margin) == (KIND, 1.0)
    assert all(v.passed for v in done.verdicts) and len(judge.generations) == 4


def test_drafts_of_one_round_are_judged_side_by_side() -> None:
    ready = asyncio.Barrier(2)

    class Waits(Says):
        async def score(self, request: Scoring) -> Scored:
            if request.continuation in (KIND, KINDER):
                async with asyncio.timeout(10):
                    await ready.wait()
            return await super().score(request)

    scorer = Waits(logprobs=contrasts(rejected=-1.0, kind=0.5, kinder=0.75).logprobs)
    done, _ = answered(scorer, [[Draft(KIND, 0), Draft(KINDER, 0)]])
    assert done.chosen == KINDER and [d.text for d in done.drafts] == [KIND, KINDER]


def test_picking_the_first_takes_the_first_draft_that_passes_and_judges_no_further() -> None:
    drafts = [[Draft(RUDE, 0), Draft(KIND, 0), Draft(KINDER, 0)]]
    done, _ = answered(contrasts(rejected=-1.0, rude=-0.5, kind=0.5), drafts, pick="first")  # the third has no score to be found
    assert done.alive and (done.chosen, done.margin) == (KIND, 1.5)
    assert [[v.passed for v in d.verdicts] for d in done.drafts] == [[False, True], [True, True], []] and done.drafts[2] == drafts[0][2]


def test_picking_the_first_also_writes_anew_and_drops_for_what_the_best_draft_failed() -> None:
    drafts = [[Draft(RUDE, 0)], [Draft(RUDE, 1), Draft(KIND, 1)]]
    done, attempts = answered(contrasts(rejected=-1.0, rude=-0.5, kind=-0.25), drafts, pick="first", rounds=2)
    assert attempts == [0, 1] and not done.alive and len(done.drafts) == 3
    assert done.dropped_by == Verdict("verify.acceptable", False, -0.25, "contrast -0.250 is below +0.000")


@pytest.mark.parametrize(
    ("draft", "verdict"),
    [
        (Draft(KIND, 0, finished=False), Verdict("verify.unfinished", False, None, "was cut at the token limit (respond.max_tokens)")),
        (Draft("Sorry about all that.", 0), Verdict("verify.length", False, 4, "4 words, fewer than 5")),
        (Draft("", 0), Verdict("verify.length", False, 0, "0 words, fewer than 5")),
        (Draft(TEXT.upper(), 0), Verdict("verify.copy", False, None, "repeats the prompt or the source text")),
        (Draft(ASKED.prompt, 0), Verdict("verify.copy", False, None, "repeats the prompt or the source text")),
    ],
)
def test_a_draft_of_bad_form_is_dropped_without_a_call(tmp_path: Path, draft: Draft, verdict: Verdict) -> None:
    scorer = Asked(tmp_path)
    done, _ = answered(scorer, [[draft]], rounds=1, min_words=5)
    assert done.dropped_by == verdict and done.drafts == (replace(draft, verdicts=(verdict,)),)
    assert {s.continuation for s in scorer.scorings} == {TEXT}, "only the baseline was scored"


def test_a_draft_of_just_enough_words_is_judged(tmp_path: Path) -> None:
    done, _ = answered(Asked(tmp_path), [[Draft("Sorry about all of that.", 0)]], rounds=1, min_words=5)
    assert done.alive


def test_the_rejected_text_is_scored_once_however_many_drafts_and_rounds(tmp_path: Path) -> None:
    scorer = Asked(tmp_path)
    answered(scorer, [[Draft(KIND, 0), Draft(KINDER, 0)], [Draft(RUDE, 1)]], rounds=2, min_contrast=1.0)
    assert [s.continuation for s in scorer.scorings].count(TEXT) == 2  # under the guideline, and under its opposite
    assert len(scorer.scorings) == 2 + 3 * 2


def test_drafts_that_were_withheld_cost_no_judge_and_drop_the_example_when_no_other_came(tmp_path: Path) -> None:
    withheld = Draft("", 0, verdicts=(Verdict("respond.content_filter", False, None, "a content filter withheld the answer"),))
    assert written(Says((Completion("", withheld="filter"),) * 2)) == [withheld]
    assert [d.text for d in written(Says((Completion("half of", withheld="filter"), Completion("whole"))))] == ["whole"]
    scorer = Asked(tmp_path)
    done, _ = answered(scorer, [[withheld], [withheld]], rounds=2)
    assert done.dropped_by == withheld.verdicts[0] and done.drafts == (withheld,) * 2 and {s.continuation for s in scorer.scorings} == {TEXT}
    later, _ = answered(contrasts(rejected=-1.0, kind=0.5), [[withheld], [Draft(KIND, 1)]], rounds=2)
    assert later.chosen == KIND and later.drafts[0] == withheld


def test_an_expert_that_writes_nothing_drops_the_example(tmp_path: Path) -> None:
    done, attempts = answered(Asked(tmp_path), [[], []], rounds=2)
    assert attempts == [0, 1] and done.dropped_by == Verdict("respond.empty", False, None, "the expert wrote nothing")


def test_respond_and_answer_work_together_over_two_rounds(tmp_path: Path) -> None:
    script = {"generate": [{"match": "Where is my parcel", "answers": ["{words}"]}], "score": [{"match": "that is kind", "logprob": -1.0}, {"logprob": -2.0}]}
    model = Asked(tmp_path, **script)

    async def write(example: Example, attempt: int) -> list[Draft]:
        return await respond(example, model, load_template("respond"), DOMAIN, RespondConfig(drafts=2), seed=0, attempt=attempt)

    config = VerifyConfig(min_margin=1.0, rounds=2)  # a script scores all texts alike, so no margin is ever above 0
    done = asyncio.run(answer(ASKED, write, ContrastVerifier(model, load_template("contrast"), DOMAIN, config), config))
    assert not done.alive and [d.attempt for d in done.drafts] == [0, 0, 1, 1] and len({d.text for d in done.drafts}) == 4
    assert all(d.verdicts[0] == Verdict("verify.acceptable", True, 1.0) for d in done.drafts)


# --- the contrast verifier's questions


def test_contrast_shows_chosen_examples_with_the_good_side_and_rejected_ones_with_the_bad(tmp_path: Path) -> None:
    scorer = Asked(tmp_path, score=[{"match": "that is kind", "logprob": -1.0}, {"match": "that is rude", "logprob": -1.75}])
    verifier = ContrastVerifier(scorer, load_template("contrast"), DOMAIN, VerifyConfig())
    assert asyncio.run(verifier.contrast("Ask?", "Reply.", DOMAIN.category("support"))) == 0.75
    good, bad = (str(s.prompt) for s in scorer.scorings)
    assert "that is kind" in good and "KINDEXAMPLE" in good and "RUDEEXAMPLE" not in good
    assert "that is rude" in bad and "RUDEEXAMPLE" in bad and "KINDEXAMPLE" not in bad
    assert all(prompt.endswith("### Message:\nAsk?\n\n### Reply:\n") for prompt in (good, bad))


def test_the_contrast_verifier_refuses_a_domain_without_a_contrast(tmp_path: Path) -> None:
    plain = DOMAIN.model_copy(update={"categories": {"support": DOMAIN.category("support").model_copy(update={"contrast": None})}})
    with pytest.raises(ConfigError, match=r"domain 'test', category 'support': verify\.form 'contrast' needs 'contrast'"):
        ContrastVerifier(Asked(tmp_path), load_template("contrast"), plain, VerifyConfig())


# --- the question verifier


def criteria(*answers: str, reason: str = "Because.") -> str:
    """What a judge that is held to the schema says."""
    return json.dumps({f"criterion_{i}": {"reason": reason, "answer": a} for i, a in enumerate(answers, 1)})


def better(letter: str) -> str:
    return json.dumps({"reason": "Because.", "better": letter})


ASKS, MET = "Questions about", ("Questions about", criteria("yes", "yes"))
FIRST, SECOND = f"Reply A:\nDATA-\\w+\n{KIND}", f"Reply B:\nDATA-\\w+\n{KIND}"  # the draft stands first, or second
WINS = (FIRST, better("A")), (SECOND, better("B"))


def judged(folder: Path, *rules: tuple[str, str], draft: Draft | None = None, json_schema: bool = True, **config: Any) -> tuple[Draft, Asked]:
    judge = Asked(folder, generate=[{"match": match, "answers": [says]} for match, says in rules])
    templates = load_template("question"), load_template("pairwise")
    verifier = QuestionVerifier(judge, *templates, DOMAIN, VerifyConfig(**config), json_schema=json_schema)

    async def work() -> Draft:
        return await verifier.judge(ASKED, draft or Draft(KIND, 0), await verifier.baseline(ASKED))

    return asyncio.run(work()), judge


def test_a_draft_that_meets_every_criterion_and_wins_in_both_orders_passes(tmp_path: Path) -> None:
    draft, judge = judged(tmp_path, MET, *WINS)
    assert draft.margin == 1.0
    assert [(v.name, v.passed, v.reason) for v in draft.verdicts] == [
        ("verify.criterion_1", True, ""),
        ("verify.criterion_2", True, ""),
        ("verify.better", True, ""),
    ]
    assert len(judge.generations) == 3 and {g.sampling.temperature for g in judge.generations} == {0.0}


def test_the_judge_is_asked_all_criteria_at_once_and_held_to_a_schema(tmp_path: Path) -> None:
    _, judge = judged(tmp_path, MET, *WINS, max_tokens=77)
    asked, *orders = judge.generations
    text = asked.prompt[0].content  # type: ignore[union-attr]
    mark = mark_for(ASKED.prompt, KIND)
    shown = f"### Message:\n{mark}\n{ASKED.prompt}\n{mark}\n\n### Reply:\n{mark}\n{KIND}\n{mark}\n\n### Answer:\n"
    assert "1. Is it polite?\n2. Does it help?\n" in text and text.endswith(shown)
    assert asked.schema and orders[0].schema and orders[0].schema == orders[1].schema
    inner = {"type": "object", "required": ["reason", "answer"], "additionalProperties": False}
    assert all(rule | inner == rule for rule in asked.schema.definition["properties"].values())
    assert list(asked.schema.definition["properties"]) == ["criterion_1", "criterion_2"] and list(orders[0].schema.definition["properties"]) == [
        "reason",
        "better",
    ]
    assert {g.sampling.max_tokens for g in judge.generations} == {77}


def test_a_judge_that_knows_no_schemas_is_not_sent_one(tmp_path: Path) -> None:
    draft, judge = judged(tmp_path, MET, *WINS, json_schema=False)
    assert draft.margin == 1.0 and {g.schema for g in judge.generations} == {None}


def test_the_judge_sees_both_orders_of_the_same_two_texts(tmp_path: Path) -> None:
    _, judge = judged(tmp_path, MET)
    one, two = (g.prompt[0].content for g in judge.generations[1:])  # type: ignore[union-attr]
    mark = mark_for(ASKED.prompt, KIND, TEXT)
    for text, a, b in ((one, KIND, TEXT), (two, TEXT, KIND)):
        assert f"Reply A:\n{mark}\n{a}\n{mark}\n\n### Reply B:\n{mark}\n{b}\n{mark}\n" in text
    assert all("Be kind." in text and ASKED.prompt in text for text in (one, two))


@pytest.mark.parametrize("says", ["A", "B"])
def test_a_judge_that_always_prefers_the_same_place_is_not_believed(tmp_path: Path, says: str) -> None:
    draft, _ = judged(tmp_path, MET, ("", better(says)))
    last = draft.verdicts[-1]
    assert (last.name, last.passed, last.reason) == ("verify.better", False, "the judge preferred it in 1 of 2 orders") and draft.margin == 0.0


def test_a_draft_that_loses_in_both_orders_has_a_negative_margin(tmp_path: Path) -> None:
    draft, _ = judged(tmp_path, MET, (FIRST, better("B")), (SECOND, better("A")))
    assert draft.margin == -1.0 and draft.verdicts[-1].reason == "the judge preferred it in 0 of 2 orders"


def test_one_unmet_criterion_is_enough_to_fail_and_is_quoted_with_the_reason(tmp_path: Path) -> None:
    draft, judge = judged(tmp_path, (ASKS, criteria("yes", "no", reason="It offers\nnothing. " + "x" * 300)))
    assert [v.passed for v in draft.verdicts] == [True, False] and draft.margin is None and len(judge.generations) == 1
    assert draft.verdicts[1].name == "verify.criterion_2"
    assert draft.verdicts[1].reason.startswith("the judge said no to: Does it help? (It offers nothing. xxx") and draft.verdicts[1].reason.endswith("x...)")


@pytest.mark.parametrize(
    "says",
    [
        '```json\n{"criterion_1": {"reason": "r", "answer": "YES"}, "criterion_2": {"answer": true,}}\n```',
        "{'criterion_1': 'yes', 'criterion_2': 'no'} - no, wait: {'criterion_1': 'yes', 'criterion_2': 'yes'}",
        '{"Criterion 1": {"reason": "r", "answer": "Yes."}, "Criterion 2": {"reason": "r", "answer": "yes"',
        "1. Yes\n2. yes, it does",
        "**Criterion 1:** Yes\n**Criterion 2:** Yes",
        "YES",
        "yes!",
        "**Yes**",
        "Answer: yes",
    ],
)
def test_a_yes_is_read_however_the_judge_dresses_it(tmp_path: Path, says: str) -> None:
    draft, _ = judged(tmp_path, (ASKS, says), *WINS)
    assert [v.name for v in draft.verdicts] == ["verify.criterion_1", "verify.criterion_2", "verify.better"] and draft.margin == 1.0


@pytest.mark.parametrize(
    ("says", "names"),
    [
        (criteria("no", "yes"), ["verify.criterion_1"]),
        ("1. Yes\n2. No, it does not", ["verify.criterion_2"]),
        (criteria("no", "no"), ["verify.criterion_1", "verify.criterion_2"]),
        ("No", ["verify.criteria"]),
        ("no, yes", ["verify.criteria"]),
    ],
)
def test_a_no_is_a_no_to_what_it_answers(tmp_path: Path, says: str, names: list[str]) -> None:
    draft, judge = judged(tmp_path, (ASKS, says), *WINS)
    assert [v.name for v in draft.verdicts if not v.passed] == names and len(judge.generations) == 1


@pytest.mark.parametrize(
    ("first", "second"), [("a", "b."), ("(A)", '"B"'), ("Reply A", "Answer: B"), ("**A**", "B is kinder"), ("{better: a}", "{'better': 'B',}")]
)
def test_a_letter_is_read_however_the_judge_dresses_it(tmp_path: Path, first: str, second: str) -> None:
    draft, _ = judged(tmp_path, MET, (FIRST, first), (SECOND, second))
    assert draft.margin == 1.0


def test_answer_b_is_not_taken_for_a(tmp_path: Path) -> None:
    draft, _ = judged(tmp_path, MET, (FIRST, "Answer: B"), (SECOND, "B"))
    assert draft.margin == 0.0


UNREADABLE = [
    "",
    "Maybe",
    "I think so",
    "{}",
    "a reply",
    "both",
    "Yesterday",
    "eyes",
    '{"criterion_1": "yes"}',
    '{"reason": "", "better": "C"}',
    "1. Yes\n3. Yes",
]


@pytest.mark.parametrize("says", UNREADABLE)
def test_an_answer_that_says_neither_is_a_verdict_of_its_own(tmp_path: Path, says: str) -> None:
    unread, _ = judged(tmp_path, (ASKS, says), *WINS)
    undecided, _ = judged(tmp_path, MET, ("", says))
    for draft in (unread, undecided):
        assert [v.name for v in draft.verdicts if not v.passed] == ["verify.unreadable"] and draft.margin is None
        assert draft.verdicts[-1].reason.startswith("the judge: the answer holds no JSON object with ")


def test_an_answer_that_cannot_be_read_drops_the_example_and_no_more(tmp_path: Path) -> None:
    judge = Asked(tmp_path, generate=[{"answers": ["\x1b[2J {{ '{' * 9 }}"]}])
    verifier = QuestionVerifier(judge, load_template("question"), load_template("pairwise"), DOMAIN, VerifyConfig())

    async def write(_: Example, attempt: int) -> list[Draft]:
        return [Draft(KINDER, attempt), Draft(KIND, attempt)]

    done = asyncio.run(answer(ASKED, write, verifier, VerifyConfig(form="question")))
    assert done.dropped_by and done.dropped_by.name == "verify.unreadable" and done.dropped_by.reason.isprintable()


@pytest.mark.parametrize("held", [ASKS, "### Reply A"])
def test_a_judge_whose_answer_was_withheld_gives_a_verdict_of_its_own(tmp_path: Path, held: str) -> None:
    class Held(Asked):
        async def generate(self, request: Generation) -> Generated:
            made = await super().generate(request)
            if held in request.prompt[0].content:  # type: ignore[union-attr]
                return Generated((Completion("I cannot judge that.", withheld="refusal"),))
            return made

    judge = Held(tmp_path, generate=[{"match": match, "answers": [says]} for match, says in (MET, *WINS)])
    verifier = QuestionVerifier(judge, load_template("question"), load_template("pairwise"), DOMAIN, VerifyConfig())
    draft = asyncio.run(verifier.judge(ASKED, Draft(KIND, 0), 0.0))
    assert draft.verdicts[-1] == Verdict("verify.content_filter", False, None, "the model refused: I cannot judge that.") and draft.margin is None


def test_verdicts_that_a_draft_brings_along_are_kept(tmp_path: Path) -> None:
    earlier = Verdict("earlier", True)
    draft, _ = judged(tmp_path, MET, *WINS, draft=Draft(KIND, 2, verdicts=(earlier,)))
    assert draft.verdicts[0] == earlier and len(draft.verdicts) == 4 and draft.attempt == 2
    contrast = ContrastVerifier(Asked(tmp_path), load_template("contrast"), DOMAIN, VerifyConfig())
    again = asyncio.run(contrast.judge(ASKED, Draft(KIND, 2, verdicts=(earlier,)), 0.0))
    assert [v.name for v in again.verdicts] == ["earlier", "verify.acceptable", "verify.better"]


def test_the_question_verifier_refuses_a_domain_without_criteria(tmp_path: Path) -> None:
    plain = DOMAIN.model_copy(update={"categories": {"support": DOMAIN.category("support").model_copy(update={"criteria": ()})}})
    with pytest.raises(ConfigError, match=r"domain 'test', category 'support': verify\.form 'question' needs 'criteria'"):
        QuestionVerifier(Asked(tmp_path), load_template("question"), load_template("pairwise"), plain, VerifyConfig())


def test_when_one_of_the_calls_that_go_out_together_fails_the_other_has_ended_before_it_is_told(tmp_path: Path) -> None:
    class Fails(Asked):
        async def generate(self, request: Generation) -> Generated:
            if re.search("Reply A:\nDATA-\\w+\nThe parcel", request.prompt[0].content):  # type: ignore[union-attr]
                raise RequestError("no")
            await asyncio.sleep(0.01)
            return await super().generate(request)

    judge = Fails(tmp_path, generate=[{"match": match, "answers": [says]} for match, says in (MET, *WINS)])
    verifier = QuestionVerifier(judge, load_template("question"), load_template("pairwise"), DOMAIN, VerifyConfig())
    with pytest.raises(RequestError):
        asyncio.run(verifier.judge(ASKED, Draft(KIND, 0), 0.0))
    assert len(judge.generations) == 2
