"""Several processes before one endpoint with a limit, in simulated time: what is rejected when they share what they learn, and when they do not.

    .venv-dev/bin/python bench/sharing.py
    .venv-dev/bin/python bench/sharing.py --callers 2 8 --seconds 240

Each has 64 calls in flight at most and asks with all its might; an answer takes 0.5 to 1.5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulated import Bucket, Server, Sliding, drive, now, run, stop

from safer_instruct.models.flow import Flow, Limits
from safer_instruct.models.sharing import Shares

EVERY_S = 0.25
SERVERS: dict[str, Callable[[], Server]] = {
    "20 a second": lambda: Server(Bucket(20, 20)),
    "20 a second, with `Retry-After`": lambda: Server(Bucket(20, 20), retry_after=True),
    "200 a second": lambda: Server(Bucket(200, 200)),
    "600 in any minute, with `Retry-After`": lambda: Server(Sliding(600), retry_after=True),
    "200 a second, and 3% of all calls get 429 by chance": lambda: Server(Bucket(200, 200), chance={429: 0.03}),
}


async def crowd(server: Server, callers: int, seconds: float, *, together: bool) -> None:
    flows = [Flow("openai:m at https://api.example.com/v1", Limits(concurrency=64), rng=random.Random(number)) for number in range(callers)]
    shares = Shares()

    async def share(flow: Flow) -> None:
        while True:
            flow.heed(shares.tell(str(id(flow)), [flow.lesson()], now())[0])
            await asyncio.sleep(EVERY_S)

    sharing = [asyncio.create_task(share(flow)) for flow in flows] if together else []
    await asyncio.gather(*(drive(flow, server, seconds) for flow in flows))
    await stop(sharing)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--callers", type=int, nargs="+", default=[8])
    parser.add_argument("--seconds", type=float, default=240)
    options = parser.parse_args()
    print("| the endpoint takes | processes | apart: answers/s | rejected | together: answers/s | rejected |\n|---|---|---|---|---|---|")
    for name, make in SERVERS.items():
        for callers in options.callers:
            cells = []
            for together in (False, True):
                server = make()
                run(crowd(server, callers, options.seconds, together=together))
                cells += [f"{len(server.answered) / options.seconds:.1f}", f"{server.share_rejected:.1%}"]
            print(f"| {name} | {callers} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
