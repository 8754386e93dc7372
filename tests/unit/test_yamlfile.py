"""Messages of `yamlfile`: which file, which line, which key was meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from safer_instruct import yamlfile
from safer_instruct.config import RunConfig, TuneConfig
from safer_instruct.domain import Domain
from safer_instruct.errors import ConfigError
from safer_instruct.evaluation.inducer.plan import EvaluationConfig
from safer_instruct.settings.preference import SftConfig
from safer_instruct.yamlfile import Strict

pytestmark = pytest.mark.filterwarnings("error")

RUN = """\
domain: civility
source:
  path: texts.jsonl
models:
  inducer: "scripted:"
  expert:
    model: "scripted:"
"""
DOMAIN = """\
name: rudeness
description: Rude replies.
categories:
  support:
    definition: Rude.
    guideline: Be kind.
    criteria: ["Is it kind?"]
    examples:
      - {prompt: a, chosen: b, rejected: c}
      - {prompt: a, chosen: b, rejected: c}
"""
TUNE = """\
out: adapter
data:
  - path: a.jsonl
  - path: b.jsonl
    prompt: message
"""


class Leaf(Strict):
    count: Annotated[int, Field(gt=0)] = 1
    label: str = ""


class Tree(Strict):
    leaf: Leaf = Leaf()
    leaves: tuple[Leaf, ...] = ()
    named: Annotated[dict[str, Leaf], Field(default_factory=dict)]
    maybe: Leaf | None = None


def refusal(text: str, section: type[Strict] = RunConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        yamlfile.parse(text, section, name="my.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "section", "message"),
    [
        pytest.param(RUN + "licence: MIT\n", RunConfig, "my.yaml:8: unknown key 'licence'; did you mean 'license'?", id="top level"),
        pytest.param(RUN.replace("path:", "paht:"), RunConfig, "my.yaml:3: unknown key 'source.paht'; did you mean 'path'?", id="nested"),
        pytest.param(RUN + "    api_key: x\n", RunConfig, "my.yaml:8: unknown key 'models.expert.api_key'; did you mean 'api_key_env'?", id="two levels down"),
        pytest.param(TUNE.replace("prompt:", "promt:"), TuneConfig, "my.yaml:5: unknown key 'data.1.promt'; did you mean 'prompt'?", id="list item"),
        pytest.param(
            DOMAIN.replace("criteria:", "criterai:"),
            Domain,
            "my.yaml:7: unknown key 'categories.support.criterai'; did you mean 'criteria'?",
            id="dict value",
        ),
        pytest.param(
            DOMAIN[: DOMAIN.rindex("chosen")] + "choosen: b, rejected: c, chosen: d}\n",
            Domain,
            "my.yaml:10: unknown key 'categories.support.examples.1.choosen'; did you mean 'chosen'?",
            id="list in dict value",
        ),
        pytest.param(
            RUN + "filter:\n  consistency: {min_gian: 1}\n",
            RunConfig,
            "my.yaml:9: unknown key 'filter.consistency.min_gian'; did you mean 'min_gain'?",
            id="null-able",
        ),
        pytest.param("leaf:\n  labell: x\n", Tree, "my.yaml:2: unknown key 'leaf.labell'; did you mean 'label'?", id="own section"),
    ],
)
def test_unknown_key_is_named_with_file_line_and_nearest_valid_key(text: str, section: type[Strict], message: str) -> None:
    assert message in refusal(text, section).splitlines()


@pytest.mark.parametrize(
    ("text", "section", "kind"),
    [
        ("model: m\ndata: [d.jsonl]\nloss: sigmoid\nout: o\n", TuneConfig, "a config of 'train dpo': safer-instruct train dpo"),
        ("data: [runs/one]\nbeta: 0.1\nout: o\n", SftConfig, "a config of 'train dpo': safer-instruct train dpo"),
        ("model: m\ndata: [d.jsonl]\npreset: paper\nout: o\n", TuneConfig, "a config of 'train': safer-instruct train sft, or train dpo"),
        ("model: m\ndata: [d.jsonl]\nout: o\n", RunConfig, "a config of a training: safer-instruct train, or tune"),
        ("systems: {}\nprompts: p.jsonl\n", EvaluationConfig, "a config of an evaluation: safer-instruct evaluate"),
    ],
)
def test_a_config_for_another_command_is_told_by_its_keys(text: str, section: type[Strict], kind: str) -> None:
    assert refusal(text, section) == f"my.yaml is {kind}"


def test_the_nearest_key_is_sought_among_the_keys_of_that_place_only() -> None:
    assert refusal("leafs: 1\n", Tree).endswith("did you mean 'leaf'?")
    assert refusal("leaf: {leafs: 1}\n", Tree).endswith("valid keys here: count, label")


def test_where_no_key_is_near_all_valid_ones_are_listed() -> None:
    assert refusal("leaf: {zzzzzz: 1}\n", Tree) == "my.yaml:1: unknown key 'leaf.zzzzzz'; valid keys here: count, label"


def test_a_category_called_like_a_field_does_not_mislead_the_hint() -> None:
    message = refusal(DOMAIN.replace("support:", "examples:").replace("criteria:", "criterai:"), Domain)
    assert "my.yaml:7: unknown key 'categories.examples.criterai'; did you mean 'criteria'?" in message


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        ("leaf: 5\n", 1, "leaf", "expected keys with values, each on a line below it: count, label"),
        ("leaf:\n  count: many\n", 2, "leaf.count", "integer"),
        ("leaf:\n  count: 1.5\n", 2, "leaf.count", "integer"),
        ("leaf:\n  count: 0\n", 2, "leaf.count", "greater than 0"),
        ("leaf:\n  label: 2024-01-31\n", 2, "leaf.label", "string"),
        ("leaves:\n- {}\n- count: []\n", 3, "leaves.1.count", "integer"),
        ("leaves: x\n", 1, "leaves", "expected a list, such as '[one, two]', or each on a line behind '- '"),
        ("named:\n  one: {}\n  two:\n    label: [a]\n", 4, "named.two.label", "string"),
        ("named: [a]\n", 1, "named", "expected names, each on a line below it, and below each of them keys with values: count, label"),
        ("maybe: no\n", 1, "maybe", "expected keys with values, each on a line below it: count, label"),
        ("leaf: null\n", 1, "leaf", "expected keys with values, each on a line below it: count, label"),
    ],
)
def test_a_value_of_the_wrong_type_or_size_is_named_with_its_line(text: str, line: int, key: str, said: str) -> None:
    message = refusal(text, Tree)
    assert message.startswith(f"my.yaml:{line}: '{key}': ") and said in message and "\n" not in message


@pytest.mark.parametrize(
    ("target", "line", "said"),
    [
        ("-5", 8, "'target': Input should be greater than 0, or expected keys with values, each on a line below it"),
        ("[1]", 8, "'target': Input should be a valid integer, or expected keys with values, each on a line below it"),
        ("{support: -1}", 8, "'target.support': Input should be greater than 0"),
        ("{}", 8, "'target': Input should be a valid integer, or needs at least 1"),
        ("\n  support: many", 9, "'target.support': Input should be a valid integer, unable to parse string as an integer"),
    ],
)
def test_where_several_things_may_stand_the_message_names_the_key_alone(target: str, line: int, said: str) -> None:
    assert refusal(f"{RUN}target: {target}\n") == f"my.yaml:{line}: {said}"


@pytest.mark.parametrize(
    ("written", "taken"),
    [("Yes", "true"), ("off", "false"), ("12", "a number"), ("1.5", "a number"), ("2024-01-31", "a date"), ("2024-01-31 10:00:00", "a date")],
)
def test_a_text_that_yaml_takes_for_something_else_wants_quotes(written: str, taken: str) -> None:
    message = f"my.yaml:1: 'leaf.label': Input should be a valid string; YAML takes it for {taken}: put it in quotes"
    assert refusal(f"leaf: {{label: {written}}}\n", Tree) == message
    assert yamlfile.parse(f"leaf: {{label: '{written}'}}\n", Tree, name="my.yaml").leaf.label == written
    assert "quotes" not in refusal("leaf: {label: [a]}\n", Tree) + refusal("leaf: {label: null}\n", Tree)


@pytest.mark.parametrize("key", ["on", "No", "12", "1.5", "2024-01-31", "null"])
def test_a_key_is_a_name_whatever_yaml_takes_it_for(key: str) -> None:
    assert list(yamlfile.parse(f"named: {{{key}: {{count: 2}}}}\n", Tree, name="my.yaml").named) == [key]
    assert refusal(f"leaf: {{{key}: 2}}\n", Tree).startswith(f"my.yaml:1: unknown key 'leaf.{key}'; ")
    assert yamlfile.parse("maybe: &a {count: 2}\nleaf: {<<: *a, label: x}\n", Tree, name="my.yaml").leaf == Leaf(count=2, label="x")


def test_a_missing_key_is_named_at_the_section_that_lacks_it() -> None:
    assert refusal(RUN.replace("  path: texts.jsonl", "  text: body")) == "my.yaml:2: the key 'source.path' is missing"
    assert refusal(RUN.replace("domain: civility\n", "")) == "my.yaml: the key 'domain' is missing"
    assert "my.yaml:9: the key 'categories.support.examples.0.prompt' is missing" in refusal(DOMAIN.replace("{prompt: a, ", "{", 1), Domain)


def test_every_problem_is_told_at_once_each_on_its_own_line() -> None:
    message = refusal("leaf:\n  count: 0\n  lable: x\nleafs: []\nnamed:\n  a: 3\n", Tree)
    assert sorted(line.partition(": ")[0] for line in message.splitlines()) == ["my.yaml:2", "my.yaml:3", "my.yaml:4", "my.yaml:6"]


def test_a_check_of_ours_is_told_in_its_own_words() -> None:
    message = refusal(TUNE + "task: respond\n", TuneConfig)
    assert "task 'respond' needs 'domain' and 'category'" in message and "Value error" not in message


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: [1, 2\nb: 3\n", "my.yaml:2: not valid YAML"),
        ("a: 1\n\tb: 2\n", "my.yaml:2: not valid YAML"),
        ("a: 'open\n", "my.yaml:2: not valid YAML"),
        ("a: *nowhere\n", "my.yaml:1: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "my.yaml:2: not valid YAML"),
        ("? [a, b]\n: c\n", "my.yaml:1: not valid YAML"),
        ("a: \0\n", "my.yaml: not valid YAML"),
        ("leaf: {label: 2024-13-45}\n", "my.yaml: not valid YAML"),
        ("leaf: {count: 0x_}\n", "my.yaml: not valid YAML"),
        ("[" * 1500, "my.yaml: nested too deeply"),
        ("leaf: &a [*a]\n", "my.yaml: nested too deeply"),
        ("leaf: {count: 1}\nleaf: {count: 2}\n", "my.yaml:2: not valid YAML: the key 'leaf' stands twice, first in line 1; keep one"),
        ("leaf:\n  count: 1\n  count: 2\n", "my.yaml:3: not valid YAML: the key 'count' stands twice"),
    ],
)
def test_bad_yaml_is_refused_with_the_line_where_there_is_one(text: str, where: str) -> None:
    assert refusal(text, Tree).startswith(where)


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    message = refusal(f"leaf: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n", Tree)
    assert "not valid YAML" in message and not (tmp_path / "made").exists()


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("# nothing\n", "nothing"), ("- a\n- b\n", "a list"), ("words\n", "text")])
def test_a_file_without_keys_at_the_top_is_refused(text: str, found: str) -> None:
    assert refusal(text, Tree) == f"my.yaml: expected keys and values at the top, such as 'key: value', found {found}; is it the right file?"


def test_a_missing_file_is_told_with_the_folder_that_was_looked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file") as caught:
        yamlfile.load(Path("gone.yaml"), Tree)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_or_a_binary_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"leaf: \xff\xfe")
    for path, said in ((tmp_path, "is a folder; give the YAML file itself"), (tmp_path / "binary.yaml", ": cannot be read as UTF-8 text: ")):
        with pytest.raises(ConfigError, match=re.escape(f"{path}{said}" if said.startswith(":") else f"{path} {said}")):
            yamlfile.load(path, Tree)


def test_a_valid_file_is_read_with_defaults_for_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "tree.yaml").write_text("leaf: {count: 3}\nnamed: {a: {label: \N{SNOWMAN}}}\n", encoding="utf-8")
    assert yamlfile.load(tmp_path / "tree.yaml", Tree) == Tree(leaf=Leaf(count=3), named={"a": Leaf(label="\N{SNOWMAN}")})


@settings(max_examples=150, derandomize=True)
@given(st.text(alphabet="abelf: -[]{}&*!?|>'\"\n\t#%,0x1._", max_size=30))
@example("&a {leaf: *a}")
@example("leaf: 0x_")
def test_whatever_the_text_the_only_error_is_ours(text: str) -> None:
    said = "my.yaml"
    try:
        yamlfile.parse(text, Tree, name="my.yaml")
    except ConfigError as exc:
        said = str(exc)
    assert said.startswith("my.yaml")
