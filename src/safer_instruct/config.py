"""What a YAML config can say: `RunConfig` for `run`, `TuneConfig` for `tune`; the sections stand in `settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from safer_instruct import yamlfile
from safer_instruct.selectconfig import SelectConfig
from safer_instruct.settings.answers import CeilingConfig, Target
from safer_instruct.settings.flow import ConsistencyConfig, FilterConfig, InduceConfig, RespondConfig, VerifyConfig
from safer_instruct.settings.models import BudgetConfig, ExpertConfig, ModelConfig, ModelsConfig, ServeConfig
from safer_instruct.settings.pairs import CleanConfig, Holdout, PairSource
from safer_instruct.settings.sides import RejectedConfig, Role, TwinsConfig
from safer_instruct.settings.sources import SourceConfig
from safer_instruct.settings.training import TrainerConfig
from safer_instruct.thresholds import NO_LABELS, Calibration, apply, load_calibration
from safer_instruct.yamlfile import Strict

__all__ = [
    "BudgetConfig",
    "ConsistencyConfig",
    "ExpertConfig",
    "FilterConfig",
    "Holdout",
    "InduceConfig",
    "ModelConfig",
    "ModelsConfig",
    "PairSource",
    "RespondConfig",
    "RunConfig",
    "ServeConfig",
    "SourceConfig",
    "TuneConfig",
    "VerifyConfig",
    "completed",
    "load_config",
    "load_tune_config",
]

_HOW_REACHED = (
    *("base_url", "api_key_env", "concurrency", "requests_per_min", "tokens_per_min"),
    *("timeout_s", "retries", "max_pause_s", "price_per_million"),
    *("batch", "batch_rows", "batch_wait_s", "batch_poll_s"),
)


class TuneConfig(TrainerConfig):
    """`safer-instruct tune`: reversed instruction tuning, or that of a small expert.

    Attributes:
        task: `induce` tunes P(prompt | response), the reversed instruction tuning of the paper (arXiv 2311.08685);
            `respond` tunes P(response | prompt) under a domain's guideline, for a small expert.
        template: For `induce`: the reversed template, shipped (`reverse`, `reverse-chat`) or a file.
        form: For `induce`: `raw` trains on the rendered template as a text to continue, `chat` as a user's message in the
            model's chat template; `auto` is chat for `reverse-chat` and raw for others.
        domain: For `respond`: the domain whose guideline is the system prompt.
        category: For `respond`: one of its categories.
        data: Where the pairs are.
        clean: What they must pass.
        holdout: Which of them are kept out of training.
    """

    task: Literal["induce", "respond"] = "induce"
    template: str = "reverse"
    form: Literal["auto", "raw", "chat"] = "auto"
    domain: str | None = None
    category: str | None = None
    data: Annotated[tuple[PairSource, ...], Field(min_length=1)]
    clean: CleanConfig = CleanConfig()
    holdout: Holdout = Holdout()

    @model_validator(mode="after")
    def _respond_needs_domain(self) -> TuneConfig:
        if self.task == "respond" and not (self.domain and self.category):
            raise ValueError("task 'respond' needs 'domain' and 'category': their guideline is the system prompt")
        return self


class RunConfig(Strict):
    """`safer-instruct run`: from a pile of texts to a preference dataset.

    Attributes:
        domain: A shipped domain or a YAML file.
        source: Where the texts are.
        models: Who does what.
        induce: How instructions are induced from texts.
        filter: What texts, instructions and pairs must pass.
        respond: How the other side of a pair is written.
        verify: When what was written is good enough.
        rejected: Who writes the rejected response, where it is not the source text.
        twins: Contrast twins, which teach what need not be refused; null makes none.
        select: Which of the accepted pairs make the set; null takes all.
        target: How many pairs are wanted, in all or by category (`{hate: 500, illegal: 300}`); the run ends as soon as it has them, and
            goes through the sources again for what is missing. Null: one pass, and as many pairs as it gives.
        ceiling: Where a run with a target stops all the same.
        budget: How much it may cost.
        prices: A file of prices, relative to the config, that wins over the shipped ones and the user's own.
        calibration: What `safer-instruct calibrate` wrote, relative to the config: its thresholds take the place of those here, and margins
            become differences of calibrated probabilities.
        seed: Every draw depends on it and on the text, never on order or timing.
        license: Licence of the dataset, for its card; empty when not decided.
    """

    domain: str
    source: SourceConfig
    models: ModelsConfig
    induce: InduceConfig = InduceConfig()
    filter: FilterConfig = FilterConfig()
    respond: RespondConfig = RespondConfig()
    verify: VerifyConfig = VerifyConfig()
    rejected: RejectedConfig = RejectedConfig()
    twins: TwinsConfig | None = None
    select: SelectConfig | None = None
    target: Target | None = None
    ceiling: CeilingConfig = CeilingConfig()
    budget: BudgetConfig = BudgetConfig()
    prices: str | None = None
    calibration: str | None = None
    seed: int = 0
    license: str = ""
    _base: Path = PrivateAttr(default_factory=Path)
    _file: Path | None = PrivateAttr(default=None)
    _calibrated: Calibration | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """The file it was read from, for messages."""
        return self._file

    @property
    def thresholds(self) -> str:
        """Where the bounds of filters and verifiers come from, for summary, card and report."""
        return self._calibrated.described if self._calibrated else NO_LABELS

    @property
    def calibrated(self) -> Calibration | None:
        """What the file `calibration` holds."""
        return self._calibrated

    @property
    def base(self) -> Path:
        """The folder that paths in the config are relative to: the config's own."""
        return self._base

    def parted(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As plain data: what the result depends on, and how it is come by (addresses, rates, prices, budget)."""
        what = self.model_dump(mode="json")
        how = {name: what.pop(name) for name in ("budget", "prices", "calibration")}  # the calibrated thresholds stand in their places
        models = {role: model for role, model in what["models"].items() if model and role not in ("panel", "experts")}
        models |= {f"{group}.{name}": model for group in ("panel", "experts") for name, model in (what["models"][group] or {}).items()}
        how["models"] = {role: {name: model.pop(name) for name in _HOW_REACHED} for role, model in models.items()}
        return what, how

    @model_validator(mode="after")
    def _given_or_induced(self) -> RunConfig:
        if self.induce.given == "keep" and self.source.messages is None:
            raise ValueError("induce.given 'keep' is for conversations; name their column with source.messages")
        if self.induce.given == "replace" and self.models.inducer is None:
            raise ValueError("models.inducer is missing: the model that writes the instructions")
        return self

    @model_validator(mode="after")
    def _judge_for_questions(self) -> RunConfig:
        if self.verify.form == "question" and self.models.judge is None:
            raise ValueError("verify.form 'question' needs models.judge")
        if self.verify.form == "reward" and self.models.reward is None:
            raise ValueError("verify.form 'reward' needs models.reward")
        if self.models.judge is None and (self.respond.critique or any(c.check == "grounded" and c.by == "judge" for c in self.verify.also)):
            raise ValueError(f"{'respond.critique' if self.respond.critique else 'grounded by judge'} needs models.judge")
        if self.models.experts and self.respond.choose == "best" and self.verify.pick != "best":
            raise ValueError("respond.choose 'best' compares margins, so it needs verify.pick 'best'")
        return self

    @model_validator(mode="after")
    def _target_streams(self) -> RunConfig:
        if self.target is not None and (self.select is not None or self.filter.keep == "best"):
            what = "select" if self.select is not None else "filter.keep 'best'"
            raise ValueError(f"a target ends the run as soon as it is reached, and {what} must see all examples first; give one or the other")
        return self

    @model_validator(mode="after")
    def _writers_of_the_sides(self) -> RunConfig:
        """Whoever twins and rejected responses are left to must be there, and able to."""
        for asked_by, role in self.side_roles.items():
            if getattr(self.models, role) is None:
                several = f"; models.experts are several: leave {asked_by} to another role" if role == "expert" and self.models.experts else ""
                raise ValueError(f"{asked_by} is left to '{role}', so models.{role} is needed{several}")
        if self.twins:
            writer = getattr(self.models, self.twins.model)
            self.twins.check_writer(writer.model, batch=writer.batch)
            if self.twins.benign == "judge" and self.models.judge is None:
                raise ValueError("twins.benign 'judge' needs models.judge")
        return self

    @property
    def side_roles(self) -> dict[str, Role]:
        """Key of the config -> the role that it gives work to, for twins and rejected responses."""
        roles: dict[str, Role] = {"twins": "expert"} if self.twins and not self.models.experts else {}
        roles |= {"twins.model": self.twins.model, "twins.refuser": self.twins.refuser} if self.twins else {}
        return roles | ({f"rejected '{self.rejected.form}'": self.rejected.writer} if self.rejected.writer else {})


def completed(what: Any) -> Any:
    """The config of a `run.yaml`, as `RunConfig.parted` gave it, with what it does not say filled in as it is by default.

    Two of them are of the same run when they are equal so: a setting that was not there yet when the older one was written is at its
    default, which by custom does what was done before. What is no config any more is returned as it is.
    """
    try:
        return RunConfig.model_validate(what, strict=False).model_dump(mode="json")
    except ValidationError:
        return what


def load_config(path: Path | str) -> RunConfig:
    """Read a run config.

    Raises:
        ConfigError: It is missing or not valid.
    """
    config = yamlfile.load(Path(path), RunConfig)
    base = Path(path).parent
    if config.calibration:
        with yamlfile.named_at(("calibration",), Path(path)):
            found = load_calibration(base / config.calibration)
        config = RunConfig.model_validate(apply(config.model_dump(), found.thresholds), strict=False)
        config._calibrated = found
    config._file, config._base = Path(path), base
    return config


def load_tune_config(path: Path | str) -> TuneConfig:
    """Read a tuning config.

    Raises:
        ConfigError: It is missing or not valid.
    """
    return yamlfile.load(Path(path), TuneConfig)
