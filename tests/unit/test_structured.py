"""Structured answers: whatever a model makes of a schema is read as far as it says something, and no further."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from safer_instruct.errors import AnswerError
from safer_instruct.models.lenient import objects
from safer_instruct.models.protocol import Generation, Sampling, Schema
from safer_instruct.models.structured import object_schema, parse, strict_object

pytestmark = pytest.mark.filterwarnings("error")
YES_NO = {"type": "string", "enum": ["yes", "no"]}
JUDGED = object_schema("judged", reason={"type": "string"}, answer=YES_NO)
ANSWERED = Schema.of("answered", JUDGED.definition | {"required": ["answer"]})
FITS = [
    '{"reason": "r", "answer": "no"}',
    'Sure! Here it is:\n```json\n{"reason": "r", "answer": "no"}\n```\nI hope that helps.',
    '{"reason": "r", "answer": "no",}',
    "{'reason': 'r', 'answer': 'no'}",
    "{'reason': 'r', 'answer': False}",
    "{\u201creason\u201d: \u201cr\u201d, \u201canswer\u201d: \u201cno\u201d}",
    "{\u2018reason\u2019: \u2018r\u2019, \u2018answer\u2019: \u2018no\u2019}",
    "{reason: r, answer: no}",
    '{\n  // why\n  "reason": "r", /* what, then? */\n  # so\n  \'answer\': no  // it is\n}',
    '{"reason": "r" // because\n, "answer": "no" # really\n}',
    '{"reason": "r" "answer": "no"}',
    '{"reason": "r"\n "answer": "no"}',
    '{"Reason": "r", "ANSWER": "No."}',
    '{"reason": "r", "answer": " NO! "}',
    '{"reason": "r", "answer": false}',
    '{"reason": "r", "answer": "no"',
    '[{"reason": "r", "answer": "no"}]',
    '{"result": {"reason": "r", "answer": "no"}}',
    '{"reason": "r", "answer": "no", "note": {"reason": "x", "answer": "yes"}}',
    'I first thought {"reason": "x", "answer": "yes"}, but it is {"reason": "r", "answer": "no"}',
    '<think>The form is {"reason": "...", "answer": "yes"}.</think>{"reason": "r", "answer": "no"}',
    '{"reason": "x", "answer": "yes", "reason": "r", "answer": "no"}',
    'A set {x}, a hole {}, and {"reason": "r", "answer": "no"}',
    '{"reason": "r", "answer": "no"} {"reason": "and furthermore", "answer": "y',
    '{"reason": "r", "answer": "no"} {"reason": "as for {"answer": "yes"}", "said": 1}',
    '{"type": "object", "properties": {"answer": {"enum": ["yes"]}}} {"reason": "r", "answer": "no"}',
]


@pytest.mark.parametrize("text", FITS)
def test_it_is_read_however_the_model_wrote_it(text: str) -> None:
    assert parse(text, JUDGED) == {"reason": "r", "answer": "no"}


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ('"it says "no" to me"', 'it says "no" to me'),
        ("'it isn't kind'", "it isn't kind"),
        (r'"a \"b\" \\ \/ \n \u00e9 \ud83d\ude00 \alpha"', 'a "b" \\ / \n \u00e9 \N{GRINNING FACE} \\alpha'),
        ('"two\nlines"', "two\nlines"),
        ('"{\\"answer\\": \\"yes\\"}"', '{"answer": "yes"}'),
        ('"half: \\ud83d"', "half: \N{REPLACEMENT CHARACTER}"),
        ("7", "7"),
        ('"http://a.b/#c, d"', "http://a.b/#c, d"),
    ],
)
def test_texts_are_kept_as_they_were_meant(written: str, reason: str) -> None:
    for form in (f'{{"reason": {written}, "answer": "no"}}', f'{{"answer": "no", "reason": {written},}}'):
        assert parse(form, JUDGED) == {"reason": reason, "answer": "no"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Yes",
        "{}",
        "[]",
        "null",
        '"yes"',
        '{"reason": "r"}',
        '{"reason": "r", "answer": }',
        '{"reason": "r", "answer": null}',
        '{"reason": "r", "answer": NaN}',
        '{"reason": "r", "answer": ["yes"]}',
        '{"reason": "r", "answer": "yes and no"}',
        '{"reason": "r", "answer": "yes',  # might have gone on
        '{"reason": "r", "answer": yes',
        '{"reason": "the reply says {"answer": "yes"}", "verdict": "bad"}',  # quoted, not answered
        '{"reason": "the reply says {\\"answer\\": \\"yes\\"}", "verdict": "bad"}',
        '{"reason": true, "answer": "yes"}',
        '{"answer": "yes"}',
    ],
)
def test_what_was_not_said_is_not_made_up(text: str) -> None:
    with pytest.raises(AnswerError, match="the answer holds no JSON object with answer, reason: "):
        parse(text, JUDGED)


def test_only_what_is_needed_must_be_there() -> None:
    assert parse('{"answer": "yes"}', ANSWERED) == {"answer": "yes"}
    assert parse('{"answer": "yes", "reason": "because it', ANSWERED) == {"answer": "yes", "reason": "because it"}
    assert parse("{}", Schema.of("any", {"type": "object"})) == {}


def test_the_error_shows_some_of_the_answer_on_one_line() -> None:
    with pytest.raises(AnswerError) as caught:
        parse("\x1b[31m no\n" + "way " * 100, JUDGED)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 140 and "no way way" in str(caught.value)


KINDS: dict[str, dict[str, Any]] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "list": {"type": "array", "items": {"type": "integer"}},
    "inner": strict_object(a=YES_NO),
    "maybe": {"type": ["integer", "null"]},
}


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        ("boolean", "true", True),
        ("boolean", "True", True),
        ("boolean", '"FALSE"', False),
        ("boolean", '"yes"', True),
        ("boolean", "no", False),
        ("boolean", "1", True),
        ("integer", '"7"', 7),
        ("integer", "-7.0", -7),
        ("integer", "+7", 7),
        ("integer", '" 1e3 "', 1000),
        ("number", '"0.5"', 0.5),
        ("number", ".5", 0.5),
        ("number", "12", 12),
        ("list", "[1, '2', 3.0,]", [1, 2, 3]),
        ("list", "[1 , 2", [1, 2]),
        ("inner", "{a: YES}", {"a": "yes"}),
        ("maybe", "None", None),
        ("maybe", '"4"', 4),
    ],
)
def test_values_become_what_the_schema_says(kind: str, written: str, value: Any) -> None:
    got = parse(f'{{"{kind}": {written}}}', object_schema("s", **{kind: KINDS[kind]}))[kind]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        *(("boolean", w) for w in ('"maybe"', "2", "1.5", "null", "[]", '"true, but"')),
        *(("integer", w) for w in ("7.5", "true", '"seven"', "NaN", "Infinity", "1e999", "'1_000'", "12 apples")),
        *(("number", w) for w in ("nan", "-Infinity", "1e999", "false", '""', "{}")),
        *(("list", w) for w in ("1", '["a"]', "{}", "null")),
        *(("inner", w) for w in ('{"a": "maybe"}', "{}", "[]", '"yes"')),
        ("maybe", '"none at all"'),
    ],
)
def test_values_that_mean_something_else_do_not_fit(kind: str, written: str) -> None:
    with pytest.raises(AnswerError):
        parse(f'{{"{kind}": {written}}}', object_schema("s", **{kind: KINDS[kind]}))


def test_a_number_that_was_cut_off_is_no_number() -> None:
    with pytest.raises(AnswerError):
        parse('{"integer": 12', object_schema("s", integer={"type": "integer"}))
    assert parse('{"a": "x", "integer": 12 ', Schema.of("s", {"properties": {"a": {}, "integer": {"type": "integer"}}})) == {"a": "x"}


def test_a_key_as_the_schema_writes_it_comes_before_one_that_is_like_it() -> None:
    schema = object_schema("s", criterion_1=YES_NO)
    assert parse('{"criterion_1": "yes", "Criterion 1": "no"}', schema) == {"criterion_1": "yes"}
    assert parse('{"Criterion 1": "no"}', schema) == {"criterion_1": "no"}


# --- properties

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PROSE = st.text(st.characters(exclude_characters="{"), max_size=30)


@settings(max_examples=300)
@given(st.dictionaries(st.text(), JSON, max_size=5), PROSE, PROSE, st.sampled_from([None, 0, 2]), st.booleans())
@example({"a": '", "b": "}'}, "", "", None, True)
@example({"": [{}, [], "\u201d,", "// x"]}, "```json\n", "\n```", 2, False)
def test_any_json_is_read_as_it_stands_whatever_is_written_around_it(data: dict[str, Any], before: str, after: str, indent: int | None, ascii_: bool) -> None:
    assert objects(before + json.dumps(data, indent=indent, ensure_ascii=ascii_) + after)[-1] == data


WORDS = st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=12).filter(
    lambda w: w.lower() not in ("true", "false", "null", "none", "undefined", "nan", "infinity") and not w[0].isdigit()
)
LEAVES = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | WORDS
PLAIN = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=8)


def dressed(value: Any, draw: Any) -> str:
    """`value` as a model might write it: other quotes or none, comments, trailing commas, Python's literals."""
    if isinstance(value, str):
        left, right = draw(st.sampled_from(['""', "''", "\u201c\u201d", "\u2018\u2019", ("", "")]))
        return f"{left}{value}{right}"
    if value is None or isinstance(value, bool):
        return draw(st.sampled_from([json.dumps(value), str(value)]))
    if isinstance(value, int):
        return str(value)
    gap = draw(st.sampled_from(["", " ", "\n", " // so, then: {\n", " /* [ */ ", "\n# no\n"]))
    end = draw(st.sampled_from(["", ",", ",\n"]))
    if isinstance(value, list):
        return "[" + f",{gap}".join(dressed(v, draw) for v in value) + (end if value else "") + gap + "]"
    return "{" + gap + ", ".join(f"{dressed(k, draw)}: {dressed(v, draw)}" for k, v in value.items()) + (end if value else "") + gap + "}"


@settings(max_examples=300)
@given(st.dictionaries(WORDS, PLAIN, max_size=4), st.data())
def test_any_json_is_read_through_what_models_add_to_it(data: dict[str, Any], drawn: st.DataObject) -> None:
    assert objects(dressed(data, drawn.draw))[-1] == data


@settings(max_examples=300)
@given(st.text() | st.text(st.sampled_from(list("{}[]:,\"'\\/*#\n ayesn1eu\u201c\u201d")), max_size=80) | st.text(st.characters(categories=["Cs", "Cc"])))
@example("\ud83d{'answer': 'yes\udfff'")
def test_any_text_is_read_or_is_the_one_error(text: str) -> None:
    with suppress(AnswerError):
        got = parse(text, ANSWERED)
        assert got["answer"] in ("yes", "no")
        assert "".join(got.values()).encode().decode() == "".join(got.values()), "no half characters"


@settings(max_examples=200)
@given(st.fixed_dictionaries({"reason": st.text(), "answer": st.sampled_from(["yes", "no"])}), st.data())
def test_an_answer_that_was_cut_off_is_never_read_as_another(data: dict[str, str], drawn: st.DataObject) -> None:
    whole = json.dumps(data)
    got = None
    with suppress(AnswerError):
        got = parse(whole[: drawn.draw(st.integers(0, len(whole)))], ANSWERED)
    assert got is None or got["answer"] == data["answer"]


@pytest.mark.parametrize(
    "unit", ['{"', '{"a":"', "{", "[{", '{"a":[', "/*", '\\"{', "{\u201c", '{"a":1},', '{"a":"\n', '"\n', '" ', "\n", "{a: //", '{"a":"b" "c":', "{#"]
)
def test_the_time_is_bounded_however_the_text_is_made(unit: str) -> None:
    """A reader that went back would need minutes for these; the bound is a hundred times what they take."""
    started = time.process_time()
    for head in ("", '{"a": "', '{"a": '):
        with pytest.raises(AnswerError):
            parse(head + unit * (1_000_000 // len(unit)), JUDGED)
    assert time.process_time() - started < 30


def test_deep_nesting_is_passed_over_and_what_stands_behind_it_is_read() -> None:
    assert parse('{"a":' * 500 + "}" * 500 + ' {"reason": "r", "answer": "no"}', JUDGED)["answer"] == "no"
    assert parse("[" * 30_000 + '{"reason": "r", "answer": "no"}', JUDGED)["answer"] == "no"


def test_a_number_too_long_to_be_one_is_no_answer_and_no_crash() -> None:
    schema = object_schema("s", number={"type": "number"})
    for digits in (400, 4_000, 20_000):
        try:
            assert math.isfinite(len(str(parse(f'{{"number": {"9" * digits}}}', schema)["number"])))
        except AnswerError:
            assert digits > 300


# --- schemas


def test_a_schema_keeps_the_order_of_its_properties_and_can_be_hashed() -> None:
    assert JUDGED.json.index("reason") < JUDGED.json.index("answer")
    assert JUDGED.definition == {
        "type": "object",
        "properties": {"reason": {"type": "string"}, "answer": YES_NO},
        "required": ["reason", "answer"],
        "additionalProperties": False,
    }
    assert len({JUDGED, Schema.of("judged", JUDGED.definition), Schema.of("other", JUDGED.definition)}) == 2


def test_a_request_without_a_schema_looks_as_it_always_did() -> None:
    """The embedded engine seeds its draws with it: another word here, and every embedded answer is another."""
    shown = "Generation(prompt='x', sampling=Sampling(max_tokens=128, temperature=0.8, top_k=40, repetition_penalty=1.0, n=1), seed=3)"
    assert repr(Generation("x", Sampling(), 3)) == repr(Generation("x", Sampling(), 3, JUDGED)) == shown
    assert Generation("x", Sampling(), 3) != Generation("x", Sampling(), 3, JUDGED)
