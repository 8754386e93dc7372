"""The reversed template: one digest for training, induction and serving, and an error where two of them differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safer_instruct.config import InduceConfig, ModelConfig, ServeConfig, TuneConfig
from safer_instruct.domain import load_domain
from safer_instruct.errors import ConfigError
from safer_instruct.models.protocol import Completion, Turn
from safer_instruct.reverse import RECORD, ReversedTemplate, Shot, before_heading, domain_shots, reversal
from safer_instruct.settings.pairs import PairSource
from safer_instruct.templates import Template, load_template
from safer_instruct.tuning.pairs import Pair
from safer_instruct.tuning.prompting import load_prompting

REVERSE, CHAT, PROMPTED = (load_template(name) for name in ("reverse", "reverse-chat", "prompted"))
SHOTS = {"": (Shot("Where is it?", "On the shelf."),)}
PAIR = Pair("Which tea?", "Green tea.", "g", "s", (Turn("user", "Hello."), Turn("assistant", "Hello, what is it?")))


def adapter(folder: Path, record: dict[str, Any] | str | None) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    if record is not None:
        (folder / RECORD).write_text(record if isinstance(record, str) else json.dumps(record), encoding="utf-8")
    return folder


def test_the_digest_of_the_raw_template_is_the_files_own_so_adapters_tuned_before_stay_valid() -> None:
    assert ReversedTemplate(REVERSE).digest == REVERSE.digest == "ab1adfee0eda0e91"
    for name in ("civility-inducer",):
        found = reversal(InduceConfig(), ModelConfig(model="embedded:x", adapter=name), Path())
        assert found.template.form == "raw" and found.note == ""


def test_form_and_examples_are_part_of_the_digest() -> None:
    digests = {ReversedTemplate(PROMPTED, form, shots).digest for form in ("raw", "chat") for shots in ({}, SHOTS, {"": SHOTS[""] * 2})}  # type: ignore[arg-type]
    assert len(digests) == 6
    assert ReversedTemplate(PROMPTED, "chat", SHOTS).digest == ReversedTemplate(load_template("prompted"), "chat", dict(SHOTS)).digest


def test_training_and_induction_render_the_same(tmp_path: Path) -> None:
    """What an adapter is trained on is what the run asks it, whichever the form."""
    (tmp_path / "own.j2").write_text("What does this answer?\n{{ response }}\n", encoding="utf-8")
    for name, form in (("reverse", "raw"), ("reverse-chat", "chat"), ("own.j2", "raw"), ("own.j2", "chat")):
        config = TuneConfig(template=name, form="auto" if name != "own.j2" else form, data=(PairSource(path="x"),), out="o")  # type: ignore[arg-type]
        prompting = load_prompting(config, tmp_path)
        folder = adapter(tmp_path / f"{name}-{form}", {"task": "induce", **prompting.record()})
        asked = reversal(InduceConfig(template=name), ModelConfig(model="embedded:x", adapter=str(folder)), tmp_path)
        single = Pair("Which tea?", "Green tea.", "g", "s")
        assert prompting.render(single) == (asked.template.prompt("Green tea."), "Which tea?")
        assert asked.template.form == form and asked.note == ""


def test_the_chat_form_is_a_users_message_and_may_show_what_was_said_before() -> None:
    asked = ReversedTemplate(CHAT, "chat")
    (turn,) = asked.prompt("Green tea.", history=PAIR.history)
    assert isinstance(turn, Turn) and turn.role == "user"
    assert "### What was said before:\nuser: Hello.\nassistant: Hello, what is it?\n\n### Response:\nGreen tea.\n" in turn.content
    (plain,) = asked.prompt("Green tea.")
    assert isinstance(plain, Turn) and "said before" not in plain.content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"template_digest": "0123456789abcdef", "template": "mine.j2"},
            r"tuned with template mine\.j2 as raw \(digest 0123456789abcdef\).*set induce\.template",
        ),
        ({"template_form": "chat", "template_digest": ReversedTemplate(REVERSE, "chat").digest}, r"as chat .* induce\.template reverse\.j2 as raw has digest"),
        ({"task": "respond"}, "was tuned for 'respond', not to induce"),
        ({"template_digest": None}, "set induce.template and induce.form"),
    ],
)
def test_an_adapter_that_was_tuned_otherwise_is_refused_with_what_to_do(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = adapter(tmp_path / "a", {"task": "induce", **ReversedTemplate(REVERSE).record(), **change})
    with pytest.raises(ConfigError, match=message):
        reversal(InduceConfig(form="raw"), ModelConfig(model="embedded:x", adapter=str(folder)), tmp_path)


@pytest.mark.parametrize("record", ["{", "[]"])
def test_a_record_that_cannot_be_read_is_an_error_and_no_pass(tmp_path: Path, record: str) -> None:
    folder = adapter(tmp_path / "a", record)
    with pytest.raises(ConfigError, match=r"tuning\.json"):
        reversal(InduceConfig(), ModelConfig(model="embedded:x", adapter=str(folder)), tmp_path)


def test_served_adapters_and_served_weights_are_checked_too(tmp_path: Path) -> None:
    right, wrong = {"task": "induce", **ReversedTemplate(REVERSE).record()}, {"task": "induce", "template_digest": "0" * 16}
    adapter(tmp_path / "right", right)
    adapter(tmp_path / "wrong", wrong)
    (tmp_path / "wrong" / "lora.gguf").write_bytes(b"GGUF")
    serve = ServeConfig(adapters={"mine": "right", "other": "wrong/lora.gguf"})
    good = reversal(InduceConfig(), ModelConfig(model="served:weights", serve=serve, adapter="mine"), tmp_path)
    assert good.template.form == "raw", "the form it was tuned in, though served models are asked in chats otherwise"
    for model in (
        ModelConfig(model="served:weights", serve=serve, adapter="other"),
        ModelConfig(model="served:wrong"),
        ModelConfig(model="served:wrong/lora.gguf"),
    ):
        with pytest.raises(ConfigError, match="was tuned with template"):
            reversal(InduceConfig(), model, tmp_path)


@pytest.mark.parametrize(
    ("model", "template", "note"),
    [
        ({"model": "embedded:x", "adapter": "bare"}, "reverse", "adapter 'bare' carries no tuning.json"),
        ({"model": "openai:my-inducer"}, "reverse", "if it was not tuned at all, set induce.template: prompted"),
        ({"model": "served:somewhere"}, "reverse", "nothing tells whether 'served:somewhere'"),
        ({"model": "openai:gpt"}, "prompted", ""),
        ({"model": "embedded:x"}, "reverse", ""),
    ],
)
def test_what_cannot_be_known_is_told(tmp_path: Path, model: dict[str, Any], template: str, note: str) -> None:
    adapter(tmp_path / "bare", None)
    found = reversal(InduceConfig(template=template), ModelConfig(**model), tmp_path)
    assert note in found.note and bool(note) == bool(found.note)


# --- the prompted inducer


def test_examples_are_shown_in_order_and_by_category() -> None:
    asked = ReversedTemplate(PROMPTED, "raw", {"": SHOTS[""], "hotel": (Shot("Any rooms?", "We are full."),)})
    text = asked.prompt("It is sold out.", category="hotel")
    assert isinstance(text, str) and text.endswith(
        "### Response:\nWe are full.\n\n### Message:\nAny rooms?\n\n### Response:\nIt is sold out.\n\n### Message:\n"
    )
    assert "On the shelf." in asked.prompt("It is sold out.", category="other")
    assert "On the shelf." in asked.prompt("It is sold out.")


def test_a_domain_lends_its_undesirable_responses_as_examples() -> None:
    domain = load_domain("civility")
    shots = domain_shots(domain, 2)
    examples = domain.category("support").examples
    assert shots == {"": tuple(Shot(e.prompt, e.rejected) for e in examples[:2])} and examples


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Where is my parcel?", "Where is my parcel?"),
        ("  Message: Where is my parcel?\n", "Where is my parcel?"),
        ('"Where is my parcel?"', "Where is my parcel?"),
        ("\u201cWhere is it?\u201d", "Where is it?"),
        ('"Yes" or "no"?', '"Yes" or "no"?'),
        ('"Yes" or "No"? Which of the two is "right"', '"Yes" or "No"? Which of the two is "right"'),
        ("\u201cOpen\u201d or \u201cshut\u201d", "\u201cOpen\u201d or \u201cshut\u201d"),
        ('"Is it \u201copen\u201d?"', "Is it \u201copen\u201d?"),
        ('""', ""),
        ("Where is my parcel?\n\n### Response:\nOn its way.\n\n### Message:\nOh.", "Where is my parcel?"),
        ("### Message:\nWhere is my parcel?", "Where is my parcel?"),
        ("### Instructions:\n\n### Instructions:", ""),
        ("Fix '#' in\n#include <a.h>", "Fix '#' in\n#include <a.h>"),
        ('"', '"'),
    ],
)
def test_what_a_prompted_model_writes_around_the_instruction_is_left_out(written: str, read: str) -> None:
    found = ReversedTemplate(PROMPTED, "chat", SHOTS).read(Completion(written, -1.0, finished=False))
    assert found.text == read and found.logprob == -1.0
    assert found.finished == ("### Response" in written), "one that was cut by the next heading came to its end"


def test_a_tuned_models_words_are_taken_as_they_are() -> None:
    completion = Completion('"Quoted"\n### Response:', -1.0)
    assert ReversedTemplate(REVERSE).read(completion) is completion
    assert before_heading(completion).text == '"Quoted"'


# --- what cannot be trained with


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "prompted"}, "is for models that are not tuned"),
        ({"template": "reverse", "data": (PairSource(path="x", history=True),)}, "shows no history; tune with 'reverse-chat'"),
        ({"template": "gone.j2"}, "neither a file"),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_prompting(TuneConfig(**{"data": (PairSource(path="x"),), "out": "o", **settings}), tmp_path)


def test_an_expert_is_trained_on_the_conversation_under_its_guideline(tmp_path: Path) -> None:
    config = TuneConfig(task="respond", domain="civility", category="support", data=(PairSource(path="x"),), out="o")
    prompt, completion = load_prompting(config, tmp_path).render(PAIR)
    assert not isinstance(prompt, str) and [turn.role for turn in prompt] == ["system", "user", "assistant", "user"]
    assert prompt[-1].content == "Which tea?" and completion == "Green tea."


def test_the_names_that_a_template_asks_for() -> None:
    assert Template("{% for e in examples %}{{ e.x }}{% endfor %}{{ response }}", name="t").names == {"examples", "response"}
