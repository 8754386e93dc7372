"""What a config of `safer-instruct train sft` and `train dpo` can say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from safer_instruct import yamlfile
from safer_instruct.settings.numbers import Positive
from safer_instruct.settings.pairs import Holdout, RowSource, check_apart
from safer_instruct.settings.training import TrainerConfig

Loss = Literal["sigmoid", "ipo", "hinge", "robust", "orpo", "simpo", "kto"]
REFERENCE_FREE = ("orpo", "simpo")

_PAPER_SFT: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 64,
    "learning_rate": 2e-5,
    "warmup": 0.03,
    "max_tokens": 512,
    "training": {"method": "full"},
}
_PAPER_DPO: dict[str, Any] = {
    "loss": "sigmoid",
    "beta": 0.1,
    "epochs": 1,
    "batch_size": 32,
    "learning_rate": 5e-7,
    "max_tokens": 512,
    "training": {"method": "full"},
}


class PreferenceSource(RowSource):
    """Preference pairs in TRL's columns, as text or as messages of {role, content}; `path` may be a run directory too.

    A bare string in the config stands for `{path: STRING}`. Without a prompt, the two sides are whole conversations that differ in their
    last message. Without `group`, pairs with one prompt stay together.

    Attributes:
        prompt: Column with the prompt.
        chosen: Column with the response that is preferred.
        rejected: Column with the other one.
    """

    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"

    @model_validator(mode="after")
    def _columns_are_apart(self) -> PreferenceSource:
        check_apart({"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected})
        return self


class PreferenceConfig(TrainerConfig):
    """What `train sft` and `train dpo` share.

    Attributes:
        preset: `paper` sets what the paper says (SFT: batch 64; DPO: beta 0.1, batch 32), and what it leaves open as the recipes that it
            follows have it: for SFT Stanford Alpaca's (learning rate 2e-5, 3 epochs, warmup 0.03, 512 tokens, every weight), for DPO
            that of Rafailov et al. (learning rate 5e-7, 1 epoch). Whatever else the config says wins.
        data: Where the pairs are.
        holdout: Which of them are kept out of training.
        max_pairs: Train on so many at most, drawn by their own hash: sets are compared at equal sizes.
        layout: `chat` puts the prompt into the model's chat template as a user's message, `raw` gives it as it stands.
        system: For `chat`: a system message before prompts that have none.
        max_tokens: Prompt, and completion, are each cut at so many.
    """

    preset: Literal["paper"] | None = None
    data: Annotated[tuple[PreferenceSource, ...], Field(min_length=1)]
    holdout: Holdout = Holdout()
    max_pairs: Positive | None = None
    layout: Literal["chat", "raw"] = "chat"
    system: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, value: object) -> object:
        return _under(cls._preset(), value) if isinstance(value, dict) and value.get("preset") == "paper" else value

    @classmethod
    def _preset(cls) -> dict[str, Any]:
        return {}

    @model_validator(mode="after")
    def _system_needs_chat(self) -> PreferenceConfig:
        if self.system is not None and self.layout == "raw":
            raise ValueError("'system' is for 'layout: chat'")
        return self


class SftConfig(PreferenceConfig):
    """`safer-instruct train sft`: learns to write the chosen response, P(chosen | prompt)."""

    epochs: Positive = 2

    @classmethod
    def _preset(cls) -> dict[str, Any]:
        return _PAPER_SFT


class DpoConfig(PreferenceConfig):
    """`safer-instruct train dpo`: learns to prefer the chosen to the rejected response.

    The reference is the state that training starts from: the base model, or with `start` the base with that adapter.

    Attributes:
        loss: `sigmoid` is DPO (Rafailov et al. 2023), `ipo` (Azar et al. 2023), `hinge` (SLiC, Zhao et al. 2023), `robust` (Chowdhury et al.
            2024); `kto` (Ethayarajh et al. 2024) takes the two sides as single examples, good and bad; `orpo` (Hong et al. 2024) and
            `simpo` (Meng et al. 2024) need no reference.
        beta: How far the model may move from the reference; IPO's tau, ORPO's lambda, SimPO's scale of rewards.
        label_smoothing: For `robust`: the share of pairs that are thought to stand the wrong way round. TRL's `sigmoid` takes none.
        gamma: For `simpo`: the margin that is aimed at.
        kl_prompts: At each evaluation the model writes a response to so many held-out prompts, on which its KL divergence from the
            start is taken; 0 for none. With `training.method: full` there is none either.
    """

    loss: Loss = "sigmoid"
    beta: Annotated[float, Field(gt=0)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    gamma: Annotated[float, Field(ge=0)] = 0.5
    kl_prompts: Annotated[int, Field(ge=0)] = 8
    epochs: Positive = 1
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    evaluations_per_epoch: Positive = 4
    patience: Positive = 3

    @classmethod
    def _preset(cls) -> dict[str, Any]:
        return _PAPER_DPO

    @model_validator(mode="after")
    def _options_fit_the_loss(self) -> DpoConfig:
        if self.gamma != type(self).model_fields["gamma"].default and self.loss != "simpo":  # what is kept of a config names the default, too
            raise ValueError(f"'gamma' is for 'loss: simpo'; '{self.loss}' takes none")
        if self.label_smoothing and self.loss != "robust":
            raise ValueError(f"'label_smoothing' is for 'loss: robust', which is DPO with smoothed labels; '{self.loss}' takes none in TRL")
        if self.loss == "kto" and (self.batch_size < 2 or self.training.micro_batch == 1):
            raise ValueError("'loss: kto' estimates its baseline from the others in memory with it: 'batch_size' and 'training.micro_batch' must be 2 or more")
        return self


def load_sft_config(path: Path | str) -> SftConfig:
    """Read a config of `train sft`.

    Raises:
        ConfigError: It is missing or not valid.
    """
    return yamlfile.load(Path(path), SftConfig)


def load_dpo_config(path: Path | str) -> DpoConfig:
    """Read a config of `train dpo`.

    Raises:
        ConfigError: It is missing or not valid.
    """
    return yamlfile.load(Path(path), DpoConfig)


def _under(preset: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`preset` with `given` over it, section by section."""
    merged = preset | given
    for name, value in preset.items():
        if isinstance(value, dict) and isinstance(given.get(name), dict):
            merged[name] = value | given[name]
    return merged
