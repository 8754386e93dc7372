"""A text from a corpus or a model is a value in a prompt, never a template."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_instruct.domain import load_domain
from safer_instruct.domaincheck import render_prompts
from safer_instruct.errors import ConfigError
from safer_instruct.stages.respond import expert_template
from safer_instruct.templates import Template, load_template, shipped_templates

pytestmark = pytest.mark.filterwarnings("error")

HOSTILE = [
    "{{ 7*7 }}",
    "{% for x in [1, 2] %}x{% endfor %}",
    "{% raw %}",
    "{# gone #}",
    "{{ response.__class__.__mro__ }}",
    "{% include '/etc/passwd' %}",
    "<b>&amp;</b> \"quoted\" 'too'",
    "line\r\nline\rline\n\n",
    "  spaces  ",
    "-%}{%- if 1 -%}",
]
DOMAIN = load_domain("civility")


def rendered(name: str, text: str) -> str:
    """A shipped template with `text` at every place where a text of a corpus or of a model may stand."""
    support = DOMAIN.category("support")
    values = {
        "contrast": {"description": "kind", "examples": [{"prompt": text, "response": text}], "prompt": text},
        "critique": {"guideline": "Be kind.", "mark": "M", "prompt": text, "response": text, "reasons": [text]},
        "forward": {"prompt": text},
        "pairwise": {"guideline": "Be kind.", "mark": "M", "prompt": text, "first": text, "second": text},
        "prefer": {"guideline": "Be kind.", "mark": "M", "written": False, "prompt": text, "first": text, "second": text},
        "prompted": {"response": text, "examples": [{"prompt": text, "response": text}]},
        "question": {"mark": "M", "prompt": text, "response": text, "questions": ["Is it kind?", "Does it help?"]},
        "weighted": {"question": "Is it kind?", "options_": "Yes or No", "mark": "M", "written": False, "prompt": text, "response": text},
        "respond": {"domain": DOMAIN.model_copy(update={"expert": text}), "category": support.model_copy(update={"guideline": text})},
        "reverse": {"response": text},
        "reverse-chat": {"response": text, "history": [{"role": "user", "content": text}]},
        "revise": {"guideline": "Be kind.", "mark": "M", "prompt": text, "response": text, "reasons": [text], "critique": text},
        "grade": {"guideline": "Be kind.", "mark": "M", "prompt": text, "response": text, "follow_up": text, "second": text},
        "invent": {"expert": "Be kind.", "messages": [text]},
        "matched": {"definition": "Rude.", "words": 9, "least": 8, "most": 10, "form": "plain", "mark": "M", "prompt": text, "response": text},
        "refuse": {"manner": "briefly", "mark": "M", "prompt": text},
        "twin": {"definition": "Rude.", "mark": "M", "instruction": text},
        "twin-benign": {"definition": "Rude.", "mark": "M", "written": False, "prompt": text},
        "twin-contrast": {"description": text},
        "twin-sample": {"definition": "Rude.", "mark": "M", "instruction": text},
    }
    return load_template(name).render(**values[name])


PLACES = {
    **{"contrast": 3, "critique": 3, "forward": 1, "grade": 4, "invent": 1, "matched": 2, "pairwise": 3, "prefer": 3, "prompted": 3},
    **{"question": 2, "refuse": 1, "respond": 2, "reverse": 1, "reverse-chat": 2, "revise": 4},
    **{"twin": 1, "twin-benign": 1, "twin-contrast": 1, "twin-sample": 1, "weighted": 2},
}
INDENTED = ("before", "conversation")  # they indent what was said, so that no line of it can look like another turn: test_conversations.py


def test_the_table_of_places_knows_every_shipped_template() -> None:
    assert shipped_templates() == tuple(sorted([*PLACES, *INDENTED]))


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("text", HOSTILE)
def test_template_syntax_in_a_text_comes_through_unchanged(name: str, text: str) -> None:
    assert rendered(name, text).count(text) == PLACES[name]


@settings(max_examples=200)
@given(st.text() | st.text(alphabet="{}%#-+ \n\r\tx"))
def test_any_text_comes_through_unchanged(text: str) -> None:
    assert Template("<{{ response }}>", name="t").render(response=text) == f"<{text}>"


def test_the_reversed_template_is_the_papers_to_the_byte() -> None:
    assert load_template("reverse").render(response="RESPONSE") == (
        "Below is a response to a certain instruction. Write the instruction that the response is trying to complete.\n\n"
        "### response:\nRESPONSE\n\n### Instruction:\n"
    )


def test_the_forward_template_leaves_the_instruction_out_when_there_is_none() -> None:
    assert load_template("forward").render(prompt="ASK") == "### Instruction:\nASK\n\n### Response:\n"
    assert load_template("forward").render(prompt="") == "### Response:\n"


def test_the_contrast_template_shows_each_example_and_ends_where_the_reply_begins() -> None:
    text = load_template("contrast").render(description="kind", examples=[{"prompt": "P1", "response": "R1"}, {"prompt": "P2", "response": "R2"}], prompt="P3")
    assert text == (
        "Below is a message and a reply that is kind.\n\n"
        "### Message:\nP1\n\n### Reply:\nR1\n\n### Message:\nP2\n\n### Reply:\nR2\n\n### Message:\nP3\n\n### Reply:\n"
    )


@pytest.mark.parametrize("source", ["x", "x\n", "x\n\n", "{{ a }}\n", "{% if a %}\nx\n{% endif %}\n"])
def test_the_last_newline_of_the_file_is_kept(source: str) -> None:
    assert Template(source, name="t").render(a="A").endswith("\n") == source.endswith("\n")
    assert Template("x\n\n", name="t").render() == "x\n\n"


def test_block_lines_leave_no_blank_lines_behind() -> None:
    assert Template("a\n  {% if yes %}\nb\n  {% endif %}\nc\n", name="t").render(yes=True) == "a\nb\nc\n"


def test_a_value_that_is_not_given_is_an_error_that_names_it_and_the_template() -> None:
    with pytest.raises(ConfigError, match=r"mine\.j2: cannot be rendered: 'respnse' is undefined"):
        Template("{{ respnse }}", name="mine.j2").render(response="x")
    with pytest.raises(ConfigError, match="categroy"):
        load_template("respond").__class__("{{ domain.categroy }}", name="t").render(domain=DOMAIN)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ response.__class__ }}",
        "{{ response.format.__globals__ }}",
        "{{ examples.append(1) }}",
        "{{ examples.clear() }}",
        "{{ '{0.__class__}'.format(response) }}",
        "{{ range(1000000000) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ 1 / 0 }}",
        "{{ response + 1 }}",
    ],
)
def test_what_a_template_may_not_do_is_a_config_error_that_names_it(source: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.j2: cannot be rendered"):
        Template(source, name="mine.j2").render(response="x", examples=[1])


def test_a_template_cannot_change_the_values_it_is_given() -> None:
    examples = [{"prompt": "a"}]
    with pytest.raises(ConfigError):
        Template("{{ examples[0].update({'prompt': 'b'}) }}", name="t").render(examples=examples)
    assert examples == [{"prompt": "a"}]


def test_a_broken_template_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"mine\.j2:3: not a valid template"):
        Template("a\nb\n{% if %}\n", name="mine.j2")


def test_the_digest_follows_the_source_alone() -> None:
    assert Template("a", name="x").digest == Template("a", name="y").digest
    assert Template("a", name="x").digest != Template("a\n", name="x").digest
    assert len(Template("a", name="x").digest) == 16


def test_a_template_of_ones_own_is_found_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "mine.j2").write_text("{{ response }}!\n", encoding="utf-8")
    template = load_template("mine.j2", tmp_path)
    assert template.render(response="x") == "x!\n" and str(tmp_path / "mine.j2") == template.name


def test_a_shipped_name_wins_over_a_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "reverse").write_text("mine", encoding="utf-8")
    assert load_template("reverse", tmp_path).source == load_template("reverse").source


def test_a_missing_template_is_told_with_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="template 'reverze'") as caught:
        load_template("reverze", tmp_path)
    assert all(name in str(caught.value) for name in shipped_templates()) and str(tmp_path) in str(caught.value)


def test_a_template_file_that_is_not_utf8_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "mine.j2").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"mine\.j2 cannot be read as UTF-8 text: .*looks like UTF-16"):
        load_template("mine.j2", tmp_path)


# --- values that nobody gives


def test_a_value_that_a_template_is_not_given_is_told_with_its_line_and_those_that_there_are(tmp_path: Path) -> None:
    file = tmp_path / "mine.j2"
    file.write_text("{{ category.guideline }}\n\n{% if topic %}x{% endif %}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.j2:3: 'topic' is no value that this template is given \(respond\); there are: domain, category$"):
        load_template("mine.j2", tmp_path, use="respond")
    assert load_template("mine.j2", tmp_path).names == {"category", "topic"}, "without a use nothing is known of it"


@pytest.mark.parametrize("source", ["", "Write the instruction of: {response}", "{% if examples %}{{ examples[0] }}{% endif %}"])
def test_a_template_that_never_shows_what_it_asks_about_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "mine.j2").write_text(source, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.j2: never shows 'response' \(reverse\), so .*; write \{\{ response \}\} where it is to stand$"):
        load_template("mine.j2", tmp_path, use="reverse")
    load_template("mine.j2", tmp_path)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x\n{{ category.guidelines }}", r"mine\.j2:2: category has no 'guidelines'; did you mean 'guideline'\?$"),
        ("{{ domain.zzz }}", r"mine\.j2:1: domain has no 'zzz'; there are: name, extends, .*, category, programs$"),
        ("{{ domain.zzz | upper }}{{ domain.xxx is defined }}", "mine.j2:1: domain has no 'zzz'"),
    ],
)
def test_a_part_that_a_value_does_not_have_is_told_before_anything_is_rendered(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "mine.j2").write_text(source, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        expert_template("mine.j2", tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "{{ category.definition.upper() }}{{ category.tone | default('none') }}{% if domain.tone is defined %}x{% endif %}",
        "{% for question in category.criteria %}{{ loop.index }}. {{ question }}{% endfor %}",
        "{% set tone = domain.direction %}{{ tone }}{% for i in range(3) %}{{ i }}{% endfor %}",
        "{% macro said(x) %}{{ x }}{% endmacro %}{{ said(category.guideline) }}",
        "{% if critique is defined %}{{ critique }}{% endif %}{{ topic | default('none') }}",
        "No value at all.",
    ],
)
def test_names_of_its_own_and_those_that_it_asks_after_are_left_to_a_template(tmp_path: Path, source: str) -> None:
    (tmp_path / "mine.j2").write_text(source, encoding="utf-8")
    expert_template("mine.j2", tmp_path).render(domain=DOMAIN, category=DOMAIN.category("support"))


@pytest.mark.parametrize(
    ("name", "use"),
    [(name, name) for name in ("reverse", "respond", "revise", "matched", "twin", "refuse")]
    + [("reverse-chat", "reverse"), ("prompted", "reverse"), ("twin-sample", "twin")],
)
def test_shipped_templates_ask_for_nothing_that_they_are_not_given(name: str, use: str) -> None:
    load_template(name, use=use)


def test_what_a_template_may_ask_for_is_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, set[str]] = {}
    render = Template.render

    def seen(self: Template, **values: object) -> str:
        given.setdefault(self.name.removesuffix(".j2"), set()).update(values)
        return render(self, **values)

    monkeypatch.setattr(Template, "render", seen)
    render_prompts(DOMAIN)
    for use in ("reverse", "respond", "revise", "matched", "twin", "refuse"):
        everything = Template("".join(f"{{{{ {name} }}}}" for name in sorted(given[use])), name=use)
        everything.check(use)
        with pytest.raises(ConfigError) as told:
            Template("{{ nobody_gives_it }}", name=use).check(use)
        assert set(str(told.value).partition("there are: ")[2].split(", ")) == given[use]
