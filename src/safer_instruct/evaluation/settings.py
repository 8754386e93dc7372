"""What a YAML config of `safer-instruct evaluate` can say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, model_validator

from safer_instruct import yamlfile
from safer_instruct.config import BudgetConfig, ModelConfig
from safer_instruct.settings.numbers import Positive
from safer_instruct.yamlfile import Strict

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]
Format = Literal["auto", "jsonl", "csv", "tsv", "parquet"]


class PromptsConfig(Strict):
    """The prompts that all systems answer. A bare string in the config stands for `{path: STRING}`.

    Attributes:
        path: A file, a folder or a glob of JSONL, JSON, CSV, TSV or Parquet, relative to the config.
        format: As for a run's source.
        prompt: Column with the prompt; by default `prompt` or `instruction`.
        id: Column with an id of one's own; without it the id is a digest of the prompt.
        category: The domain's category of all prompts; needed when the domain has several and no column tells.
        category_column: Column with the category.
        safe: Column that says whether the prompt asks for nothing harmful: true or false, yes or no, 1 or 0; empty where nobody knows.
        follow_up: Column with a second message, for two-turn grading.
        limit: Take so many, in the order of their hash; null for all.
    """

    path: str
    format: Format = "auto"
    prompt: str | None = None
    id: str | None = None
    category: str | None = None
    category_column: str | None = None
    safe: str = "safe"
    follow_up: str = "follow_up"
    limit: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value


class GenerateConfig(Strict):
    """How systems that are models answer; the same for all of them.

    Attributes:
        system: System prompt; empty: none.
        max_tokens: Cap on an answer.
        temperature: Of the draw; 0 is greedy.
        top_k: Of the draw; 0 for all tokens.
        repetition_penalty: Above 1 keeps small models from looping.
    """

    system: str = ""
    max_tokens: Positive = 256
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_k: Annotated[int, Field(ge=0)] = 0
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.1


class SystemConfig(Strict):
    """One system: a model that answers now, or answers that are there. One of the three is given. A bare string stands for `{model: STRING}`.

    Attributes:
        model: Who answers.
        responses: A file with finished answers, relative to the config: AlpacaEval's outputs (`instruction`, `output`), or rows
            with the prompt and the answer. They are matched by id where both have one, else by the prompt's words.
        column: The column of the prompts' own file with the answers.
        prompt_column: For `responses`: by default `prompt` or `instruction`.
        response_column: For `responses`: by default `response`, `output` or `answer`.
        second: For `responses` and `column`: the column with the answer to the follow-up.
    """

    model: ModelConfig | None = None
    responses: str | None = None
    column: str | None = None
    prompt_column: str | None = None
    response_column: str | None = None
    second: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> SystemConfig:
        if sum(given is not None for given in (self.model, self.responses, self.column)) != 1:
            raise ValueError("give one of 'model', 'responses' (a file) and 'column' (of the prompts' file)")
        return self


class JudgeConfig(Strict):
    """Who judges.

    Attributes:
        form: `contrast` compares log-probabilities under the domain's guideline and its opposite (any model that scores);
            `question` asks (strong judges), each pair in both orders; `reward` takes a sequence classifier's number.
        model: Which model.
        answers: For `question`: `weighted` reads how likely the options are, `written` what the judge writes.
        swaps: For `question`: put the yes-or-no criteria with their options in both orders; pairs are always shown in both.
        examples: For `contrast`: how many of the category's example pairs the scorer is shown.
        min_contrast: For `contrast`: an answer below it is harmful, nats per token; calibrate it (docs/judges-and-calibration.md).
        min_reward: For `reward`: an answer below it is harmful; null: no harmful rate.
        min_yes: For `question`: least probability of yes to each criterion.
        min_difference: For `contrast` and `reward`: two answers closer than this tie.
        max_tokens: For `question`: cap on a written answer.
    """

    form: Literal["contrast", "question", "reward"]
    model: ModelConfig
    answers: Literal["weighted", "written"] = "weighted"
    swaps: bool = True
    examples: Annotated[int, Field(ge=0)] = 4
    min_contrast: float = 0.0
    min_reward: float | None = None
    min_yes: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_difference: Annotated[float, Field(ge=0)] = 0.0
    max_tokens: Positive = 512


class HarmlessnessConfig(Strict):
    """Which of two answers follows the domain's guideline better, and how many answers violate it.

    Attributes:
        pairs: `baseline` compares every system with the baseline, `all` each two.
        rates: Judge each answer by itself too: the harmful rate by category.
        refusals: With judges that do not ask, on prompts that are labelled unsafe: an answer that refuses is not harmful, and wins
            over one that does not. A small scorer cannot tell by itself (docs/evaluate.md).
    """

    pairs: Literal["baseline", "all"] = "baseline"
    rates: bool = True
    refusals: bool = True


class HelpfulnessConfig(Strict):
    """Which of two answers helps more, by judges that ask, with the length-controlled win rate.

    Attributes:
        pairs: As for harmlessness.
        guideline: What a good answer does.
    """

    pairs: Literal["baseline", "all"] = "baseline"
    guideline: str = "It does what the message asks, correctly and completely, in a form that is easy to use, and adds nothing that was not wanted."


class TwoTurnConfig(Strict):
    """Grades from 1 to 10 of the answer and of the answer to a follow-up, by judges that ask (MT-bench's way, Zheng et al. 2023).

    Attributes:
        guideline: What the judge grades by.
    """

    guideline: str = "It is helpful, to the point, correct, and as detailed as the message calls for."


class DownstreamConfig(Strict):
    """Tasks of lm-evaluation-harness (extra `lm-eval`), for systems that are models.

    Attributes:
        tasks: Their names.
        include: A folder with task files of one's own, relative to the config.
        shots: Examples shown; null leaves it to the task.
        limit: Documents per task; null for all.
    """

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    include: str | None = None
    shots: Annotated[int, Field(ge=0)] | None = None
    limit: Positive | None = None


class TrainingData(Strict):
    """What the systems were trained on. A bare string in the config stands for `{path: STRING}`.

    Attributes:
        path: A run directory, or a file of JSONL, JSON, CSV, TSV or Parquet, relative to the config.
        prompt: For files: column with the prompt; by default `prompt` or `instruction`.
    """

    path: str
    prompt: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value


class OverlapConfig(Strict):
    """When a prompt counts as one that was trained on.

    Attributes:
        near: Jaccard similarity of word trigrams from which two prompts are near-duplicates.
        cluster: The same, looser, from which they belong together; links go through other prompts.
        shared_run: So many words in a row in common.
    """

    near: Annotated[float, Field(gt=0, le=1)] = 0.7
    cluster: Annotated[float, Field(gt=0, le=1)] = 0.4
    shared_run: Positive = 13


class EvaluateConfig(Strict):
    """`safer-instruct evaluate`: systems side by side on the same prompts.

    Attributes:
        domain: Whose guideline, criteria and contrast say what is harmless: a shipped domain or a YAML file.
        prompts: What is answered.
        generate: How models answer.
        systems: By name.
        baseline: The system that the others are compared with; by default the first.
        judges: By name; with several, the majority decides, and their agreement is told.
        harmlessness: Null leaves it out.
        over_refusal: Tell how often each system refuses, on prompts labelled safe and unsafe.
        refusal_reader: Where its words do not tell clearly whether an answer refuses, the embedded model reads it (extra `local`); as in the
            filter `refusing`.
        helpfulness: Left out unless given.
        two_turn: Left out unless given.
        downstream: Left out unless given.
        training: What the systems were trained on, to find prompts that overlap with it.
        built_with: Models that wrote or judged the training data, beside those that the run directories name.
        overlap: When a prompt overlaps.
        level: Confidence level of the intervals; 1 - level is that of the tests.
        resamples: Of the bootstrap.
        budget: A hard cap on what calls to remote models may take.
        prices: A file of prices, as for `run`.
        seed: Of draws, bootstrap, and the sides of blinded sheets.
    """

    domain: str
    prompts: PromptsConfig
    generate: GenerateConfig = GenerateConfig()
    systems: Annotated[dict[Name, SystemConfig], Field(min_length=1)]
    baseline: str | None = None
    judges: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")], JudgeConfig] = Field(default_factory=dict)
    harmlessness: HarmlessnessConfig | None = HarmlessnessConfig()
    over_refusal: bool = True
    refusal_reader: bool = False
    helpfulness: HelpfulnessConfig | None = None
    two_turn: TwoTurnConfig | None = None
    downstream: DownstreamConfig | None = None
    training: tuple[TrainingData, ...] = ()
    built_with: tuple[str, ...] = ()
    overlap: OverlapConfig = OverlapConfig()
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    resamples: Positive = 2_000
    budget: BudgetConfig = BudgetConfig()
    prices: str | None = None
    seed: int = 0
    _base: Path = PrivateAttr(default_factory=Path)
    _found_in: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def base(self) -> Path:
        """The folder that paths in the config are relative to: the config's own."""
        return self._base

    @property
    def found_in(self) -> Mapping[str, str]:
        """Model of `built_with` -> where it had a part, for those that no user named: a study finds them in its sets."""
        return self._found_in

    @property
    def against(self) -> str:
        """The baseline's name."""
        return self.baseline or next(iter(self.systems))

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """Those that answer, and those that judge."""
        return *(system.model for system in self.systems.values() if system.model), *(judge.model for judge in self.judges.values())

    def asking(self) -> dict[str, JudgeConfig]:
        """The judges that are asked questions."""
        return {name: judge for name, judge in self.judges.items() if judge.form == "question"}

    @model_validator(mode="after")
    def _fits_together(self) -> EvaluateConfig:
        if self.baseline is not None and self.baseline not in self.systems:
            raise ValueError(f"baseline '{self.baseline}' is none of the systems: {', '.join(self.systems)}")
        if self.harmlessness and not self.judges:
            raise ValueError("harmlessness needs 'judges'; or write 'harmlessness: null'")
        if (self.helpfulness or self.two_turn) and not self.asking():
            raise ValueError("helpfulness and two_turn need a judge of form 'question'")
        if self.downstream and not any(system.model for system in self.systems.values()):
            raise ValueError("downstream needs a system that is a model; all of these are finished answers")
        if not any((self.harmlessness, self.over_refusal, self.helpfulness, self.two_turn, self.downstream)):
            raise ValueError("nothing is to be measured")
        return self


def load_evaluation(path: Path | str) -> EvaluateConfig:
    """Read an evaluation config.

    Raises:
        ConfigError: It is missing or not valid.
    """
    config = yamlfile.load(Path(path), EvaluateConfig)
    config._base = Path(path).parent
    return config
