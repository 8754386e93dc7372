"""What a config can say of the two sides of a pair: contrast twins, and who writes the rejected response."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from safer_instruct.settings.numbers import Positive
from safer_instruct.yamlfile import Strict

Temperature = Annotated[float, Field(ge=0)]
Role = Literal["inducer", "expert", "student", "judge", "rewriter"]
"""A role of `models` that can write."""
PREFIXES = {
    "chatml": "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n",
    "llama3": "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
}
"""Chat templates up to the user's first word; the server puts the token of beginning before them."""


class TwinsConfig(Strict):
    """Contrast twins: harmless instructions that look like ones of the set; the chosen response helps, the rejected one needlessly refuses.

    Twins are made of pairs that came through, once all rows are done; they are examples of their own (`ID~twin`) and are
    counted apart.

    Attributes:
        share: Of the pairs, about this share gets a twin; a hash of seed and instruction says which.
        by: `rewrite` asks `model` to rewrite the instruction; `sample` gives it the system prompt and the user's prefix of its
            chat template alone, so that it goes on as the user (Magpie, Xu et al. 2024).
        model: The role in `models` that writes the twins.
        refuser: The role that writes the needless refusals.
        template: Asks for a twin; by default `twin` for `rewrite` and `twin-sample` for `sample`.
        refusal_template: Asks for a needless refusal.
        prefix: For `sample` with `openai:` and `served:` models: `chatml`, `llama3`, or the text of the model's chat template up
            to the user's first word, with `{system}` in it. Embedded models know their own.
        lead: For `sample`: so many of the instruction's first words are put into the user's mouth.
        candidates: Drawn per twin; the likeliest that passes is taken.
        max_tokens: Cap on a twin.
        temperature: Of the draw, for twins and refusals.
        min_similarity: Least chrF2 of twin and instruction, as a share of 1.
        benign: Who says that a twin does not belong to the category: `judge` is asked, `scorer` compares log-probabilities;
            `auto` is the judge where `models.judge` is given.
        min_benign: For the judge the least probability of yes; for the scorer the least contrast, in nats per token.
        refusals: Needless refusals drawn per round; the first that is found to be one is taken.
        refusal_tokens: Cap on a refusal.
        rounds: How often a refusal is asked for, and how often a helping response.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    by: Literal["rewrite", "sample"] = "rewrite"
    model: Role = "expert"
    refuser: Role = "expert"
    template: str | None = None
    refusal_template: str = "refuse"
    prefix: str | None = None
    lead: Annotated[int, Field(ge=0)] = 0
    candidates: Positive = 4
    max_tokens: Positive = 80
    temperature: Temperature = 0.8
    min_similarity: Annotated[float, Field(ge=0, le=1)] = 0.3
    benign: Literal["auto", "judge", "scorer"] = "auto"
    min_benign: float | None = None
    refusals: Positive = 4
    refusal_tokens: Positive = 96
    rounds: Positive = 2

    @field_validator("prefix")
    @classmethod
    def _has_a_place_for_the_system_prompt(cls, prefix: str | None) -> str | None:
        if prefix is not None and prefix not in PREFIXES and "{system}" not in prefix:
            raise ValueError(f"write one of {', '.join(PREFIXES)}, or the model's chat template up to the user's first word, with {{system}} in it")
        return prefix

    @property
    def asked_with(self) -> str:
        """The template that asks for a twin."""
        return self.template or {"rewrite": "twin", "sample": "twin-sample"}[self.by]

    def check_writer(self, model: str, *, batch: bool) -> None:
        """Whether the model can go on as the user, where it must.

        Raises:
            ValueError: It cannot, or nothing tells its chat template.
        """
        provider = model.partition(":")[0]
        if self.by != "sample" or provider in ("embedded", "scripted"):
            return
        if provider not in ("openai", "served") or batch:
            raise ValueError(f"twins.by 'sample' needs a model that goes on with a raw prompt, which '{model}' does not; use by 'rewrite'")
        if self.prefix is None:
            raise ValueError(f"twins.by 'sample' with '{model}' needs twins.prefix: {', '.join(PREFIXES)}, or the template's own text")


class RejectedConfig(Strict):
    """The rejected response, in domains of direction `rejected`. A bare string in the config stands for `{form: STRING}`.

    Attributes:
        form: `source` is the source text as it is. `matched` is a rewrite of it in the length and format of the chosen response,
            that keeps what makes it undesirable. `student` is what `models.student` answers without the guideline.
        model: For `matched`: the role in `models` that rewrites.
        template: For `matched`: asks for the rewrite.
        ratio: For `matched`: least and most words of the rewrite, as a share of the chosen response's.
        drafts: Written per round.
        rounds: How often may be tried.
        max_tokens: Cap on a draft.
        temperature: Of the draw.
        fallback: Where no draft passes: `source` takes the source text and notes it, `drop` drops the example.
    """

    form: Literal["source", "matched", "student"] = "source"
    model: Role = "expert"
    template: str = "matched"
    ratio: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(ge=1)]] = (0.8, 1.25)
    drafts: Positive = 2
    rounds: Positive = 2
    max_tokens: Positive = 256
    temperature: Temperature = 0.7
    fallback: Literal["source", "drop"] = "source"

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"form": value} if isinstance(value, str) else value

    @property
    def writer(self) -> Role | None:
        """The role that writes it; None where nobody does."""
        return {"source": None, "matched": self.model, "student": "student"}[self.form]
