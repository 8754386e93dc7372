"""How often texts without a category are routed to the right one, and how fast: keywords and static vectors, at several bounds.

python bench/routing.py
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from safer_instruct.domain import load_domain
from safer_instruct.routing import Router
from safer_instruct.settings.route import RouteConfig

ROOT = Path(__file__).parents[1]
HALF = 2  # of the labelled texts every second one may be shown to a router, and the others are routed


@dataclass(frozen=True)
class Case:
    """A way of routing the texts of a domain."""

    domain: str
    name: str
    config: RouteConfig
    shown: bool = False


def main() -> None:
    print("| domain | by | texts | routed | right, of the routed | of all | texts/s |\n|---|---|---|---|---|---|---|")
    for case in cases():
        print(row(case), flush=True)


def cases() -> list[Case]:
    routed = yaml.safe_load((ROOT / "examples/overclaiming/routed.yaml").read_text("utf-8"))["source"]["route"]
    found = [
        Case("overclaiming", "keywords, lead 1", RouteConfig.model_validate_json(json.dumps(routed))),
        Case("overclaiming", "keywords, lead 0", RouteConfig.model_validate_json(json.dumps({**routed, "lead": 0}))),
    ]
    for domain in ("overclaiming", "safety"):
        for least in (0.0, 0.1, 0.2):
            found.append(Case(domain, f"static vectors, least {least:g}", RouteConfig(by="embedding", least=least)))
        for least, lead in ((0.0, 0.0), (0.1, 0.05)):
            name = f"static vectors and every second text, least {least:g}, lead {lead:g}"
            found.append(Case(domain, name, RouteConfig(by="embedding", least=least, lead=lead, examples="shown.jsonl"), shown=True))
    return found


def row(case: Case) -> str:
    """One line of the table."""
    rows = [json.loads(line) for line in (ROOT / "examples" / case.domain / "texts.jsonl").read_text("utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as base:
        (Path(base) / "shown.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[::HALF]), encoding="utf-8")
        router = Router(case.config, load_domain(case.domain), Path(base))
    rows = rows[1::HALF] if case.shown else rows
    found = [router.route(r["text"]) for r in rows]
    routed = [(category, r["category"]) for (category, verdict), r in zip(found, rows, strict=True) if verdict.passed]
    right = sum(one == other for one, other in routed)
    share = f"{right / len(routed):.2f}" if routed else ""
    return f"| {case.domain} | {case.name} | {len(rows)} | {len(routed)} | {share} | {right / len(rows):.2f} | {speed(router)} |"


def speed(router: Router) -> str:
    """Texts of 40 words a second, of processor time, each another one."""
    words = (ROOT / "bench" / "data" / "languages.txt").read_text("utf-8").split()
    texts = [" ".join(words[(at * 37) % 2_000 :][:40]) for at in range(3_000)]
    began = time.process_time()
    for text in texts:
        router.route(text)
    return f"{len(texts) / (time.process_time() - began):,.0f}"


if __name__ == "__main__":
    sys.exit(main())
