"""Reversed instruction tuning: torch and PEFT on the embedded model's weights, and back into the embedded engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processor import needs_a_quick_processor

pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("peft", reason="the extra train is not installed")

from safer_instruct.config import Holdout, PairSource, TuneConfig, load_tune_config
from safer_instruct.errors import ConfigError
from safer_instruct.models import adapter_path, open_model, store
from safer_instruct.models.adapterfiles import adapter_digest
from safer_instruct.models.codec import Codec
from safer_instruct.models.convert import convert
from safer_instruct.models.embedded import EmbeddedModel
from safer_instruct.tuning.bases import load_base
from safer_instruct.tuning.data import prepare
from safer_instruct.tuning.loss import Encoded, evaluate
from safer_instruct.tuning.prompting import load_prompting
from safer_instruct.tuning.tune import embedded_loss, encoder, tune

EXAMPLES = Path(__file__).parents[2] / "examples"


def held_out(config_name: str, codec: Codec, count: int) -> list[Encoded]:
    config = load_tune_config(EXAMPLES / config_name)
    pairs = prepare(config.data, config.clean, config.holdout, EXAMPLES).held_out
    encode = encoder(codec, load_prompting(config, EXAMPLES), config.max_tokens)
    return [encode(p) for p in pairs[:count]]


@needs_a_quick_processor
@pytest.mark.parametrize(("config_name", "adapter"), [("tune-embedded-2.yaml", "civility-inducer"), ("tune-expert.yaml", "civility-expert")])
def test_the_shipped_adapter_gives_the_same_losses_in_torch_and_in_the_embedded_engine(
    config_name: str, adapter: str, embedded_name: str, tmp_path: Path
) -> None:
    """Float32 weights agree to rounding; int8 weights within the quantisation error."""
    import ctranslate2
    from peft import PeftModel

    folder = adapter_path(adapter, Path())
    codec = Codec(store.converted(embedded_name)[0])
    pairs = held_out(config_name, codec, 8)
    base = load_base(embedded_name)
    untuned = evaluate(base, pairs, step=0).loss
    tuned = evaluate(PeftModel.from_pretrained(base, folder), pairs, step=0).loss
    assert tuned < untuned - 0.3
    assert embedded_loss(EmbeddedModel(embedded_name), pairs) == pytest.approx(untuned, abs=0.2)
    assert embedded_loss(EmbeddedModel(embedded_name, folder), pairs) == pytest.approx(tuned, abs=0.1)

    (tmp_path / "float32").mkdir()
    convert(store.gguf_path(embedded_name), tmp_path / "float32", adapter=folder, quantization="float32")
    engine = ctranslate2.Generator(str(tmp_path / "float32"), compute_type="float32")
    values = [v for p in pairs for v in engine.score_batch([codec.tokens([*p.prompt, *p.completion])])[0].log_probs[len(p.prompt) - 1 :]]
    assert -sum(values) / len(values) == pytest.approx(tuned, abs=0.005)


@needs_a_quick_processor
def test_tuning_writes_an_adapter_that_the_engine_opens(tmp_path: Path, embedded_name: str) -> None:
    rows = [
        {"prompt": f"My {thing} is broken.", "response": f"So your {thing} broke. How sad.", "group": thing}
        for thing in ["lamp", "kettle", "radio", "clock", "bell", "drum"]
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    config = TuneConfig(
        data=(PairSource(path="pairs.jsonl", group="group"),),
        holdout=Holdout(groups=("lamp", "bell")),
        epochs=2,
        batch_size=2,
        learning_rate=2e-3,
        dtype="float32",
        out="adapter",
    )
    steps: list[int] = []
    result = tune(config, tmp_path, lambda progress: steps.append(progress.step))
    assert sorted(set(steps)) == [0, 1, 2, 3, 4]
    assert (result.train_pairs, result.held_out_pairs) == (4, 2)
    assert result.after < result.before
    assert result.embedded == pytest.approx(result.after, abs=0.1)
    record = json.loads((result.adapter / "tuning.json").read_text(encoding="utf-8"))
    assert record["best"]["loss"] == result.after
    assert (result.adapter / "README.md").read_text(encoding="utf-8").startswith("# Adapter")

    again = tune(config.model_copy(update={"start": "adapter", "out": "more", "epochs": 1}), tmp_path)
    more = json.loads((again.adapter / "tuning.json").read_text(encoding="utf-8"))
    assert again.before == pytest.approx(result.before, abs=1e-4), "the base model's"
    assert more["evaluations"][1]["loss"] == pytest.approx(result.after, abs=0.01), "it goes on where the first adapter was, half precision aside"
    assert again.after < result.after and more["start_sha256"] == adapter_digest(result.adapter)
    assert "Started from: adapter `adapter`" in (again.adapter / "README.md").read_text(encoding="utf-8")


def test_an_adapter_asked_with_another_template_is_refused(tmp_path: Path, embedded_name: str) -> None:
    from safer_instruct import load_config, run

    (tmp_path / "other.j2").write_text("Which question does this answer?\n{{ response }}\n", encoding="utf-8")
    (tmp_path / "d.jsonl").write_text('{"text": "A reply."}\n', encoding="utf-8")
    models = "{inducer: {model: 'embedded:smollm2-135m-instruct', adapter: civility-inducer}, expert: 'scripted:', scorer: 'scripted:'}"
    (tmp_path / "c.yaml").write_text(f"domain: civility\nsource: {{path: d.jsonl}}\nmodels: {models}\ninduce: {{template: other.j2}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tuned with template reverse\.j2"):
        run(load_config(tmp_path / "c.yaml"), tmp_path / "out")


def test_an_unknown_adapter_is_named_with_those_there_are() -> None:
    from safer_instruct.config import ModelConfig

    with pytest.raises(ConfigError, match=r"adapter 'nope'.*civility-expert, civility-inducer"):
        open_model(ModelConfig(model="embedded:smollm2-135m-instruct", adapter="nope"), Path())
