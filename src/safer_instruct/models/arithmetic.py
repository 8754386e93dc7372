"""In which numbers the embedded engine computes on this machine."""

from __future__ import annotations

import platform
from contextlib import suppress
from functools import cache
from pathlib import Path


@cache
def arithmetic() -> str:
    """`arithmetic_of` this machine; where nothing tells what its processor can do (not Linux), that is `float32`."""
    said = ""
    with suppress(OSError):
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return arithmetic_of(platform.machine(), said)


def arithmetic_of(machine: str, processor: str) -> str:
    """`int8` where a processor adds up products of 8 bits in 32, else `float32`.

    x86 processors without VNNI add two of them in 16 bits, where they overflow (oneDNN, "Nuances of int8 Computations"); how far off that is:
    `bench/arithmetic.py`.
    """
    return "int8" if machine.lower() not in ("x86_64", "amd64") or "avx512_vnni" in processor else "float32"
