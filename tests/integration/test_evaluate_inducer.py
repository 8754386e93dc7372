"""An evaluation of real inducers: the embedded model with and without the shipped adapter, on pairs of the shipped tuning data."""

from __future__ import annotations

from pathlib import Path

import yaml

from safer_instruct.evaluation.inducer import evaluate_inducers, load_plan
from safer_instruct.models import adapter_path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_shipped_inducer_beats_its_base_on_pairs_that_it_was_not_tuned_on(tmp_path: Path, embedded_name: str) -> None:
    config = {
        "data": [{"path": str(EXAMPLES / "tune" / "civility-plain.jsonl"), "prompt": "ask", "response": "rude", "group": "trade"}],
        "holdout": {"groups": ["dentist", "museum"]},
        "systems": {
            "base": {"model": f"embedded:{embedded_name}"},
            "tuned": {"model": {"model": f"embedded:{embedded_name}", "adapter": str(adapter_path("civility-inducer", Path()))}},
        },
        "limit": 3,
        "distractors": 3,
        "max_tokens": 32,
        "max_response_chars": 60,
        "resamples": 200,
    }
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    plan = load_plan(tmp_path / "e.yaml")
    result = evaluate_inducers(plan, tmp_path / "out")
    base, tuned = result.systems["base"], result.systems["tuned"]
    assert base.nll and tuned.nll and tuned.nll.estimate < 0.8 * base.nll.estimate
    assert base.chrf and tuned.chrf and tuned.chrf.estimate > base.chrf.estimate
    assert tuned.gain_rank.estimate < 2
    again = evaluate_inducers(plan, tmp_path / "out")
    assert again.from_ledger == again.calls and again.systems == result.systems
