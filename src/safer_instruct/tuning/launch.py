"""A training on several processes: the same command, started by `accelerate launch` with a config that ships with the package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from safer_instruct.errors import ConfigError
from safer_instruct.extras import require

_FILES = {"fsdp": "fsdp.yaml", "none": "ddp.yaml"}


def command(config: Path, processes: int, sharding: str, verb: Sequence[str] = ("tune",)) -> list[str]:
    """The command line that trains as `config` says on `processes` GPUs of this machine, or on processor cores where there is none.

    Raises:
        ConfigError: There are fewer GPUs, or no such sharding.
        MissingExtraError: The extra `train` is not installed.
    """
    if sharding not in _FILES:
        raise ConfigError(f"--sharding '{sharding}': write one of {', '.join(_FILES)}")
    torch = require("torch", extra="train", purpose="tuning")
    require("accelerate", extra="train", purpose="tuning on several devices")
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise ConfigError(f"--launch {processes}: {gpus} GPUs are visible here; say --launch {gpus}")
    file = str(resources.files("safer_instruct.tuning") / "accelerate" / _FILES[sharding])
    return [
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, "--num_processes", str(processes)),
        *("-m", "safer_instruct.cli", *verb, str(config)),
    ]


def launch(config: Path, processes: int, sharding: str, verb: Sequence[str] = ("tune",)) -> int:
    """Run `command`; its output is the processes'.

    Returns:
        The exit code.

    Raises:
        ConfigError: As `command`.
    """
    return subprocess.run(command(config, processes, sharding, verb), check=False).returncode


def is_first() -> bool:
    """Whether this process is alone, or the first of several: the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined() -> Iterator[None]:
    """Leaves the group of processes at the end, where there is one."""
    try:
        yield
    finally:
        if "RANK" in os.environ:
            import torch

            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
