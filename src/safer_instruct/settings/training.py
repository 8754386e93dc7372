"""What a tuning config can say of how the training is carried out, as opposed to what is learned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from safer_instruct.yamlfile import Strict

Positive = Annotated[int, Field(gt=0)]


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
