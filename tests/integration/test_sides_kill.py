"""kill -9 at any moment of a run with twins and rewritten rejected responses: it ends in the same bytes, and no call is made twice."""

from __future__ import annotations

from pathlib import Path

from forks import Forks
from test_kill import check_equal, ledger_calls
from test_sides_run import Bench

from safer_instruct.ledger import read_calls

KILLS = 8


def test_every_moment_of_it_can_be_the_last(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.config |= {"twins": {"share": 0.5, "model": "rewriter", "refuser": "rewriter"}, "rejected": {"form": "matched", "model": "rewriter"}}
    config, out, undisturbed = bench.write(latency_s=0.03), tmp_path / "killed", tmp_path / "undisturbed"
    killed_among_twins = 0
    with Forks(tmp_path / "said.txt") as forks:
        forks.finish(config, undisturbed)
        rows = len(ledger_calls(undisturbed))
        kept: dict[bytes, float] = {}
        for number in range(1, KILLS + 1):
            forks.run_until(lambda count=rows * number // (KILLS + 1): len(ledger_calls(out)) >= count, config, out)  # type: ignore[misc]
            calls = {key: when for key, (_, _, when) in ledger_calls(out).items()}
            assert kept.items() <= calls.items()  # what was committed stays, and is never asked again
            kept = calls
            killed_among_twins += len(calls) < rows and any(call.stage.startswith("twins.") for call in read_calls(out / "ledger.sqlite"))
        forks.finish(config, out)
    summary = check_equal(out, undisturbed)
    assert killed_among_twins >= 1
    assert summary["twins"]["out"] > 5 and summary["rejected"]["replaced"] == summary["pairs"] == 40
