"""How fast an endpoint that fails by chance is used, and whether a real rate limit is still found, in simulated time.

    PYTHONPATH=tests python bench/faults.py [SECONDS]

Each line: good answers a second over all of the time (default 120 simulated seconds for failures by chance, ten times that
for limits) and over its second half, and the share of calls that the limit rejected. The machine has no say in the figures.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from simulated import Bucket, Fixed, Server, Sliding, drive, run

from safer_instruct.models.flow import Flow, Limits


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    issue: dict[int | None, float] = {500: 0.27, 429: 0.10, None: 0.05}  # broken answers fail as 500 does
    for name, chance, retry_after in (
        ("all faults of the issue", issue, ("1", "2", "5")),
        ("all, Retry-After 30", issue, ("30",)),
        ("429: 10%", {429: 0.1}, ()),
        ("429: 25%", {429: 0.25}, ()),
        ("503: 10%", {503: 0.1}, ()),
        ("503: 25%", {503: 0.25}, ()),
        ("no answer: 10%", {None: 0.1}, ()),
        ("none", {}, ()),
    ):
        show(name, Server(chance=chance, chance_retry_after=retry_after, latency_s=lambda n, rng: rng.uniform(0.05, 0.15)), seconds, 64)
    print()
    limiters: dict[str, Callable[[], Sliding | Fixed | Bucket]] = {
        "bucket of 3": lambda: Bucket(200 / 60, 3),
        "bucket of 100": lambda: Bucket(200 / 60, 100),
        "any minute": lambda: Sliding(200),
        "each minute": lambda: Fixed(200),
    }
    for name, limiter in limiters.items():
        for retry_after in (False, True):
            told = ", Retry-After" if retry_after else ""
            show(f"200 a minute, {name}{told}", Server(limiter(), retry_after=retry_after), 10 * seconds, 32)
    show("the same bucket of 100, and 10% of 429", Server(Bucket(200 / 60, 100), chance={429: 0.1}), 10 * seconds, 32)


def show(name: str, server: Server, seconds: float, concurrency: int) -> None:
    run(drive(Flow("endpoint", Limits(concurrency=concurrency), rng=random.Random(3)), server, seconds))
    half = sum(at > 1000 + seconds / 2 for at in server.answered) / (seconds / 2)
    print(f"{name:48} {len(server.answered) / seconds:8.2f}/s {half:8.2f}/s {server.share_rejected:6.1%} rejected", flush=True)


if __name__ == "__main__":
    main()
