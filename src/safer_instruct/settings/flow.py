"""What a config can say of the four stages of a run: induce, filter, respond, verify."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from safer_instruct.settings.answers import AlsoCheck, BoilerplateConfig, named_check
from safer_instruct.settings.numbers import Positive, Similarity
from safer_instruct.settings.semantic import SemanticConfig
from safer_instruct.yamlfile import Strict

Named = dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")], dict[str, Any] | None] | None


class InduceConfig(Strict):
    """Instruction induction (arXiv 2311.08685).

    Attributes:
        given: What becomes of the user's message that a conversation gives before the text: `replace` it by one that is induced,
            which is the method; or `keep` it as the prompt, and no inducer is called.
        template: The template the inducer was tuned with, shipped or a file; `prompted` for a strong model that was not tuned.
        form: `raw` sends the rendered template as a text to continue, `chat` as a user's message; `auto` is the form that the
            adapter was tuned with, else chat for `reverse-chat`, raw for embedded models and chat for others.
        examples: For templates that show examples: `domain` takes the domain's own (each category its own, where it has some),
            otherwise a file of pairs, as in tuning data.
        shots: Most examples shown.
        candidates: Instructions drawn per text.
        max_tokens: Cap on an instruction.
        temperature: Of the draw.
        top_k: Of the draw; 0 for all tokens.
    """

    given: Literal["replace", "keep"] = "replace"
    template: str = "reverse"
    form: Literal["auto", "raw", "chat"] = "auto"
    examples: str = "domain"
    shots: Positive = 4
    candidates: Positive = 4
    max_tokens: Positive = 80
    temperature: Annotated[float, Field(ge=0)] = 0.8
    top_k: Annotated[int, Field(ge=0)] = 40


class ConsistencyConfig(Strict):
    """Cycle consistency: mean log p(response | instruction) - log p(response) under the scorer.

    Attributes:
        min_gain: Nats per token that the instruction must make the response likelier. A default, not calibrated.
        max_rank: Drop a candidate when so many or more candidates of the same text have a larger gain; all of them are scored
            for it. Null, and candidates are scored only until one passes.
        max_tokens: The response is scored up to here: more cost more and told less (bench/README.md).
    """

    min_gain: float = 0.1
    max_rank: Positive | None = None
    max_tokens: Positive = 64


class FilterConfig(Strict):
    """What an example must pass.

    Filters are named below the place where they look: `text` (the source text, before anything is induced from it), `prompt`
    (each induced instruction), `pair` (once a response was accepted). Below a name stand the filter's options, and with them
    `mode` (`drop`, or `flag` to only record), `use` (the filter, where its name here is another) or `path` (a Python file with a
    filter of one's own, relative to the config). Null switches a filter off, or all of a place. Those that are on without
    being named: filters/registry.py.

    Attributes:
        text: Filters on source texts.
        prompt: Filters on instructions.
        pair: Filters on finished pairs.
        near_duplicate: Jaccard similarity of word trigrams from which a text or an instruction counts as seen before;
            null switches near-duplicate removal off. Exact duplicates are always dropped.
        keep: Of duplicates, `first` keeps the one that came first, while streaming; `best` keeps the longest text and the likeliest
            instruction, and so must see all texts before the first is induced, and all instructions before the first is answered.
        semantic: Duplicates in meaning among source texts and among instructions; with `keep: best` only.
        consistency: Cycle consistency; null switches it off.
        min_logprob: Least log P(instruction | response), in nats, of the whole instruction under an inducer that tells it; null
            switches it off. What it is good for depends on the inducer: set it by reading (bench/README.md).
    """

    text: Named = Field(default_factory=dict)
    prompt: Named = Field(default_factory=dict)
    pair: Named = Field(default_factory=dict)
    near_duplicate: Similarity | None = 0.7
    keep: Literal["first", "best"] = "first"
    semantic: SemanticConfig | None = None
    consistency: ConsistencyConfig | None = ConsistencyConfig()
    min_logprob: Annotated[float, Field(le=0)] | None = None

    @model_validator(mode="after")
    def _semantic_needs_all(self) -> FilterConfig:
        if self.semantic is not None and self.keep != "best":
            raise ValueError("filter.semantic compares all texts with each other: it needs 'keep: best' beside it")
        return self

    def in_languages(self, languages: tuple[str, ...]) -> FilterConfig:
        """With `languages` for the filter `language` on instructions, where the config does not name its own."""
        options = {"languages": list(languages)} if self.prompt is None else self.prompt.get("language", {})
        if self.prompt is None or options is None or "languages" in options or options.keys() & {"use", "path"}:
            return self
        return self.model_copy(update={"prompt": {**self.prompt, "language": {**options, "languages": list(languages)}}})


class RespondConfig(Strict):
    """How the expert writes.

    Attributes:
        template: Renders the system prompt from the domain and the category.
        drafts: Responses per round; the best by margin is taken.
        max_tokens: Cap on a response.
        temperature: Of the draw.
        top_k: Of the draw; 0 for all tokens.
        repetition_penalty: Above 1 keeps small models from looping.
        choose: Of several experts: `weight` takes one for each prompt and round, by a hash of the prompt and in shares as their weights;
            `best` has all of them write, and the verifier's margin decides; equal margins are a draw for each example, and those of
            one judge that writes are all equal.
        revise: How often in each round the expert is shown why its draft was not accepted, and mends it.
        revision: Renders what it is shown then.
        critique: Before that, the judge (`models.judge`) says what is to be changed, by the guideline.
        boilerplate: What becomes of responses that repeat accepted ones; null accepts them.
    """

    template: str = "respond"
    drafts: Positive = 2
    max_tokens: Positive = 160
    temperature: Annotated[float, Field(ge=0)] = 0.7
    top_k: Annotated[int, Field(ge=0)] = 40
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.1
    choose: Literal["weight", "best"] = "weight"
    revise: Annotated[int, Field(ge=0)] = 0
    revision: str = "revise"
    critique: bool = False
    boilerplate: BoilerplateConfig | None = None

    @model_validator(mode="after")
    def _critique_is_for_revising(self) -> RespondConfig:
        if self.critique and not self.revise:
            raise ValueError("'critique' is part of revising: set 'revise' to 1 or more")
        return self


class VerifyConfig(Strict):
    """When a response is good enough.

    Attributes:
        form: `contrast` compares log-probabilities under the guideline and its opposite (any model that scores);
            `question` asks the judge the domain's criteria, and which response is better in both orders; `reward` asks
            `models.reward`, a classifier of one's own; `program` leaves it to the domain's `verifiers`, which come first with the other
            forms too.
        answers: For `question`: `written` asks all criteria in one call and reads what the judge writes; `weighted` asks each
            in a call of its own and reads how likely its options are, or what it writes where the endpoint does not tell.
        swaps: For `weighted`: put each question with its options in both orders; twice the calls, and no liking for the first.
        min_yes: For `weighted`: least probability of yes.
        min_reward: For `reward`: least reward of an acceptable response; null asks only for the margin.
        pick: `best` judges every draft of a round and takes the one with the largest margin; `first` goes through them,
            likeliest under the expert first, and takes the first that passes: fewer calls. With one judge that writes all margins
            are equal, so `best` also stops at the first that passes, unless `respond.boilerplate` may need the others.
        examples: For `contrast`: how many of the category's example pairs the scorer is shown; each makes it surer and slower.
        rounds: How often the expert may try; then the example is dropped with the reasons.
        min_contrast: For `contrast`: least contrast of an acceptable response, nats per token.
        min_margin: For `contrast`: least margin over the rejected response, nats per token; a judge must prefer it in both orders.
        min_words: Shorter responses are not acceptable.
        max_tokens: For `question`: cap on one answer of the judge; a judge that thinks before it answers needs more.
        also: Further checks that each response must pass before `form` is asked: `grounded` and `refusal`, by name or with options
            (`{check: grounded, by: judge}`).
    """

    form: Literal["contrast", "question", "reward", "program"] = "contrast"
    answers: Literal["written", "weighted"] = "written"
    swaps: bool = True
    min_yes: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_reward: float | None = None
    pick: Literal["best", "first"] = "best"
    examples: Annotated[int, Field(ge=0)] = 4
    rounds: Positive = 2
    min_contrast: float = 0.0
    min_margin: float = 0.0
    min_words: Positive = 5
    max_tokens: Positive = 512
    also: tuple[Annotated[AlsoCheck, BeforeValidator(named_check)], ...] = ()

    @field_validator("also")
    @classmethod
    def _each_once(cls, also: tuple[AlsoCheck, ...]) -> tuple[AlsoCheck, ...]:
        names = [check.check for check in also]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"'{doubled[0]}' stands there twice")
        return also
