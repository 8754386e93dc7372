"""Seeds that depend on what is drawn, never on order or timing."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *parts: object) -> int:
    """A seed in [0, 2**31) for one draw, from the run's seed and whatever names the draw."""
    digest = hashlib.sha256(repr((seed, *parts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1
