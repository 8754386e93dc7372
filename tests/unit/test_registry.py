"""Filters by name, by file and by entry point: what a config may say, and how it is told what it must not."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, get_args

import pytest

from safer_instruct import yamlfile
from safer_instruct.config import FilterConfig, RunConfig, load_config
from safer_instruct.errors import ConfigError, MissingExtraError
from safer_instruct.example import Example, Verdict
from safer_instruct.filters.checks import Check, check_all
from safer_instruct.filters.registry import DEFAULTS, GROUP, SHIPPED, Filters, open_filters

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).parents[2]
KNOWN = sorted({*SHIPPED, *metadata.entry_points(group=GROUP).names})
RUN = "domain: civility\nsource: {path: texts.jsonl}\nmodels: {inducer: 'scripted:', expert: 'scripted:'}\nfilter:\n"
EXAMPLE = Example("1", "The source text.", "support", "f", 1, prompt="WHERE is my parcel now?", chosen="I will look.")
SHORT = """\
from typing import Literal
from safer_instruct.filters import Example, Filter, Finding


class Short(Filter):
    most: int = 3

    def check(self, example: Example) -> Finding:
        count = len(self.subject(example).split())
        return Finding(count <= self.most, count, f"has {count} words")
"""


def opened(**sections: Any) -> Filters:
    return open_filters(FilterConfig(**sections), Path())


def written(folder: Path, filters: str, **files: str) -> RunConfig:
    """A config with that section `filter`, and Python files beside it."""
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    (folder / "my.yaml").write_text(RUN + filters, encoding="utf-8")
    return load_config(folder / "my.yaml")


def found(config: RunConfig) -> Filters:
    return open_filters(config.filter, config.base, config.file)


def refusal(folder: Path, filters: str, **files: str) -> str:
    with pytest.raises(ConfigError) as caught:
        found(written(folder, filters, **files))
    return str(caught.value)


def names(checks: tuple[Check, ...]) -> list[str]:
    return [check.name for check in checks]


# --- what is on


def test_without_a_word_the_defaults_are_on() -> None:
    filters = opened()
    assert {place: tuple(name.partition(".")[2] for name in names(getattr(filters, place))) for place in DEFAULTS} == DEFAULTS
    assert all(check.name.startswith("prompt.") for check in filters.prompt)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_filter_stands_where_it_says_that_it_can_and_nowhere_else(name: str) -> None:
    module, _, class_ = SHIPPED[name].partition(":")
    filter_ = getattr(import_module(f"safer_instruct.filters.{module}"), class_)
    places = get_args(filter_.model_fields["on"].annotation)
    assert filter_.__doc__ and set(places) <= DEFAULTS.keys()
    for place in DEFAULTS:
        if place in places:
            check = next(c for c in getattr(opened(**{place: {name: {}}}), place) if c.name == f"{place}.{name}")
            assert check.filter.on == place and not check.verdict(EXAMPLE).reason.startswith("raised")
        else:
            with pytest.raises(ConfigError, match=f"cannot look at '{place}'; move it to filter"):
                opened(**{place: {name: {}}})


def test_null_switches_off_one_filter_or_a_whole_place() -> None:
    assert names(opened(prompt={"language": None}).prompt) == [f"prompt.{n}" for n in DEFAULTS["prompt"] if n != "language"]
    assert opened(prompt=None).prompt == ()


def test_what_a_config_adds_comes_after_the_defaults_and_may_stand_twice_under_two_names() -> None:
    filters = opened(prompt={"very_long": {"use": "length", "max_words": 400, "mode": "flag"}, "length": {"min_words": 2}})
    assert names(filters.prompt) == [*(f"prompt.{n}" for n in DEFAULTS["prompt"]), "prompt.very_long"]
    first, last = filters.prompt[0].filter, filters.prompt[-1].filter
    assert (first.model_dump(), last.model_dump()) == (
        {"on": "prompt", "mode": "drop", "min_words": 2, "max_words": 150},
        {"on": "prompt", "mode": "flag", "min_words": 4, "max_words": 400},
    )


def test_the_record_says_all_that_the_verdicts_depend_on(tmp_path: Path) -> None:
    config = written(tmp_path, "  prompt:\n    language: null\n    short: {path: short.py, most: 9}\n", short=SHORT)
    record = found(config).record()
    assert record["text"] == record["pair"] == {} and list(record["prompt"])[-1] == "short" and "language" not in record["prompt"]
    digest = hashlib.sha256((tmp_path / "short.py").read_bytes()).hexdigest()
    assert record["prompt"]["short"] == {"mode": "drop", "most": 9, "sha256": digest}
    assert record["prompt"]["length"] == {"mode": "drop", "min_words": 4, "max_words": 150}
    assert json.loads(json.dumps(record)) == record, "plain data"


def test_writing_out_a_default_changes_nothing() -> None:
    assert opened(prompt={"length": {"min_words": 4}}).record() == opened().record()


# --- a filter of one's own


def test_a_file_beside_the_config_is_a_filter(tmp_path: Path) -> None:
    config = written(tmp_path, "  text:\n    short: {path: short.py}\n  pair:\n    short: {path: short.py, most: 1, mode: flag}\n", short=SHORT)
    filters = found(config)
    assert check_all(filters.text, EXAMPLE) == (Verdict("text.short", True, 3.0),)
    assert check_all(filters.pair, EXAMPLE) == (Verdict("pair.short", False, 3.0, "has 3 words", flag=True),)


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    before = found(written(tmp_path, "  text: {short: {path: short.py}}\n", short=SHORT)).text[0]
    after = found(written(tmp_path, "  text: {short: {path: short.py}}\n", short=SHORT.replace("= 3", "= 2"))).text[0]
    assert before.verdict(EXAMPLE).passed and not after.verdict(EXAMPLE).passed and before.sha256 != after.sha256
    assert list(tmp_path.glob("__pycache__")) == []


def test_a_filter_may_read_a_file_beside_the_config_when_it_is_set_up(tmp_path: Path) -> None:
    source = """\
from pathlib import Path
from safer_instruct.filters import Example, Filter, Finding

class Banned(Filter):
    words: str

    def model_post_init(self, context):
        self.__dict__["banned"] = set((context["base"] / self.words).read_text().split())

    def check(self, example):
        return Finding(not self.banned & set(self.subject(example).split()), None, "says what is banned")
"""
    (tmp_path / "banned.txt").write_text("text. parcel")
    config = written(tmp_path, "  text: {banned: {path: banned.py, words: banned.txt}}\n", banned=source)
    assert not found(config).text[0].verdict(EXAMPLE).passed
    (tmp_path / "banned.txt").unlink()
    assert "my.yaml:5: filter 'banned' cannot be set up: FileNotFoundError" in refusal(tmp_path, "  text: {banned: {path: banned.py, words: banned.txt}}\n")


def test_the_shipped_example_of_a_users_filter_does_what_it_says(tmp_path: Path) -> None:
    source = (ROOT / "examples" / "filters" / "shouting.py").read_text("utf-8")
    (check,) = found(written(tmp_path, "  prompt: {shouting: {path: shouting.py, max_share: 0.2}}\n", shouting=source)).prompt[-1:]
    assert check.verdict(EXAMPLE) == Verdict("prompt.shouting", False, 5 / 18, "28% of its letters are capitals, more than 20%")


@pytest.fixture
def announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a package that announces filters, as pip would: its module and its metadata on the path."""

    def install(package: str, entry_points: str, source: str) -> None:
        folder = tmp_path / "site"
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{package}.py").write_text(source, encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[safer_instruct.filters]\n{entry_points}\n")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, package, raising=False)

    return install


def test_another_package_can_announce_a_filter(announced: Callable[..., None], tmp_path: Path) -> None:
    announced("shortly", "short_text = shortly:Short", SHORT)
    (check,) = opened(text={"short_text": {"most": 2}}).text
    assert check.verdict(EXAMPLE) == Verdict("text.short_text", False, 3.0, "has 3 words")
    assert check.sha256 == hashlib.sha256((tmp_path / "site" / "shortly.py").read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match=r"there is no filter 'short_tex'; did you mean 'short_text'\?"):
        opened(text={"short_tex": {}})


def test_two_packages_that_announce_the_same_are_refused(announced: Callable[..., None]) -> None:
    announced("oneshort", "short_text = oneshort:Short", SHORT)
    announced("twoshort", "short_text = twoshort:Short", SHORT)
    with pytest.raises(ConfigError, match=r"several packages announce a filter 'short_text': .*; uninstall all but one"):
        opened(text={"short_text": {}})


@pytest.mark.parametrize(
    ("entry", "source", "said"),
    [
        ("broken = nothere_x:Short", SHORT, r"filter 'broken' \(nothere_x:Short\) cannot be loaded: ModuleNotFoundError"),
        ("broken = badpack:missing", SHORT, r"cannot be loaded: AttributeError"),
        ("broken = badpack:Example", SHORT, r"is no subclass of safer_instruct\.filters\.Filter with a method 'check'"),
        ("broken = badpack:Short", "1/0", r"cannot be loaded: ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_package_is_a_clear_error(announced: Callable[..., None], entry: str, source: str, said: str) -> None:
    announced("badpack", entry, source)
    with pytest.raises(ConfigError, match=said):
        opened(text={"broken": {}})


def test_a_filter_that_needs_what_is_not_installed_says_so(tmp_path: Path) -> None:
    source = "from safer_instruct.extras import require\nrequire('not_there_at_all', extra='local', purpose='my filter')\n"
    config = written(tmp_path, "  text: {mine: {path: mine.py}}\n", mine=source)
    with pytest.raises(MissingExtraError, match="my filter needs not_there_at_all"):
        found(config)


# --- what a config must not say


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ("  prompt:\n    lenght: {}\n", "my.yaml:6: there is no filter 'lenght'; did you mean 'length'? A filter of your own needs 'path'"),
        ("  prompt:\n    x: {use: 3}\n", f"my.yaml:6: there is no filter '3'; there are {', '.join(KNOWN)}."),
        ("  prompt:\n    length:\n      min_wrods: 2\n", "my.yaml:7: unknown key 'filter.prompt.length.min_wrods'; did you mean 'min_words'?"),
        ("  prompt:\n    length:\n      min_words: 0\n", "my.yaml:7: 'filter.prompt.length.min_words': Input should be greater than 0"),
        ("  prompt:\n    length: {mode: warn}\n", "my.yaml:6: 'filter.prompt.length.mode': Input should be 'drop', 'flag' or 'mask'"),
        (
            "  prompt:\n    length: {'on': text}\n",
            "my.yaml:6: unknown key 'filter.prompt.length.on'; the section says it: filter.text, filter.prompt, filter.pair",
        ),
        ("  text:\n    length: {on: text}\n", "my.yaml:6: unknown key 'filter.text.length.on'; the section says it: filter.text, filter.prompt, filter.pair"),
        ("  pair:\n    refusal: {}\n", "'refusal' cannot look at 'pair'; move it to filter.prompt, or write 'refusing', which finds that here"),
        ("  pair:\n    x: {use: refusal}\n", "cannot look at 'pair'; move it to filter.prompt, or write 'refusing', which finds that here"),
        ("  text:\n    copying: {}\n", "my.yaml:6: filter 'copying' cannot look at 'text'; move it to filter.prompt"),
        ("  text:\n    x: {use: length, path: short.py}\n", "my.yaml:6: filter 'x' has both 'use' and 'path'; one of them says what it is"),
        ("  text:\n    x: {path: gone.py}\n", "my.yaml:6: filter 'x': "),
        ("  text:\n    x: {path: .}\n", "cannot be read (Is a directory)"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, filters: str, said: str) -> None:
    message = refusal(tmp_path, filters, short=SHORT)
    assert said in message and "\n" not in message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def check(:\n", "broken.py:1: not valid Python: "),
        ("x = 1\0", "broken.py"),
        ("import not_there_at_all\n", "cannot be loaded: ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("raise RuntimeError('\\x1b[2J')\n", "cannot be loaded: RuntimeError: [2J"),
        ("x = 1\n", "must define one subclass of safer_instruct.filters.Filter with a method 'check'; it defines none"),
        (SHORT + "\n\nclass Other(Short):\n    pass\n", "it defines 2: Short, Other"),
        ("from safer_instruct.filters import Filter\n\n\nclass Empty(Filter):\n    most: int = 3\n", "it defines none"),
        (SHORT.replace("most: int = 3", "most: int"), "my.yaml:5: the key 'filter.text.broken.most' is missing"),
        (SHORT.replace("most: int = 3", "most = 3"), "cannot be loaded: PydanticUserError"),
    ],
)
def test_a_broken_file_is_a_clear_error(tmp_path: Path, source: str, said: str) -> None:
    assert said in refusal(tmp_path, "  text: {broken: {path: broken.py}}\n", broken=source)


def test_a_config_that_stands_in_no_file_is_told_all_the_same() -> None:
    with pytest.raises(ConfigError, match=r"^config: unknown key 'filter\.prompt\.length\.min_wrods'"):
        opened(prompt={"length": {"min_wrods": 1}})


def test_a_file_that_is_gone_by_now_costs_only_the_line(tmp_path: Path) -> None:
    assert yamlfile.located(("filter",), tmp_path / "gone.yaml") == str(tmp_path / "gone.yaml")


# --- at work


RETURNED = "raised TypeError: x.py:8: Short.check returned"
RETURN = "return Finding(passed, score, reason): True or False, a number or None, and why it did not pass"


def raising(folder: Path, body: str, options: str = "") -> Verdict:
    source = SHORT[: SHORT.index("        count")] + f"        {body}\n"
    return found(written(folder, f"  text: {{x: {{path: x.py{options}}}}}\n", x=source)).text[0].verdict(EXAMPLE)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('no\\x1b[31m such\\nword')", "raised ValueError: no [31m such word"),
        ("raise KeyError", "raised KeyError:"),
        ("return 1 / 0", "raised ZeroDivisionError: division by zero"),
        ("return None", f"{RETURNED} None; {RETURN}"),
        ("return True", f"{RETURNED} True; {RETURN}"),
        ("return (False, 'holds an address')", f"{RETURNED} (False, 'holds an address'); {RETURN}"),
        ("return 'x' * 10_000", f"{RETURNED} '{'x' * 56}...; {RETURN}"),
        (
            "return Finding(False, 'much', 'x')",
            f"{RETURNED} Finding(passed=False, score='much', reason='x'), whose 'score' is neither a number nor None; {RETURN}",
        ),
        ("return Finding(False, None, 'with\\udc80 \\x00odd\\u202e letters')", "with odd letters"),
        ("return Finding(False, None, 'x' * 10_000)", "x" * 297 + "..."),
        ("return Finding(False, None, 3)", f"{RETURNED} Finding(passed=False, score=None, reason=3), whose 'reason' is no text; {RETURN}"),
        ("assert False", "raised AssertionError:"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("return Finding('no', None, 'x')", f"{RETURNED} Finding(passed='no', score=None, reason='x'), whose 'passed' is neither True nor False; {RETURN}"),
        ("return Finding(float('nan'))", f"{RETURNED} Finding(passed=nan, score=None, reason=''), whose 'passed' is neither True nor False; {RETURN}"),
    ],
)
def test_what_a_filter_raises_or_says_is_the_verdict_of_that_example(tmp_path: Path, body: str, reason: str) -> None:
    verdict = raising(tmp_path, body)
    assert verdict.drops and verdict.score is None and verdict.reason.startswith(reason)
    assert not raising(tmp_path, body, ", mode: flag").drops, "a flag that fails to look drops nothing"


def test_a_mask_that_returns_no_finding_is_told_so_and_lets_nothing_through(tmp_path: Path) -> None:
    source = SHORT[: SHORT.index("        count")] + "        return True\n\n    def mend(self, example):\n        return ''\n"
    (check,) = found(written(tmp_path, "  text: {x: {path: x.py, mode: mask}}\n", x=source)).text
    left = check.mended(EXAMPLE)
    assert left.text == "" and left.verdicts[-1].drops and left.verdicts[-1].reason == f"{RETURNED} True; {RETURN}"


def test_a_filter_that_raises_an_error_from_the_first_text_on_stops_the_run(tmp_path: Path) -> None:
    source = SHORT[: SHORT.index("        count")] + "        return Finding(len(example.text) / 0)\n"
    (check,) = found(written(tmp_path, "  text: {x: {path: x.py}}\n", x=source)).text
    for _ in range(19):
        assert check.verdict(EXAMPLE).reason.startswith("raised ZeroDivisionError")
    with pytest.raises(ConfigError, match=r"the filter 'text\.x' raised ZeroDivisionError: .* and so the first 20 times that it was asked; mend it"):
        check.verdict(EXAMPLE)


def test_a_filter_that_has_worked_may_raise_as_often_as_it_will(tmp_path: Path) -> None:
    source = SHORT[: SHORT.index("        count")] + "        return Finding(1 / len(example.text) > 0)\n"
    (check,) = found(written(tmp_path, "  text: {x: {path: x.py}}\n", x=source)).text
    empty = replace(EXAMPLE, text="")
    said = [check.verdict(example).passed for example in (*[empty] * 19, EXAMPLE, *[empty] * 30)]
    assert said == [False] * 19 + [True] + [False] * 30


def test_an_interrupt_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        raising(tmp_path, "raise KeyboardInterrupt")


def test_an_error_that_says_what_to_do_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give me a list"):
        raising(tmp_path, "from safer_instruct.errors import ConfigError; raise ConfigError('give me a list')")


def test_a_reason_is_kept_only_where_something_is_wrong(tmp_path: Path) -> None:
    assert raising(tmp_path, "return Finding(True, 1, 'all well')") == Verdict("text.x", True, 1.0)
    assert raising(tmp_path, "return Finding(True)") == Verdict("text.x", True)
