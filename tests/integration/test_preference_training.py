"""SFT and DPO through TRL on tiny models: the losses, the masks, the reference, what survives a kill, and what the command line says."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("trl", reason="the extra train is not installed")

import tiny_models

from safer_instruct.cli import main
from safer_instruct.errors import ConfigError, RunDirectoryError
from safer_instruct.settings.preference import REFERENCE_FREE, load_dpo_config, load_sft_config
from safer_instruct.training.data import EncodedPair
from safer_instruct.training.divergence import Divergence
from safer_instruct.training.log import read_log
from safer_instruct.training.losses import PairLogps, accuracies, pair_losses, rewards
from safer_instruct.training.reference import reference_logps, sequence_logps
from safer_instruct.training.run import TrainResult, _prepare, dry_run, train_preferences
from safer_instruct.training.trainers import trl_classes
from safer_instruct.tuning.loss import Encoded
from safer_instruct.tuning.order import bucketed
from safer_instruct.tuning.progress import Progress
from safer_instruct.tuning.train import train

THINGS = ["lamp", "kettle", "radio", "clock", "bell", "drum", "umbrella", "parcel", "red lamp", "old radio", "kettle lid", "clock hand", "late parcel", "desk"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models of this size are slower on several threads, on a busy machine by far."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_tiny("llama", tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def folder(tmp_path: Path, base_model: Path) -> Path:
    """A tiny Llama in base/ and pairs of different lengths."""
    (tmp_path / "base").symlink_to(base_model)
    rows = [
        {"prompt": f"My {t} is broken.", "chosen": f"I am sorry about your {t}. " * (i % 3 + 1), "rejected": f"So your {t} broke. How sad. " * (i % 2 + 1)}
        for i, t in enumerate(THINGS)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return tmp_path


def write_config(folder: Path, name: str = "c", **more: Any) -> Path:
    given = {
        "model": "base",
        "dtype": "float32",  # what is compared agrees to rounding
        "data": ["pairs.jsonl"],
        "holdout": {"share": 0.2, "near_duplicate": None},
        "lora": {"rank": 4},
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.003,
        "evaluations_per_epoch": 1,
        "patience": 9,
        "out": name,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(given | more), encoding="utf-8")
    return path


def trained(folder: Path, name: str = "c", *, verb: str = "dpo", **more: Any) -> tuple[TrainResult, list[Progress]]:
    seen: list[Progress] = []
    load = load_dpo_config if verb == "dpo" else load_sft_config
    return train_preferences(load(write_config(folder, name, **more)), folder, seen.append), seen


def typed(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert not stopped.value.code


def weights(adapter: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(next(adapter.glob("*.safetensors")))


def losses(seen: list[Progress]) -> dict[int, float]:
    return {p.step: p.loss for p in seen if p.step and p.held_out is None and not p.resumed}


def logps_of(model: Any, pairs: list[EncodedPair]) -> PairLogps:
    """Sums over the responses' tokens, from the logits of each sequence alone."""
    import torch

    def one(prompt: tuple[int, ...], response: tuple[int, ...]) -> float:
        with torch.no_grad():
            full = model(torch.tensor([prompt + response])).logits[0].double().log_softmax(-1)
        return sum(float(full[len(prompt) - 1 + i, token]) for i, token in enumerate(response))

    sides = [[one(p.prompt, getattr(p, name)) for p in pairs] for name in ("chosen", "rejected")]
    counts = [[float(len(getattr(p, name))) for p in pairs] for name in ("chosen", "rejected")]
    return PairLogps(*(torch.tensor(values, dtype=torch.float64) for values in (*sides, *counts)))


def step_pairs(ready: Any, step: int, batch: int = 4) -> list[EncodedPair]:
    order = bucketed([p.length for p in ready.train], batch, 0, 0)
    return [ready.train[i] for i in order[(step - 1) * batch : step * batch]]


LOSSES: list[tuple[str, dict[str, Any]]] = [
    ("sigmoid", {}),
    ("ipo", {}),
    ("hinge", {}),
    ("robust", {"label_smoothing": 0.2}),
    ("simpo", {"beta": 2.0}),
    ("orpo", {}),
    ("kto", {}),
]


@pytest.mark.parametrize(("loss", "more"), LOSSES)
def test_each_loss_is_trls_and_falls(folder: Path, loss: str, more: dict[str, Any]) -> None:
    """What TRL reports of the second step, in micro-batches, follows from the log-probabilities of both models, worked out here token by token."""
    import transformers

    config = load_dpo_config(write_config(folder, loss=loss, epochs=1, warmup=0.0, training={"micro_batch": 2}, **more))
    ready = _prepare(config, folder)
    pairs = step_pairs(ready, 2)
    now: list[PairLogps] = []

    class AfterTheFirst(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == 1:
                now.append(logps_of(model, pairs))

    seen: list[Progress] = []
    objective = ready.objective(folder / "reference", lambda done, of: None)
    done = train(ready.model, objective, config, seen.append, checkpoints=folder / "out" / "checkpoints", callbacks=[AfterTheFirst()])
    free = loss in REFERENCE_FREE
    assert done.best.loss < done.first.loss, "the held-out loss falls on pairs as alike as these"
    assert free or done.first.figures["accuracy"] == 0.5, "a model prefers nothing to what it compares itself with"
    if loss in ("orpo", "kto"):  # TRL's take in what ours leave out: the prompt, and a baseline from other examples
        return
    before = None if free else logps_of(ready.model.load(), pairs)
    expected = pair_losses(config.loss, now[0], before, beta=config.beta, label_smoothing=config.label_smoothing, gamma=config.gamma)
    step = next(p for p in seen if p.step == 2 and p.held_out is None)
    assert step.loss == pytest.approx(float(expected.mean()), rel=2e-3)
    chosen, rejected = rewards(now[0], before, config.beta)
    assert step.figures["margin"] == pytest.approx(float((chosen - rejected).mean()), abs=2e-3)


def test_rewards_that_rounding_alone_parts_are_a_tie() -> None:
    import torch

    chosen, rejected = torch.tensor([0.0, -5e-6, 0.2, 0.0]), torch.tensor([0.0, 0.0, 0.1, 3e-3])
    assert accuracies(chosen, rejected, 0.1).tolist() == [0.5, 0.5, 1.0, 0.0]


def test_a_training_leaves_weights_card_log_and_picture(folder: Path) -> None:
    result, seen = trained(folder)
    assert {"adapter_model.safetensors", "README.md", "training.jsonl", "tuning.json", "curves.svg"} <= {p.name for p in result.out.iterdir()}
    assert not (result.out / "checkpoints").exists() and not (result.out / "ref").exists()
    lines = read_log(result.out / "training.jsonl")
    assert {line["step"]: line["loss"] for line in lines if "loss" in line} == losses(seen) and len(losses(seen)) == result.steps
    announced = [p.step for p in seen if p.evaluating]
    assert announced == [p.step for p in seen if p.held_out and p.step], "what an evaluation takes is not put down to a step"
    card = (result.out / "README.md").read_text("utf-8")
    assert "ties (at most 0.001 nats times beta apart) count half" in card
    assert "by the loss `sigmoid` with beta 0.1, with the base model as the reference" in card
    assert f"| margin | {result.before.figures['margin']:.4f} | {result.best.figures['margin']:.4f} |" in card


def test_a_training_that_has_finished_is_not_made_again(folder: Path) -> None:
    first, _ = trained(folder, verb="sft", epochs=1)
    before = {path: path.stat().st_mtime_ns for path in first.out.iterdir() if path.name != ".lock"}
    (folder / "base-moved").symlink_to(folder / "base")
    again, seen = trained(folder, verb="sft", epochs=1, data=[str(folder / "pairs.jsonl")], model="base-moved")
    assert again.already and not first.already and seen == []
    assert (again.before, again.best, again.steps) == (first.before, first.best, first.steps)
    assert {path: path.stat().st_mtime_ns for path in first.out.iterdir() if path.name != ".lock"} == before


def test_a_training_of_another_config_is_not_written_over(folder: Path) -> None:
    first, _ = trained(folder, verb="sft", epochs=1)
    before = (first.out / "adapter_model.safetensors").read_bytes()
    said = (
        rf"{first.out} holds a training of another config: batch_size: 4, now 2; lora\.rank: 4, now 2\. Add --fresh to move it aside and train anew, or choose"
    )
    with pytest.raises(RunDirectoryError, match=said):
        trained(folder, verb="sft", epochs=1, lora={"rank": 2}, batch_size=2)
    with pytest.raises(RunDirectoryError, match="another config: task: sft, now dpo"):
        trained(folder, epochs=1)
    with pytest.raises(RunDirectoryError, match=r"another config: start: None, now c\. Add"):
        trained(folder, verb="sft", epochs=1, start="c")
    (folder / "pairs.jsonl").write_text("".join((folder / "pairs.jsonl").read_text("utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    with pytest.raises(RunDirectoryError, match="another config: what 'data' leads to is another"):
        trained(folder, verb="sft", epochs=1)
    assert (first.out / "adapter_model.safetensors").read_bytes() == before


def test_a_setting_that_an_older_record_does_not_know_is_at_its_default(folder: Path) -> None:
    first, _ = trained(folder, verb="sft", epochs=1)
    record = json.loads((first.out / "tuning.json").read_text("utf-8"))
    del record["config"]["layout"]
    (first.out / "tuning.json").write_text(json.dumps(record), encoding="utf-8")
    assert trained(folder, verb="sft", epochs=1)[0].already


def test_fresh_moves_a_finished_training_aside(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = write_config(folder, epochs=1, kl_prompts=0)
    typed("train", "dpo", str(config))
    typed("train", "dpo", str(config))
    assert f"finished already: {folder / 'c'}; nothing was trained" in capfd.readouterr().out
    references = sorted((folder / "c" / "reference").iterdir())
    (folder / "c" / "mine.txt").touch()
    typed("train", "dpo", str(write_config(folder, epochs=2, kl_prompts=0)), "--fresh")
    records = [json.loads((folder / "c" / place / "tuning.json").read_text("utf-8")) for place in ("previous-1", "")]
    assert [record["config"]["epochs"] for record in records] == [1, 2]
    written = {"README.md", "adapter_config.json", "adapter_model.safetensors", "curves.svg", "training.jsonl", "tuning.json"}
    assert {path.name for path in (folder / "c" / "previous-1").iterdir()} == written
    assert sorted((folder / "c" / "reference").iterdir()) == references and (folder / "c" / "mine.txt").exists()


def test_weights_without_a_record_are_written_over_without_a_word_of_pefts(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "c").mkdir()
    (folder / "c" / "README.md").write_text("# PEFT's\n", encoding="utf-8")
    (folder / "c" / "training.jsonl").touch()  # of a training that was killed
    logging.getLogger("huggingface_hub.repocard").addHandler(caplog.handler)
    try:
        result, _ = trained(folder, verb="sft", epochs=1)
    finally:
        logging.getLogger("huggingface_hub.repocard").removeHandler(caplog.handler)
    assert caplog.messages == [] and (result.out / "README.md").read_text("utf-8").startswith("# Adapter: c")


def test_what_max_tokens_cuts_is_counted_and_told(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = _prepare(load_dpo_config(write_config(folder)), folder)
    assert whole.divided.cut is not None and whole.divided.cut.told() == []
    pairs = [*whole.train, *whole.held_out]
    most = sorted(len(pair.rejected) for pair in pairs)[len(pairs) // 2]  # one that ends just there is whole
    longer = {name: sum(len(getattr(pair, name)) > most for pair in pairs) for name in ("prompt", "chosen", "rejected")}
    responses = f"{longer['chosen']} of 14 chosen and {longer['rejected']} of 14 rejected responses were cut at max_tokens: {most}"
    assert 0 < longer["rejected"] < 14 and longer["chosen"]
    result, _ = trained(folder, "dpo", epochs=1, kl_prompts=0, max_tokens=most)
    record = json.loads((result.out / "tuning.json").read_text("utf-8"))
    assert record["data"]["cut"] == {"at": most, "of": 14, "prompts": longer["prompt"], "chosen": longer["chosen"], "rejected": longer["rejected"]}
    assert f"- Cut: {responses}; a model that sees no end" in (result.out / "README.md").read_text("utf-8")
    typed("train", "dpo", str(folder / "dpo.yaml"), "--dry-run")
    assert responses in capfd.readouterr().out
    typed("train", "sft", str(write_config(folder, "sft", max_tokens=2, epochs=1)))
    told = capfd.readouterr().out
    assert f"written to {folder / 'sft'}: the weights, README.md, tuning.json, training.jsonl, curves.svg" in told
    assert "\n14 of 14 chosen responses were cut at max_tokens: 2; " in told and "\n14 of 14 prompts were cut at max_tokens: 2; their last" in told


def test_the_divergence_is_that_of_two_models_side_by_side_and_disturbs_neither(base_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    start, model = (AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32).eval() for _ in range(2))
    prompts, random = [(5, 6, 7), (8, 9)], torch.random.get_rng_state()
    with torch.no_grad():
        divergence = Divergence(model, end=1)
        assert [round(value, 9) for value, _ in divergence.of(model, prompts)] == [0.0, 0.0]
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
        moved = {name: p.clone() for name, p in model.named_parameters()}
        found = divergence.of(model, prompts)
        for (value, tokens), prompt, response in zip(found, prompts, divergence._sampled(model, prompts), strict=True):
            assert tokens == len(response) and 1 not in response[:-1]
            ids = torch.tensor([[*prompt, *response]])
            p, q = (m(ids).logits[0, len(prompt) - 1 : -1].double().softmax(-1) for m in (model, start))
            assert value == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-3) and value > 0.01
    assert all(torch.equal(p, moved[name]) for name, p in model.named_parameters())
    assert torch.equal(random, torch.random.get_rng_state())


def test_the_divergence_is_logged_at_each_evaluation_and_changes_no_weight(folder: Path) -> None:
    result, _ = trained(folder, "with", kl_prompts=2)
    without, _ = trained(folder, "without", kl_prompts=0)
    held_out = [line["held_out"] for line in read_log(result.out / "training.jsonl") if "held_out" in line]
    assert result.before.figures["kl"] == pytest.approx(0, abs=1e-6)
    assert all(line["kl"] > 0 for line in held_out) and len(held_out) == 2
    assert "KL from the start" in (result.out / "curves.svg").read_text("utf-8")
    assert "kl" not in without.before.figures
    assert all((value == weights(without.out)[name]).all() for name, value in weights(result.out).items())


def test_dpos_loss_by_hand() -> None:
    """-log sigmoid(beta ((log pi_c - log ref_c) - (log pi_r - log ref_r))), with numbers that are worked out by hand."""
    import math

    import torch

    one = torch.ones(1, dtype=torch.float64)
    now, before = PairLogps(-10 * one, -14 * one, 5 * one, 7 * one), PairLogps(-12 * one, -13 * one, 5 * one, 7 * one)
    margin = 0.1 * ((-10 + 12) - (-14 + 13))
    assert float(pair_losses("sigmoid", now, before, beta=0.1)) == pytest.approx(math.log(1 + math.exp(-margin)))
    assert float(pair_losses("hinge", now, before, beta=0.1)) == pytest.approx(1 - margin)
    assert float(pair_losses("ipo", now, before, beta=0.1)) == pytest.approx((2 / 5 + 1 / 7 - 5) ** 2)
    assert float(pair_losses("simpo", now, None, beta=2.0, gamma=0.5)) == pytest.approx(math.log(1 + math.exp(0.5 - 2 * (-2 + 2))))
    odds = math.log(math.exp(-2) / (1 - math.exp(-2)))
    assert float(pair_losses("orpo", now, None, beta=0.1)) == pytest.approx(2 + 0.1 * math.log(1 + math.exp(odds - odds)))


def test_the_loss_equals_that_of_trls_own_trainer_on_the_same_texts(folder: Path) -> None:
    """TRL with everything left to itself: its tokens, its masks, its reference model."""
    import datasets
    import trl
    from peft import PeftModel

    result, _ = trained(folder, epochs=1, learning_rate=0.01)
    ready = _prepare(load_dpo_config(folder / "c.yaml"), folder)
    model = PeftModel.from_pretrained(ready.model.load(), result.out).merge_and_unload()
    texts = [
        {
            "prompt": [{"role": "user", "content": p.prompt}],
            **{n: [{"role": "assistant", "content": t}] for n, t in (("chosen", p.response), ("rejected", p.rejected))},
        }
        for p in ready.divided.held_out
    ]
    args = trl.DPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=len(texts),
        per_device_eval_batch_size=len(texts),
        use_cpu=True,
        bf16=False,
        report_to="none",
        max_length=None,
        disable_tqdm=True,
    )
    data = datasets.Dataset.from_list(texts)
    theirs = trl.DPOTrainer(model=model, ref_model=ready.model.load(), args=args, train_dataset=data, eval_dataset=data, processing_class=ready.model.tokenizer)
    ids = [{k: row[k] for k in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in theirs.eval_dataset]
    # a chat template may end a turn with more than the end token, as this one does with a line break; what is scored is then one token more
    assert [tuple(row["prompt_ids"]) for row in ids] == [p.prompt for p in ready.held_out]
    assert all(tuple(row["chosen_ids"][: len(p.chosen)]) == p.chosen for row, p in zip(ids, ready.held_out, strict=True))
    cut = datasets.Dataset.from_list(
        [row | {"chosen_ids": list(p.chosen), "rejected_ids": list(p.rejected)} for row, p in zip(ids, ready.held_out, strict=True)]
    )
    theirs.eval_dataset = cut
    same = theirs.evaluate()
    assert same["eval_loss"] == pytest.approx(result.best.loss, abs=2e-3), "half precision of the saved adapter aside"
    assert same["eval_rewards/margins"] == pytest.approx(result.best.figures["margin"], abs=2e-2)


def test_sft_learns_the_chosen_responses_alone(folder: Path) -> None:
    """The loss of the first step is the mean over the tokens of chosen responses, end token included, prompt left out."""
    path = write_config(folder, epochs=2)
    ready = _prepare(load_sft_config(path), folder)
    order = bucketed([len(p.prompt) + len(p.chosen) for p in ready.train], 4, 0, 0)[:4]
    first = [ready.train[i] for i in order]
    logps = logps_of(ready.model.load(), first)
    result, seen = trained(folder, verb="sft")
    assert losses(seen)[1] == pytest.approx(-float(logps.chosen.sum() / logps.chosen_tokens.sum()), abs=1e-4)
    assert all(pair.chosen[-1] == ready.model.tokenizer.eos_token_id for pair in ready.train)
    assert result.best.loss < result.before.loss - 0.5


def test_dpo_after_sft_compares_with_the_sft_model_and_not_with_the_base(folder: Path) -> None:
    from peft import PeftModel

    sft, _ = trained(folder, "sft", verb="sft")
    dpo, seen = trained(folder, "dpo", start="sft")
    ready = _prepare(load_dpo_config(folder / "dpo.yaml"), folder)
    pairs = list(ready.held_out)
    base = ready.model.load()
    bare = logps_of(base, pairs)
    merged = PeftModel.from_pretrained(base, sft.out).merge_and_unload()
    reference = logps_of(merged, pairs)
    assert abs(float((reference.chosen - bare.chosen).mean())) > 1, "the two references differ, so the test can tell them apart"
    assert dpo.before.figures["chosen_logp"] == pytest.approx(float(reference.chosen.mean()), abs=0.02)
    assert dpo.before.loss == pytest.approx(0.693147, abs=1e-4), "it starts where it compares itself with"
    assert losses(seen)[1] == pytest.approx(0.693147, abs=2e-3)
    final = logps_of(PeftModel.from_pretrained(ready.model.load(), dpo.out).merge_and_unload(), pairs)
    margin = 0.1 * float((final.chosen - reference.chosen - final.rejected + reference.rejected).mean())
    assert dpo.best.figures["margin"] == pytest.approx(margin, abs=2e-2), "one adapter holds both steps, and the margin is that over the SFT model"


def test_a_killed_dpo_ends_as_an_undisturbed_one(folder: Path) -> None:
    """kill -9 between two checkpoints."""
    import numpy as np

    more: dict[str, Any] = {"epochs": 4, "training": {"save_steps": 2}, "evaluations_per_epoch": 1}
    undisturbed, seen = trained(folder, "undisturbed", **more)
    path = write_config(folder, "killed", **more)
    program = """
import sys
from collections.abc import Iterator
from pathlib import Path
from safer_instruct.settings.preference import load_dpo_config
from safer_instruct.training.run import train_preferences
p = Path(sys.argv[1])
train_preferences(load_dpo_config(p), p.parent, lambda s: print("STEP", s.step, flush=True))
"""
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=one_thread) as process:
        assert process.stdout
        for line in process.stdout:
            if line.split() == ["STEP", "8"]:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL and not (folder / "killed" / "tuning.json").exists()
    kept = next((folder / "killed" / "reference").iterdir())
    before = kept.read_bytes()
    resumed, rest = trained(folder, "killed", **more)
    assert kept.read_bytes() == before, "the reference was not computed again"
    first = min(losses(rest))
    assert 3 < first <= 9, "it went on, and did not begin anew"
    assert losses(rest) == {step: loss for step, loss in losses(seen).items() if step >= first}
    assert resumed.best == undisturbed.best
    one, two = weights(undisturbed.out), weights(resumed.out)
    assert one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)
    logs = [read_log(r.out / "training.jsonl") for r in (undisturbed, resumed)]
    assert logs[0] == logs[1]


def test_a_reference_that_was_cut_short_goes_on_and_gives_the_same_numbers(tmp_path: Path, base_model: Path) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base_model)
    sequences = [Encoded(tuple(range(5, 60 + n)), tuple(range(9, 300 + n)), "s") for n in range(12)]
    whole = reference_logps(model, sequences, "k", tmp_path / "a")
    written = next((tmp_path / "a").iterdir())
    lines = written.read_text().splitlines()
    assert len(lines) > 1
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / written.name).write_text(lines[0] + "\n" + lines[1][:40])
    told: list[tuple[int, int]] = []
    assert reference_logps(model, sequences, "k", tmp_path / "b", lambda done, of: told.append((done, of))) == whole
    assert told[-1] == (12, 12)
    with torch.no_grad():
        assert whole == pytest.approx(sequence_logps(model, sequences[:1]).tolist() + whole[1:], rel=1e-5)
    assert reference_logps(model, sequences, "another model", tmp_path / "b") == whole and len(list((tmp_path / "b").iterdir())) == 2


def test_full_training_writes_a_model_and_needs_no_second_one(folder: Path) -> None:
    result, _ = trained(folder, training={"method": "full"}, learning_rate=0.0005, epochs=1)
    assert (result.out / "model.safetensors").is_file() and (result.out / "tokenizer.json").is_file()
    assert result.best.figures["margin"] > 0
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="'start' names an adapter"):
        trained(folder, "again", start="adapter", training={"method": "full"})


def test_a_dry_run_counts_everything_and_writes_nothing(folder: Path) -> None:
    config = load_dpo_config(write_config(folder, epochs=3))
    before = sorted(folder.rglob("*"))
    divided, found = dry_run(config, folder)
    ready = _prepare(config, folder)
    assert found.completion_tokens == sum(len(p.chosen) + len(p.rejected) for p in ready.train)
    assert found.steps == 3 * -(-len(divided.train) // 4) and found.seconds > 0
    assert sorted(folder.rglob("*")) == before


def test_scoring_labelled_positions_alone_changes_neither_figures_nor_gradients(base_model: Path) -> None:
    import torch
    import transformers
    from trl.trainer.utils import add_fused_lm_head

    from safer_instruct.tuning.trainer import score_labelled_only

    ids = torch.randint(5, 300, (4, 30), generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(torch.arange(30) < torch.tensor([[10], [20], [28], [3]]), -100)
    found = []
    for alone in (False, True):
        model = transformers.AutoModelForCausalLM.from_pretrained(base_model)
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
        if alone:
            score_labelled_only(model)
        out = model(input_ids=ids, labels=labels, fused_lm_head=True)
        out.log_probs.sum(dim=1).square().mean().backward()
        weights = {name: p.grad for name, p in model.named_parameters()}
        found.append((out, weights))
    (theirs, their_grads), (ours, our_grads) = found
    for name in ("log_probs", "entropy", "mean_logits", "loss"):
        assert torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4), name
    assert torch.equal(ours.is_top1, theirs.is_top1)
    assert all(torch.allclose(our_grads[n], their_grads[n], rtol=1e-3, atol=1e-3 * float(their_grads[n].abs().max())) for n in their_grads)


def test_a_loss_that_the_installed_trl_has_not_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl.experimental.cpo", None)  # as where it is gone
    with pytest.raises(ConfigError, match=r"loss 'simpo': TRL \d.* has no trl\.experimental\.cpo\.CPOTrainer"):
        trl_classes("simpo")
    assert [c.__name__ for c in trl_classes("kto")] == ["KTOConfig", "KTOTrainer"]


def test_what_training_on_pairs_cannot_do_is_said(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"packed.*with padding only"):
        trained(folder, training={"batching": "packed"})


def test_two_processes_learn_what_one_does(folder: Path) -> None:
    """Also the reference, of which each computes a share."""
    import numpy as np

    from safer_instruct.tuning import launch

    one, _ = trained(folder, "one", epochs=1)
    command = launch.command(write_config(folder, "two", epochs=1), 2, "none", ("train", "dpo"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("pairs to train on") == 1, "only the first process speaks"
    record = json.loads((folder / "two" / "tuning.json").read_text("utf-8"))
    assert record["best"]["loss"] == pytest.approx(one.best.loss, abs=2e-3)
    assert len(list((folder / "two" / "reference").iterdir())) == 2
    single, double = weights(one.out), weights(folder / "two")
    assert all(np.allclose(single[k], double[k], atol=2e-3) for k in single)
