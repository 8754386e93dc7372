"""`tune` on several processes: the same command, started by `accelerate launch` with a config that ships with the package."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Literal

from safer_instruct.errors import ConfigError
from safer_instruct.extras import require

Sharding = Literal["fsdp", "none"]
_FILES = {"fsdp": "fsdp.yaml", "none": "ddp.yaml"}


def command(config: Path, processes: int, sharding: Sharding) -> list[str]:
    """The command line that tunes as `config` says on `processes` GPUs of this machine, or on processor cores where there is none.

    Raises:
        ConfigError: There are fewer GPUs.
        MissingExtraError: The extra `train` is not installed.
    """
    torch = require("torch", extra="train", purpose="tuning")
    require("accelerate", extra="train", purpose="tuning on several devices")
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise ConfigError(f"--launch {processes}: {gpus} GPUs are visible here; say --launch {gpus}")
    file = str(resources.files("safer_instruct.tuning") / "accelerate" / _FILES[sharding])
    return [
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, "--num_processes", str(processes)),
        *("-m", "safer_instruct.cli", "tune", str(config)),
    ]


def launch(config: Path, processes: int, sharding: Sharding) -> int:
    """Run `command`; its output is the processes'.

    Returns:
        The exit code.

    Raises:
        ConfigError: As `command`.
    """
    return subprocess.run(command(config, processes, sharding), check=False).returncode
