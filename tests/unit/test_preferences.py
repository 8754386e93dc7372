"""Preference pairs read from TRL's columns, their configs, the log and the picture of a training: all that needs no torch."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from made_runs import made_up, write_run
from rich.console import Console

from safer_instruct.audit.reading import read_set
from safer_instruct.cli import main
from safer_instruct.errors import ConfigError, MissingExtraError, RunDirectoryError, SourceError
from safer_instruct.models.protocol import Turn
from safer_instruct.settings.pairs import Holdout
from safer_instruct.settings.preference import DpoConfig, PreferenceSource, SftConfig, load_dpo_config, load_sft_config
from safer_instruct.sources import BadRow
from safer_instruct.training import curves
from safer_instruct.training.card import card
from safer_instruct.training.data import Divided, divide, laid_out
from safer_instruct.training.log import as_line, read_log, series
from safer_instruct.training.preferences import Preference, read_preferences
from safer_instruct.training.result import TrainResult
from safer_instruct.training.run import train_preferences
from safer_instruct.tuning.loss import Evaluation
from safer_instruct.tuning.open import other_splits
from safer_instruct.views.train import show_parts, show_trained


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def written(folder: Path, rows: list[dict[str, Any]], name: str = "pairs.jsonl") -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def read(folder: Path, rows: list[dict[str, Any]], **more: Any) -> list[Preference | BadRow]:
    return list(read_preferences((PreferenceSource(path=written(folder, rows), **more),), folder))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Where is it?", "chosen": "Here.", "rejected": "Look."},
        {"prompt": [user("Where is it?")], "chosen": [assistant("Here.")], "rejected": [assistant("Look.")]},
        {"chosen": [user("Where is it?"), assistant("Here.")], "rejected": [user("Where is it?"), assistant("Look.")]},
        {"prompt": [user("Where is it?")], "chosen": "Here.", "rejected": "Look."},
    ],
    ids=["text", "messages", "implicit prompt", "messages and text"],
)
def test_every_form_of_trls_columns_gives_the_same_pair(tmp_path: Path, row: dict[str, Any]) -> None:
    [pair] = read(tmp_path, [row])
    assert isinstance(pair, Preference)
    assert (pair.prompt, pair.response, pair.rejected, pair.history) == ("Where is it?", "Here.", "Look.", ())


def test_of_a_folder_with_splits_only_the_one_that_is_asked_for_is_trained_on(tmp_path: Path) -> None:
    made = [{"prompt": f"Where is {number}?", "chosen": "Here.", "rejected": "Look."} for number in range(6)]
    written(tmp_path / "set", made[:3], "data/train-00000-of-00002.jsonl")
    written(tmp_path / "set", made[3:4], "data/train-00001-of-00002.jsonl")
    written(tmp_path / "set", made[4:], "data/test.jsonl")
    (tmp_path / "set" / "README.md").write_text("# A card\n", encoding="utf-8")
    (tmp_path / "set" / "about.json").write_text('{"rows": 6}', encoding="utf-8")
    (tmp_path / "set" / "labels.csv").write_text("id,label\n", encoding="utf-8")

    def asked(**more: Any) -> list[str]:
        return [pair.prompt for pair in read_preferences((PreferenceSource(path="set", **more),), tmp_path) if isinstance(pair, Preference)]

    assert asked() == [row["prompt"] for row in made[:4]]
    assert asked(split="test") == [row["prompt"] for row in made[4:]]
    assert other_splits(PreferenceSource(path="set"), tmp_path) == ["test"] and other_splits(PreferenceSource(path="set", split="test"), tmp_path) == ["train"]
    console = Console(record=True, width=200)
    show_parts(console, (PreferenceSource(path="set"), PreferenceSource(path="none.jsonl")), tmp_path)
    assert console.export_text() == "set: only the split 'train' is read, not test\n"
    with pytest.raises(SourceError, match=r"no file is named after the split 'dev'; there are: test, train$"):
        asked(split="dev")
    for file in (tmp_path / "set" / "data").glob("train-*"):
        file.rename(file.with_name(file.name.replace("train", "part")))
    with pytest.raises(SourceError, match=r"no file is named after the split 'train'; there are: part, test$"):
        asked()
    (tmp_path / "set" / "data" / "test.jsonl").rename(tmp_path / "set" / "data" / "rest.jsonl")
    assert sorted(asked()) == [row["prompt"] for row in made], "no split was asked for, and none is there"


def test_what_was_said_before_is_kept_and_a_system_message_is_not_doubled(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be kind."}
    [pair] = read(tmp_path, [{"prompt": [system, user("Hello."), assistant("Yes?"), user("Where?")], "chosen": "Here.", "rejected": "Look."}])
    assert isinstance(pair, Preference)
    assert [t.role for t in pair.history] == ["system", "user", "assistant"]
    assert laid_out(pair, "chat", "Be brief.") == (*pair.history, Turn("user", "Where?"))
    [plain] = read(tmp_path, [{"prompt": "Where?", "chosen": "Here.", "rejected": "Look."}])
    assert isinstance(plain, Preference)
    assert laid_out(plain, "chat", "Be brief.") == (Turn("system", "Be brief."), Turn("user", "Where?"))
    assert laid_out(plain, "raw", None) == "Where?"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Where?", "rejected": "Look."}, "no column 'chosen'"),
        ({"prompt": "Where?", "chosen": "Here.", "rejected": "Here."}, "the same"),
        ({"prompt": " ", "chosen": "Here.", "rejected": "Look."}, "'prompt' is empty"),
        ({"prompt": "Where?", "chosen": "", "rejected": "Look."}, "'chosen' is empty"),
        ({"prompt": "Where?", "chosen": 3, "rejected": "Look."}, "not text"),
        ({"prompt": [assistant("Hm.")], "chosen": "Here.", "rejected": "Look."}, "not the user's"),
        ({"prompt": [user("Where?")], "chosen": [user("Here.")], "rejected": [assistant("Look.")]}, "not one message of the assistant"),
        ({"chosen": [user("A?"), assistant("Here.")], "rejected": [user("B?"), assistant("Look.")]}, "differ in their last message only"),
        ({"chosen": "Here.", "rejected": "Look."}, "no column 'prompt'"),
        ({"chosen": [user("A?"), assistant("Here.")], "rejected": "Look."}, "no list of messages"),
        ({"prompt": [], "chosen": "Here.", "rejected": "Look."}, "neither text nor a list"),
        (
            {name: f"\n\nHuman: A?\n\nAssistant: {name}" for name in ("chosen", "rejected")},
            "transcripts ('Human: ... Assistant: ...'), which only 'audit' reads",
        ),
    ],
)
def test_a_row_that_is_no_pair_is_set_aside_with_the_reason(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    [bad] = read(tmp_path, [row])
    assert isinstance(bad, BadRow) and reason in bad.reason


def test_a_run_whose_pairs_are_gone_is_no_folder_of_tables(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", list(made_up(20)))
    (run / "pairs.jsonl").unlink()
    with pytest.raises(RunDirectoryError, match=r"run: its pairs\.jsonl is missing; give the 'run' command again to write it anew"):
        list(read_preferences((PreferenceSource(path="run"),), tmp_path))


def test_a_run_whose_pairs_are_of_another_run_is_refused_and_its_exports_are_no_splits_that_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", list(made_up(20)))
    source = PreferenceSource(path="run")
    pairs = list(read_preferences((source,), tmp_path))
    for name in ("train", "test"):
        (run / "export-datasets" / "data").mkdir(parents=True, exist_ok=True)
        (run / "export-datasets" / "data" / f"{name}.parquet").write_bytes((run / "pairs.parquet").read_bytes())
    console = Console(record=True, width=200)
    show_parts(console, (source,), tmp_path)
    assert console.export_text() == "" and list(read_preferences((source,), tmp_path)) == pairs
    kept = (run / "pairs.jsonl").read_bytes().splitlines(keepends=True)
    for other in (kept[:-1], [*kept, kept[0]]):
        (run / "pairs.jsonl").write_bytes(b"".join(other))
        told = rf"run/pairs\.jsonl has {len(other)} rows and summary\.json beside it tells of {len(kept)}, so they are of two runs; give the 'run' command"
        with pytest.raises(RunDirectoryError, match=told):
            list(read_preferences((source,), tmp_path))


def test_where_no_row_is_a_pair_for_its_encoding_it_is_said_how_to_save_the_file(tmp_path: Path) -> None:
    (tmp_path / "l1.csv").write_bytes("prompt,chosen,rejected\nWhere?,Here.,Caf\xe9.\n".encode("latin-1"))
    reason = r"l1\.csv:2: invalid UTF-8 at byte offset 16 of the row; save the file in UTF-8 \(in Excel: save as 'CSV UTF-8'\)$"
    with pytest.raises(SourceError, match=reason):
        divide((PreferenceSource(path="l1.csv"),), Holdout(), tmp_path)
    with pytest.raises(SourceError, match=reason):
        read_set(tmp_path / "l1.csv")


def test_a_run_directory_stands_for_its_pairs_and_columns_may_have_other_names(tmp_path: Path) -> None:
    written(tmp_path, [{"prompt": "Where?", "chosen": "Here.", "rejected": "Look.", "category": "c", "id": "1"}], "run1/pairs.jsonl")
    [pair] = read_preferences((PreferenceSource(path="run1"),), tmp_path)
    assert isinstance(pair, Preference) and pair.source == "run1"
    [named] = read(tmp_path, [{"ask": "Where?", "good": "Here.", "bad": "Look.", "trade": "shop"}], prompt="ask", chosen="good", rejected="bad", group="trade")
    assert isinstance(named, Preference) and (named.response, named.rejected, named.group) == ("Here.", "Look.", "shop")


def test_a_folder_of_runs_is_no_data_set_and_the_runs_in_it_are_named(tmp_path: Path) -> None:
    made = list(made_up(30))
    write_run(tmp_path / "runs" / "garden", made)
    write_run(tmp_path / "runs" / "garden" / "previous-1", made)
    write_run(tmp_path / "runs" / "more" / "pond", made)
    said = rf"runs is no data set; runs in it: garden, more/pond; give one of them, such as {tmp_path}/runs/garden, or a table itself$"
    with pytest.raises(SourceError, match=said):
        list(read_preferences((PreferenceSource(path="runs"),), tmp_path))
    assert len(list(read_preferences((PreferenceSource(path="runs/garden"),), tmp_path))) == sum(e.alive for e in made)


@pytest.mark.parametrize(
    ("column", "keys"), [({"prompt": "reply", "chosen": "reply"}, "'prompt' and 'chosen'"), ({"rejected": "chosen"}, "'chosen' and 'rejected'")]
)
def test_two_keys_that_name_one_column_are_refused(tmp_path: Path, column: dict[str, str], keys: str) -> None:
    with pytest.raises(ConfigError, match=rf"{keys} name the same column"):
        load_dpo_config(config(tmp_path, json.dumps({"data": [{"path": "p.jsonl", **column}], "out": "o"})))


@pytest.mark.parametrize("missing", ["transformers", "pairs"])
def test_what_is_missing_is_told_before_a_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    if missing == "transformers":
        monkeypatch.setitem(sys.modules, "transformers", None)
        written(tmp_path, [{"prompt": f"Where is {number}?", "chosen": "Here.", "rejected": "Look."} for number in range(30)])
    given = load_dpo_config(config(tmp_path, "data: [pairs.jsonl]\nout: o\nholdout: {near_duplicate: null, count: 3}\n"))
    with pytest.raises(MissingExtraError if missing == "transformers" else SourceError):
        train_preferences(given, tmp_path)
    assert not (tmp_path / "o").exists()


def test_every_row_is_accounted_for_and_no_prompt_stands_on_both_sides(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i // 2}?", "chosen": f"Answer {i}.", "rejected": f"Other {i}."} for i in range(60)]
    rows += [rows[0], {"prompt": "Where?"}]
    divided = divide((PreferenceSource(path=written(tmp_path, rows)),), Holdout(share=0.3, near_duplicate=None), tmp_path)
    assert sum(divided.counts().values()) == len(rows)
    assert divided.counts()["duplicates"] == 1 and divided.counts()["set_aside"] == 1
    assert not {p.prompt for p in divided.train} & {p.prompt for p in divided.held_out}
    turned = written(tmp_path, rows[::-1], "turned.jsonl")
    again = divide((PreferenceSource(path=turned),), Holdout(share=0.3, near_duplicate=None), tmp_path)
    assert {p.prompt for p in again.held_out} == {p.prompt for p in divided.held_out}, "the order of rows decides nothing"


def test_a_rejected_response_that_is_held_out_is_not_trained_on_but_equal_chosen_ones_are(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Question number {i} of all?", "chosen": "I am sorry, I cannot help with that request.", "rejected": f"Other thing {i} is what you get."}
        for i in range(20)
    ]
    kept = divide((PreferenceSource(path=written(tmp_path, rows)),), Holdout(share=0.3), tmp_path).counts()
    assert kept["straddling"] == 0, "refusals are alike"
    same = [row | {"rejected": "This very long rejected reply is the same every time."} for row in rows]
    with pytest.raises(SourceError, match=r"nearly the same.*holdout\.near_duplicate"):
        divide((PreferenceSource(path=written(tmp_path, same)),), Holdout(share=0.3), tmp_path)


def test_a_file_without_a_usable_pair_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no usable preference pair; the first of 1, pairs\.jsonl:1: no column 'chosen'"):
        divide((PreferenceSource(path=written(tmp_path, [{"prompt": "Where?"}])),), Holdout(), tmp_path)


def config(folder: Path, text: str) -> Path:
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    return folder / "c.yaml"


def test_the_papers_preset_fills_in_what_is_not_said(tmp_path: Path) -> None:
    sft = load_sft_config(config(tmp_path, "preset: paper\ndata: [p.jsonl]\nout: o\n"))
    assert (sft.batch_size, sft.learning_rate, sft.epochs, sft.warmup, sft.max_tokens, sft.training.method) == (64, 2e-5, 3, 0.03, 512, "full")
    dpo = load_dpo_config(config(tmp_path, "preset: paper\ndata: [p.jsonl]\nout: o\nbatch_size: 16\ntraining: {method: lora}\n"))
    assert (dpo.loss, dpo.beta, dpo.batch_size, dpo.learning_rate, dpo.training.method) == ("sigmoid", 0.1, 16, 5e-7, "lora")
    assert DpoConfig(data=("p",), out="o").batch_size == SftConfig(data=("p",), out="o").batch_size == 8


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("loss: dpo", "loss"),
        ("beta: 0", "beta"),
        ("label_smoothing: 0.1", "label_smoothing"),
        ("gamma: 1.0", "'gamma' is for 'loss: simpo'; 'sigmoid' takes none"),
        ("loss: kto\nbatch_size: 1", "kto"),
        ("layout: raw\nsystem: Be kind.", "system"),
        ("betta: 0.1", "beta"),
        ("preset: alpaca", "preset"),
    ],
)
def test_what_a_config_cannot_say_is_an_error(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_dpo_config(config(tmp_path, f"data: [p.jsonl]\nout: o\n{line}\n"))


@pytest.mark.parametrize(
    ("given", "said"),
    [(("train", "dpo", "none.yaml"), "none.yaml"), (("train", "sft", "c.yaml"), "nothing.jsonl"), (("value", "nothing.jsonl"), "nothing.jsonl")],
)
def test_the_command_line_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: tuple[str, ...], said: str
) -> None:
    config(tmp_path, "data: [nothing.jsonl]\nout: o\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(list(given))
    assert left.value.code == 2 and said in capsys.readouterr().err


def test_the_log_keeps_steps_and_evaluations_and_leaves_out_a_line_that_was_cut_short(tmp_path: Path) -> None:
    entries = [
        {"step": 1, "epoch": 0.1, "loss": 0.7, "rewards/margins": 0.01, "rewards/accuracies": 0.5, "learning_rate": 1e-4, "num_tokens": 9},
        {"step": 1, "epoch": 0.1, "eval_loss": 0.69, "eval_loss_run1": 0.69, "eval_figure_margin": 0.02},
        {"step": 1, "train_runtime": 3.0, "train_loss": 0.7},
    ]
    lines = [as_line(entry) for entry in entries]
    assert lines[0] == {"step": 1, "epoch": 0.1, "loss": 0.7, "learning_rate": 1e-4, "margin": 0.01, "accuracy": 0.5}
    assert lines[1] == {"step": 1, "epoch": 0.1, "held_out": {"loss": 0.69, "margin": 0.02, "by_source": {"run1": 0.69}}}
    assert lines[2] is None
    (tmp_path / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:2]) + '{"step": 2, "lo', encoding="utf-8")
    assert series(read_log(tmp_path / "training.jsonl"), "margin", held_out=True) == [(1, 0.02)]


def test_a_line_of_the_log_that_no_kill_leaves_behind_is_an_error(tmp_path: Path) -> None:
    log = tmp_path / "training.jsonl"
    log.write_text('{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n', encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=r"training\.jsonl:2 is damaged .*; give the command again to write it anew"):
        read_log(log)
    log.write_text('{"step": 1}\n{"step": 2}', encoding="utf-8")
    assert read_log(log) == [{"step": 1}, {"step": 2}]


def test_the_picture_is_one_svg_without_anything_from_elsewhere() -> None:
    lines: list[dict[str, Any]] = [{"step": s, "epoch": 0.0, "loss": 1 / s, "learning_rate": 1e-4, "margin": s / 10, "accuracy": 0.5} for s in range(1, 9)]
    lines += [
        {"step": s, "epoch": 0.0, "held_out": {"loss": 0.5, "margin": 0.1, "accuracy": 1.0, "chosen_drift": -0.1, "rejected_drift": -0.2}} for s in (4, 8)
    ]
    shown = curves.panels(lines)
    assert [p.title for p in shown][:3] == ["loss", "reward margin", "reward accuracy"]
    text = curves.draw("<b>run</b> & co", shown)
    root = ET.fromstring(text)
    assert "&lt;b&gt;run" in text and "href" not in text and "<script" not in text
    drawn = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(drawn) == 9
    xs = [tuple(map(float, point.split(","))) for p in drawn for point in p.attrib["points"].split()]
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(0 <= x <= width and 0 <= y <= height for x, y in xs)


@pytest.mark.parametrize(("low", "high", "expected"), [(0, 1, [0, 0.5, 1]), (0, 8, [0, 2, 4, 6, 8]), (-0.3, 0.1, [-0.3, -0.2, -0.1, 0, 0.1]), (2, 2, [2])])
def test_ticks_are_round_numbers_within_the_range(low: float, high: float, expected: list[float]) -> None:
    assert curves.ticks(low, high) == pytest.approx(expected)


MADE: dict[str, Any] = {"model": "m", "data": (PreferenceSource(path="p"),), "out": "o", "batch_size": 4}


def carded(config: SftConfig | DpoConfig, dtype: str = "float32", train: int = 17, margins: tuple[float, float] | None = None) -> str:
    """The card of a training that gave nothing but a loss, or margins at the start and kept."""
    loss, best = ({"step": 0, "loss": 0.6895, "by_source": {}, "figures": {"margin": of} if margins else {}} for of in margins or (0.0, 0.0))
    counts = {"train": train, "held_out": 4, "set_aside": 0, "duplicates": 0, "straddling": 0, "beyond": 0, "by_source": {"s": train}, "cut": None}
    given = {"task": "dpo" if isinstance(config, DpoConfig) else "sft", "config": config.model_dump(mode="json"), "dtype": dtype, "steps": 5}
    return card({**given, "data": counts, "before": loss, "best": best, "base": "b", "base_sha256": "0", "data_sha256": "0", "start_sha256": None})


def test_the_card_says_what_is_true_of_each_verb_and_dtype() -> None:
    sft, dpo = SftConfig(**MADE), DpoConfig(**MADE)
    assert "- Steps: 5, each of up to 4 pairs, " in carded(sft) and "- Steps: 5, each of 4 pairs, " in carded(sft, train=20)
    assert "apart" not in carded(sft) and "finds the held-out chosen responses of this data set, and nothing about the rejected ones" in carded(sft)
    assert "tells the pairs of this data set apart" in carded(dpo)
    rounded = "accuracy is 0.5, margin and drift are 0 and the loss 0.6931, and what differs from that in the table\nis the rounding of bfloat16 alone."
    assert rounded in carded(dpo, "bfloat16") and "The first steps in `training.jsonl` are as noisy; `dtype: float32` removes it." in carded(dpo, "bfloat16")
    assert "margin and drift are 0, and what differs" in carded(DpoConfig(**MADE, loss="ipo"), "bfloat16")
    others = (carded(dpo), carded(sft, "bfloat16"), carded(DpoConfig(**MADE, loss="simpo"), "bfloat16"))
    assert not any("rounding" in text for text in others)


@pytest.mark.parametrize(
    ("start", "kept", "hidden"),
    [(-0.024, -0.016, True), (0.024, 0.1, True), (0.024, 0.121, False), (-0.0004, 0.001, False), (0.0, -0.3, False)],
)
def test_a_margin_that_rounding_may_hide_is_told_and_no_other(start: float, kept: float, hidden: bool) -> None:
    said = f"the margin at the start is 0 by definition and was measured as {start:+.3f}: that is rounding, and what was learned may be hidden"
    assert (f"Mind: {said}" in carded(DpoConfig(**MADE), "bfloat16", margins=(start, kept))) == hidden
    before, best = (Evaluation(step, 0.7, {}, {"margin": margin}) for step, margin in ((0, start), (7, kept)))
    for config, told in ((DpoConfig(**MADE), hidden), (DpoConfig(**MADE, loss="simpo"), False), (SftConfig(**MADE), False)):
        console = Console(record=True, width=400)
        show_trained(console, TrainResult(Path("o"), before, best, Divided((), (), 0, 0), 7, 51.0), config)
        assert (f"mind: {said}" in console.export_text()) == told


def test_the_time_that_is_told_says_what_it_counts() -> None:
    console = Console(record=True, width=200)
    evaluation = Evaluation(0, 1.0, {}, {})
    show_trained(console, TrainResult(Path("o"), evaluation, evaluation, Divided((), (), 0, 0), 5, 43.2), SftConfig(**MADE))
    assert "5 steps, in 43 s with set-up and evaluations; kept: step 0" in console.export_text()
