"""What the config of any training can say of the model, the steps and the machine, as opposed to what is learned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from safer_instruct.settings.numbers import Positive, Share
from safer_instruct.yamlfile import Strict


class Lora(Strict):
    """Low-rank adaptation of every linear layer (Hu et al. 2021).

    Attributes:
        rank: Of each update, which is a product of two matrices.
        alpha: The update counts `alpha / rank` times.
        dropout: Share of an update's inputs that are left out, while training.
    """

    rank: Positive = 8
    alpha: Positive = 16
    dropout: Share = 0.0


class Training(Strict):
    """How the steps are carried out.

    Attributes:
        method: `lora` trains low-rank updates of a frozen base, `qlora` the same over a base in 4 bits (Dettmers et al. 2023;
            a CUDA GPU and bitsandbytes), `full` every weight.
        micro_batch: Sequences in memory at a time, on each device; by default as many as fit a budget of tokens: 512 on a
            processor, so that 135M parameters train in 3.5 GB, and 16384 on a GPU. Gradients are summed until `batch_size` is reached.
        batching: `bucketed` puts sequences of like length together and pads them, `packed` lays those of a micro-batch end to end
            without padding, none seeing another (for GPUs with `attention: flash_attention_2`).
        gradient_checkpointing: Recompute activations in the backward pass: a third more work for a fraction of the memory.
            `auto` does so on GPUs.
        attention: The attention implementation of transformers; by default the one that it takes for the model.
        save_steps: Write a checkpoint every so many steps, besides one at every evaluation.
        trackers: Where the losses are sent, besides the terminal.
    """

    method: Literal["lora", "qlora", "full"] = "lora"
    micro_batch: Positive | None = None
    batching: Literal["bucketed", "packed"] = "bucketed"
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    attention: str | None = None
    save_steps: Positive | None = None
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()


class TrainerConfig(Strict):
    """What every training shares, whatever it learns.

    Attributes:
        model: A model of the cache, `embedded:NAME`; or a folder (relative to the config) or hub name of a transformers model.
        start: An adapter to go on from, one that ships with the package or a folder; its rank and alpha hold, not those of `lora`.
        lora: The adapter, for `training.method` lora and qlora.
        epochs: Most times that the data is gone through; see `patience`.
        batch_size: Of one optimizer step, over all devices.
        learning_rate: At its highest.
        warmup: Share of the steps in which the learning rate rises; then it falls as a cosine.
        max_tokens: What is given and what is learned are each cut at so many.
        dtype: Of the frozen base weights; `auto` is bfloat16 on a GPU that has it and on a processor that is faster with it (Intel with
            AMX, AMD since Zen 5), and float32 elsewhere. The adapter is trained in float32.
        evaluations_per_epoch: How often the held-out loss is measured.
        patience: Stop after this many evaluations without a lower held-out loss; the best state is kept.
        seed: Of the order of the data, and of what the adapter starts from.
        training: How the steps are carried out.
        out: Folder of the adapter, relative to the config.
    """

    model: str = "embedded:smollm2-135m-instruct"
    start: str | None = None
    lora: Lora = Lora()
    epochs: Positive = 3
    batch_size: Positive = 8
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    warmup: Share = 0.1
    max_tokens: Positive = 384
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    evaluations_per_epoch: Positive = 1
    patience: Positive = 1
    seed: int = 0
    training: Training = Training()
    out: str
