"""Training through TRL on tiny models: what is learned, what survives a kill, and what several processes agree on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("trl", reason="the extra train is not installed")

import tiny_models
from killed import killed_after_each

from safer_instruct.cli import main
from safer_instruct.config import load_tune_config
from safer_instruct.errors import ConfigError, RunDirectoryError
from safer_instruct.training.aside import set_aside
from safer_instruct.tuning import launch
from safer_instruct.tuning.bases import open_base
from safer_instruct.tuning.loss import Encoded, completion_nll, evaluate
from safer_instruct.tuning.order import bucketed
from safer_instruct.tuning.progress import Progress
from safer_instruct.tuning.train import micro_batch
from safer_instruct.tuning.tune import TuneResult, _prepare, _save_record, dry_run, tune

THINGS = [
    "lamp",
    "kettle",
    "radio",
    "clock",
    "bell",
    "drum",
    "umbrella",
    "parcel",
    "late parcel",
    "broken bell",
    "red lamp",
    "old radio",
    "kettle lid",
    "clock hand",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Llama in base/, pairs of different lengths, and a config."""
    tiny_models.save_tiny("llama", tmp_path / "base")
    rows = [{"prompt": f"My {t} is broken.", "response": f"So your {t} broke. How sad. " * (i % 4 + 1), "group": t} for i, t in enumerate(THINGS)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return tmp_path


def write_config(folder: Path, name: str = "c", **more: Any) -> Path:
    given = {
        "model": "base",
        "dtype": "float32",  # what is compared agrees to rounding
        "data": [{"path": "pairs.jsonl", "group": "group"}],
        "holdout": {"groups": ["lamp", "bell"]},
        "lora": {"rank": 4, "dropout": 0.1},
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.01,
        "patience": 9,
        "out": name,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(given | more), encoding="utf-8")
    return path


def tuned(folder: Path, name: str = "c", **more: Any) -> tuple[TuneResult, list[Progress]]:
    seen: list[Progress] = []
    return tune(load_tune_config(write_config(folder, name, **more)), folder, seen.append), seen


def weights(adapter: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(next(adapter.glob("*.safetensors")))


def losses(seen: list[Progress]) -> dict[int, float]:
    return {p.step: p.loss for p in seen if p.step and not p.resumed}


def test_the_loss_is_that_of_the_completions_alone_and_falls(folder: Path) -> None:
    path = write_config(folder, lora={"rank": 4})
    ready = _prepare(load_tune_config(path), folder)
    first = [ready.train[i] for i in bucketed([e.length for e in ready.train], 4, 0, 0)[:4]]
    base = ready.model.load()
    result, seen = tuned(folder, lora={"rank": 4})
    assert losses(seen)[1] == pytest.approx(float(completion_nll(base, first).mean()), abs=1e-4), "the adapter begins as nothing"
    assert result.before == pytest.approx(evaluate(base, ready.held_out, step=0).loss, abs=1e-5)
    assert result.after < result.before - 0.5
    assert (result.adapter / "tuning.json").is_file() and not (result.adapter / "checkpoints").exists()


def test_a_tuning_that_has_finished_is_not_made_again_and_another_is_not_written_over(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, _ = tuned(folder)
    weights_then = (first.adapter / "adapter_model.safetensors").stat().st_mtime_ns
    again, seen = tuned(folder)
    assert again.already and seen == [] and (again.before, again.after, again.train_pairs) == (first.before, first.after, first.train_pairs)
    with pytest.raises(RunDirectoryError, match=r"c holds a training of another config: epochs: 2, now 1\. Add --fresh to move it aside"):
        tuned(folder, epochs=1)
    with pytest.raises(RunDirectoryError, match="another config: template: reverse, now reverse-chat"):
        tuned(folder, template="reverse-chat")
    assert (first.adapter / "adapter_model.safetensors").stat().st_mtime_ns == weights_then
    for arguments in ([], ["--fresh"]):
        with pytest.raises(SystemExit) as stopped:
            main(["tune", str(write_config(folder)), *arguments])
        assert not stopped.value.code
        assert ("finished already" in capfd.readouterr().out) is not bool(arguments)
    assert (folder / "c" / "previous-1" / "adapter_model.safetensors").stat().st_mtime_ns == weights_then
    assert (folder / "c" / "adapter_model.safetensors").is_file()


def test_a_tuning_holds_its_folder_so_that_nobody_moves_its_checkpoints_away(folder: Path) -> None:
    refused = []

    def report(progress: Progress) -> None:
        if (folder / "c" / "checkpoints").is_dir():
            with pytest.raises(RunDirectoryError, match=rf"c is in use by process {os.getpid()}; wait for it, stop it"):
                set_aside(folder / "c")
            with pytest.raises(RunDirectoryError, match="is in use by process"):
                tuned(folder)
            refused.append(progress)

    result = tune(load_tune_config(write_config(folder)), folder, report)
    assert refused and not (folder / "c" / "previous-1").exists()
    set_aside(result.adapter)
    assert (folder / "c" / "previous-1" / "tuning.json").is_file()


def test_a_record_says_that_a_tuning_has_finished_so_it_is_written_whole_and_last(folder: Path) -> None:
    result, _ = tuned(folder)
    record = json.loads((result.adapter / "tuning.json").read_text("utf-8"))
    seen = []

    def prepare() -> None:
        for name in ("tuning.json", "README.md"):
            (result.adapter / name).unlink(missing_ok=True)

    for _ in killed_after_each(lambda: _save_record(result.adapter, record), prepare):
        seen.append([(result.adapter / name).is_file() for name in ("README.md", "tuning.json")])
    assert seen == [[True, False], [True, True]] and json.loads((result.adapter / "tuning.json").read_text("utf-8")) == record


def test_padding_changes_no_loss() -> None:
    """Sequences of one batch end together; each gives what it gives alone."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=50, **tiny_models.SHAPE)).eval()
    pairs = [Encoded(tuple(range(3, 3 + n)), tuple(range(1, 1 + k)), "s") for n, k in ((2, 3), (17, 1), (5, 8))]
    with torch.no_grad():
        alone = torch.cat([completion_nll(model, [p]) for p in pairs])
        assert torch.allclose(completion_nll(model, pairs), alone, atol=1e-5)
        full = model(torch.tensor([pairs[2].prompt + pairs[2].completion])).logits[0].log_softmax(-1)
        expected = [-float(full[4 + i, t]) for i, t in enumerate(pairs[2].completion)]
    assert alone[-8:].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(folder: Path) -> None:
    import numpy as np

    first, again, other = (weights(tuned(folder, f"run{i}", seed=seed)[0].adapter) for i, seed in enumerate((3, 3, 4)))
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert any(not np.array_equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("training", [{"micro_batch": 1}, {"batching": "packed"}, {"gradient_checkpointing": True}], ids=str)
def test_how_the_steps_are_carried_out_changes_no_loss(folder: Path, training: dict[str, Any]) -> None:
    """Also packed: no sequence sees another that lies in the same row."""
    plain, other = (losses(tuned(folder, f"run{i}", lora={"rank": 4}, training=t)[1]) for i, t in enumerate(({}, training)))
    assert other == pytest.approx(plain, abs=2e-3)


def test_a_killed_run_ends_as_an_undisturbed_one(folder: Path) -> None:
    """kill -9 between two checkpoints, with dropout, so that the random state matters too."""
    import numpy as np

    more: dict[str, Any] = {"epochs": 6, "training": {"save_steps": 4}}
    undisturbed, seen = tuned(folder, "undisturbed", **more)
    path = write_config(folder, "killed", **more)
    program = "import sys\nfrom safer_instruct.config import load_tune_config\nfrom safer_instruct.tuning.tune import tune\nfrom pathlib import Path\n"
    program += "p = Path(sys.argv[1])\ntune(load_tune_config(p), p.parent, lambda s: print('STEP', s.step, flush=True))\n"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.split() == ["STEP", "9"]:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL and not (folder / "killed" / "tuning.json").exists()
    with pytest.raises(RunDirectoryError, match="killed holds checkpoints of a training that has not ended, and of another config, other data"):
        tuned(folder, "killed", **more, seed=1)
    resumed, rest = tuned(folder, "killed", **more)
    first = min(losses(rest))
    assert 4 < first <= 10, "it went on, and did not begin anew"
    assert rest[0].resumed and rest[0].step == first - 1, "and tells from where"
    assert losses(rest) == {step: loss for step, loss in losses(seen).items() if step >= first}
    assert resumed.after == undisturbed.after
    one, two = weights(undisturbed.adapter), weights(resumed.adapter)
    assert all(np.array_equal(one[k], two[k]) for k in one)
    records = [json.loads((r.adapter / "tuning.json").read_text("utf-8")) for r in (undisturbed, resumed)]
    assert records[0]["evaluations"] == records[1]["evaluations"]


def test_a_checkpoint_that_was_cut_short_is_not_taken_up(folder: Path) -> None:
    from safer_instruct.tuning.train import _last_whole

    for step, state in ((2, '{"a": 1}'), (10, '{"a": 1'), (9, '{"a": 1}')):
        (folder / f"checkpoint-{step}").mkdir()
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (folder / "checkpoint-12").mkdir()
    assert _last_whole(folder) == str(folder / "checkpoint-9")
    assert _last_whole(folder / "none") is None


def test_training_stops_early_and_keeps_the_best(folder: Path) -> None:
    result, seen = tuned(folder, learning_rate=1.0, epochs=20, patience=1, warmup=0.0)
    record = json.loads((result.adapter / "tuning.json").read_text("utf-8"))
    found = [e["loss"] for e in record["evaluations"]]
    assert max(losses(seen)) < 60 and result.after == min(found) == record["best"]["loss"]
    ready = _prepare(load_tune_config(folder / "c.yaml"), folder)
    from peft import PeftModel

    kept = PeftModel.from_pretrained(ready.model.load(), result.adapter)
    assert evaluate(kept, ready.held_out, step=0).loss == pytest.approx(result.after, abs=5e-3), "half precision aside"


def test_full_tuning_writes_a_model_that_is_a_base(folder: Path) -> None:
    result, _ = tuned(folder, training={"method": "full"}, learning_rate=0.003)
    assert result.after < result.before - 0.5
    ready = _prepare(load_tune_config(folder / "c.yaml"), folder)
    again = open_base("c", folder)
    assert evaluate(again.load(), ready.held_out, step=0).loss == pytest.approx(result.after, abs=0.05), "bfloat16"
    assert again.codec.prompt("So your lamp broke.") == ready.model.codec.prompt("So your lamp broke.")


def test_two_processes_learn_what_one_does(folder: Path) -> None:
    import numpy as np

    one, _ = tuned(folder, "one", lora={"rank": 4})
    path = write_config(folder, "two", lora={"rank": 4})
    command = launch.command(path, 2, "none")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("pairs trained on") == 1, "only the first process speaks"
    record = json.loads((folder / "two" / "tuning.json").read_text("utf-8"))
    assert record["best"]["loss"] == pytest.approx(one.after, abs=1e-3)
    single, double = weights(one.adapter), weights(folder / "two")
    assert all(np.allclose(single[k], double[k], atol=2e-3) for k in single)


def test_the_shipped_configs_are_what_accelerate_reads() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    fsdp, ddp = (load_config_from_file(launch.command(Path("c.yaml"), 2, kind)[4]) for kind in ("fsdp", "none"))
    assert fsdp.distributed_type == "FSDP" and fsdp.fsdp_config["fsdp_version"] == 2
    assert ddp.distributed_type == "MULTI_GPU"
    with pytest.raises(ConfigError, match="--sharding 'zero': write one of fsdp, none"):
        launch.command(Path("c.yaml"), 2, "zero")


def test_a_dry_run_counts_everything_and_writes_nothing(folder: Path) -> None:
    config = load_tune_config(write_config(folder, epochs=3))
    before = sorted(folder.rglob("*"))
    started = time.monotonic()
    found = dry_run(config, folder)
    ready = _prepare(config, folder)
    assert (found.prompt_tokens, found.completion_tokens) == (sum(len(e.prompt) for e in ready.train), sum(len(e.completion) for e in ready.train))
    assert found.steps == 9 and found.micro_batch == 4
    assert 0.2 < found.memory_gb < 8 and found.seconds > 0 and found.tokens_per_s > (found.prompt_tokens / (time.monotonic() - started)) / 100
    assert found.measured == 2
    few = dry_run(config.model_copy(update={"batch_size": 64}), folder)
    assert few.steps == 3 and few.measured == 2 and few.tokens_per_s > 0, "one step an epoch is no measure, so its rows come again"
    assert sorted(folder.rglob("*")) == before


def test_what_cannot_be_done_here_is_said(folder: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"'qlora' needs a CUDA GPU.*use 'lora'"):
            tuned(folder, training={"method": "qlora"})
    config = load_tune_config(write_config(folder, training={"micro_batch": 3}))
    with pytest.raises(ConfigError, match="micro_batch 3 does not divide the 4 sequences"):
        micro_batch(config, 100)
    with pytest.raises(ConfigError, match="batch_size 4 is no multiple of 3 processes"):
        micro_batch(config, 100, 3)
    assert micro_batch(load_tune_config(write_config(folder, batch_size=12)), 200) == (12 if torch.cuda.is_available() else 2), "512 tokens on a processor"


def test_losses_are_sent_to_tensorboard_when_asked(folder: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra trackers is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, seen = tuned(folder, epochs=1, training={"trackers": ["tensorboard"]})
    log = EventAccumulator(str(next((result.adapter / "tensorboard").rglob("events.*")).parent))
    log.Reload()
    assert {e.step: e.value for e in log.Scalars("train/loss")} == pytest.approx(losses(seen), abs=1e-5)
