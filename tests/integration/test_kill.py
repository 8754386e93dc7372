"""kill -9 at any moment: the run goes on where it was, pays for nothing twice, and ends in the same bytes.

Moments are spread over a run by what it has done (requests that the server got, rows that the ledger holds), not by the
clock, so they fall on every stage however fast the machine is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import misbehaving
import pytest
import yaml
from forks import Forks
from misbehaving import Server, serve
from processor import needs_a_quick_processor

from safer_instruct.ledger import read_calls, read_totals
from safer_instruct.spent import Spent, read_spent

KILLS, KILLS_EMBEDDED = 50, 20
COMPARED = ("examples.parquet", "pairs.parquet", "pairs.jsonl", "rejected_rows.jsonl", "README.md", "run.yaml")
EMBEDDED = "smollm2-135m-instruct"
PRICE = (1.0, 2.0)
Moment = tuple[str, Callable[[], bool]]


def check_equal(out: Path, undisturbed: Path) -> dict[str, Any]:
    """Every file holds the same bytes; the summaries differ in nothing but their timing. Gives the summary."""
    for name in COMPARED:
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    killed, plain = (json.loads((path / "summary.json").read_text()) for path in (out, undisturbed))
    assert {k: v for k, v in killed.items() if k != "timing"} == {k: v for k, v in plain.items() if k != "timing"}
    assert not [f.name for f in out.iterdir() if f.name.endswith(".part")]
    with closing(sqlite3.connect(out / "ledger.sqlite")) as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert set(ledger_calls(out)) == set(ledger_calls(undisturbed))
    assert isinstance(killed, dict)
    return killed


def ledger_calls(out: Path) -> dict[bytes, tuple[str, bytes, float]]:
    """Key -> model, request, time of commit; of a ledger that may be in use, or not there yet."""
    if not (out / "ledger.sqlite").exists():
        return {}
    return {call.key: (call.model, call.request, call.finished_at) for call in read_calls(out / "ledger.sqlite")}


NOUNS = ["umbrella", "kettle", "parcel", "lamp", "cake", "card", "bicycle", "ticket", "tent", "ladder", "sofa", "piano", "garden", "window", "carpet"]
VERBS = ["broke", "bent", "melted", "vanished", "leaked", "cracked", "rusted", "froze", "burned", "sank", "shrank", "tore", "faded", "snapped"]


class TestOverHttp:
    """Inducer, expert and judge behind a server that counts what it is asked and what it answers, and what that costs."""

    CONCURRENCY = 8
    ROWS = 40

    def test_fifty_kills(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(misbehaving, "_text", misbehaving.text_of_a_judge(VERBS))
        out, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
        with serve(latency_s=0.01) as server, Forks(tmp_path / "said.txt") as forks:
            config = self.write_config(tmp_path, server)
            forks.finish(config, undisturbed)
            asked_once = server.requests
            assert asked_once == server.distinct and server.asked_twice == 0
            books = _Books(server, out)
            killed = 0
            for name, moment in self.moments(server, out, asked_once):
                killed += forks.run_until(moment, config, out)
                books.settle(name)
            forks.finish(config, out)
            books.settle("the end")
        print("answered twice, at each kill:", books.lost)
        assert killed >= KILLS - 2  # the last moments may fall on a run that has just ended
        summary = check_equal(out, undisturbed)
        assert summary["pairs"] > self.ROWS / 2 and summary["stages"]["filter"]["dropped"] and summary["set_aside"] == 1
        assert server.asked_twice - asked_once <= sum(books.lost)
        assert max(books.lost) <= books.most_in_flight

    def write_config(self, folder: Path, server: Server) -> Path:
        rng = random.Random(1)
        texts = [" ".join(f"{rng.choice(NOUNS)} {rng.choice(VERBS)} {rng.randrange(1000)}" for _ in range(6)) for _ in range(self.ROWS)]
        (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "{broken\n")
        (folder / "scorer.yaml").write_text(
            yaml.safe_dump(
                {
                    "score": [
                        {"match": f"### Instruction:\n({'|'.join(misbehaving._WORDS[:11])})", "logprob": -3.0},
                        {"match": "### Instruction", "logprob": -1.0},
                        {"logprob": -2.0},
                    ]
                }
            )
        )
        roles = {
            name: {"model": f"openai:{name}", "base_url": server.base_url, "concurrency": self.CONCURRENCY, "price_per_million": list(PRICE)}
            for name in ("inducer", "expert", "judge")
        }
        config = {
            "domain": "civility",
            "source": {"path": "texts.jsonl"},
            "models": {**roles, "scorer": "scripted:scorer.yaml"},
            "filter": {"prompt": {"language": None}},
            "verify": {"form": "question", "min_words": 1},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder / "config.yaml"

    def moments(self, server: Server, out: Path, asked_once: int) -> list[Moment]:
        """When to kill: as the run begins, at numbers of different requests spread over it, and as it writes its files."""
        rng = random.Random(20)
        base, before = server.requests, server.attempts.copy()

        def asked(count: int) -> Callable[[], bool]:
            first: list[int] = []

            def reached() -> bool:
                """Of what an undisturbed run asks so much has been asked by now, and something in this sitting."""
                first[:] = first or [server.requests]
                return server.requests > first[0] and sum(times > before[body] for body, times in server.attempts.copy().items()) >= count

            return reached

        def there(name: str) -> Callable[[], bool]:
            return lambda: any(out.glob(name))

        counts = sorted(rng.sample(range(2, asked_once), KILLS - 5))
        ends = [".examples.parquet.*.part", "rejected_rows.jsonl", "summary.json"]
        return [
            ("lock", there(".lock")),
            *((f"{count} requests", asked(count)) for count in counts),
            ("all answered", lambda: server.distinct + server.asked_twice - base >= asked_once and _all_answered_again(server)),
            *((name, there(name)) for name in ends),
        ]


def _all_answered_again(server: Server) -> bool:
    return min(server.good.copy().values()) >= 2


class _Books:
    """What must hold after every kill: no call whose answer stood in the ledger is ever asked again."""

    def __init__(self, server: Server, out: Path) -> None:
        self._server, self._out = server, out
        self._good_before, self._worked_before = server.good.copy(), _cost(server)
        self._saved: dict[str, int] = {}  # digest of a request in the ledger -> how often the server had been asked it by then
        self.lost: list[int] = []
        self.most_in_flight = 2 * max(16, 4 * TestOverHttp.CONCURRENCY)  # the windows of the two stages that call the server

    def settle(self, moment: str) -> None:
        """Compare the server's books with the ledger, when the last request of a killed process has been answered."""
        self._wait()
        again = {digest for digest, times in self._saved.items() if self._server.attempts[digest] != times}
        assert not again, f"by {moment}: {len(again)} calls that stood in the ledger were asked again"
        saved = {_digest(model, request) for model, request, _ in ledger_calls(self._out).values() if model.startswith("openai:")}
        assert all(self._server.good[digest] > self._good_before[digest] for digest in saved), f"by {moment}: the ledger holds what was never answered"
        answered = {digest for digest, times in self._server.good.items() if times > self._good_before[digest]}
        self.lost.append(len(answered - saved))
        self._saved = {digest: self._server.attempts[digest] for digest in saved}
        self._check_spent(moment)

    def _check_spent(self, moment: str) -> None:
        """What the run takes to be spent is never less than what it has answers for, nor than what the server has worked for it."""
        ledger = sum(total.usage.cost for total in read_totals(self._out / "ledger.sqlite")) if (self._out / "ledger.sqlite").exists() else 0.0
        spent = read_spent(self._out / "spent.json") or Spent()
        worked = _cost(self._server) - self._worked_before
        assert spent.cost > max(ledger, worked) - 1e-9, f"by {moment}: {spent.cost} USD recorded, {ledger} in the ledger, {worked} worked for"

    def _wait(self) -> None:
        quiet = 0
        while quiet < 5:
            time.sleep(0.01)
            quiet = 0 if self._server.in_flight else quiet + 1


def _cost(server: Server) -> float:
    return sum(read * PRICE[0] + written * PRICE[1] for read, written in server.worked.copy().values()) / 1e6


def _digest(model: str, request: bytes) -> str:
    """The server's name for the request of a ledger row, by the wire format."""
    _, asked = json.loads(request)
    sampling = asked["sampling"]
    body = {"model": model.removeprefix("openai:"), "messages": asked["prompt"], "seed": asked["seed"]}
    body |= {name: sampling[name] for name in ("max_tokens", "temperature", "n", "top_k")}
    if sampling["repetition_penalty"] != 1:
        body["repetition_penalty"] = sampling["repetition_penalty"]
    if model == "openai:inducer":
        body["logprobs"] = True
    if schema := asked.get("schema"):
        held = {"name": schema["name"], "schema": json.loads(schema["json"]), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": held}
    return hashlib.sha256(f"/v1/chat/completions\n{json.dumps(body, sort_keys=True)}".encode()).hexdigest()


def _embedded_missing() -> str:
    """Why the embedded model cannot run here; empty when it can."""
    missing = [name for name in ("ctranslate2", "tokenizers", "gguf", "numpy") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (extra 'local')"
    from safer_instruct.models import store

    pulled = EMBEDDED in {record.name for record in store.pulled()}
    return "" if pulled else f"the model is not in the cache (safer-instruct models pull {EMBEDDED})"


TEXTS = [
    "Blister packs come in strips of fourteen and your prescription says twenty-eight, so two strips. Look inside the box again before you shout.",
    "The engineer knocked at 8:05 and you were in the shower. He has nine other houses full of people who stay dry for a morning.",
    "You rang at two in the morning, locked out in your slippers, and now the bill is a shock? Remember your keys, then.",
    "A birthday cake for thirty people needs two days. You gave us two hours and you want it to be beautiful as well.",
    "The tent leaks because you put it up in a river. Read the leaflet, it has pictures for people like you.",
    "Your bicycle makes a noise because you have not oiled it since you bought it. We are mechanics, not magicians.",
]


@needs_a_quick_processor
@pytest.mark.skipif(bool(_embedded_missing()), reason=_embedded_missing())
class TestEmbedded:
    """The same with a real language model in this machine's own processor, in every role."""

    def test_twenty_kills(self, tmp_path: Path) -> None:
        config, out, undisturbed = self.write_config(tmp_path), tmp_path / "killed", tmp_path / "undisturbed"
        with Forks(tmp_path / "said.txt") as forks:
            seconds = forks.finish(config, undisturbed)
            rows = len(ledger_calls(undisturbed))
            kept: dict[bytes, float] = {}
            for count in sorted(random.Random(21).sample(range(1, rows), KILLS_EMBEDDED)):
                before = len(ledger_calls(out))
                assert forks.run_until(_Rows(out, max(count, before)), config, out)
                calls = {key: when for key, (_, _, when) in ledger_calls(out).items()}
                assert kept.items() <= calls.items()  # an answer once committed stays, and is never made again
                kept = calls
            last = forks.finish(config, out)
        print(f"undisturbed {seconds:.1f} s for {rows} calls; the last of {KILLS_EMBEDDED + 1} runs {last:.1f} s")
        summary = check_equal(out, undisturbed)
        assert summary["rows"] == len(TEXTS) and summary["pairs"] > 0  # how many is up to the int8 kernels of the processor
        answers = [self.answers(path) for path in (out, undisturbed)]
        assert answers[0] == answers[1]

    def write_config(self, folder: Path) -> Path:
        (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        model = f"embedded:{EMBEDDED}"
        config = {
            "domain": "civility",
            "source": {"path": "texts.jsonl"},
            "models": {"inducer": model, "expert": model, "scorer": model},
            "induce": {"candidates": 4, "max_tokens": 24},
            "filter": {"prompt": None, "consistency": {"min_gain": -9.0}, "near_duplicate": None},
            "respond": {"drafts": 2, "max_tokens": 24},
            "verify": {"min_contrast": -9.0, "min_margin": -9.0, "min_words": 1},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder / "config.yaml"

    def answers(self, out: Path) -> dict[bytes, tuple[bytes, int, int, float]]:
        """Every answer in the ledger, with its usage but for the seconds it took."""
        return {c.key: (c.answer, c.usage.prompt_tokens, c.usage.completion_tokens, c.usage.cost) for c in read_calls(out / "ledger.sqlite")}


class _Rows:
    """True once the ledger holds so many rows, and this process has begun."""

    def __init__(self, out: Path, count: int) -> None:
        self._out, self._count = out, count

    def __call__(self) -> bool:
        time.sleep(0.01)
        return len(ledger_calls(self._out)) >= self._count
