"""What a report says: its figures against counts made here, its findings, and that text stays text in both files."""

from __future__ import annotations

import hashlib
import html
import json
import re
from array import array
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile_texts import PAYLOADS
from made_runs import made_up, write_run

from safer_instruct.analysis.style import length_gap
from safer_instruct.cli import main
from safer_instruct.errors import RunDirectoryError
from safer_instruct.example import Example, Verdict
from safer_instruct.ledger import Total
from safer_instruct.models.protocol import Usage
from safer_instruct.report import write_report
from safer_instruct.report.bins import histogram, round_edges
from safer_instruct.report.build import describe
from safer_instruct.report.document import Document, Figure, Problem, Table
from safer_instruct.report.flow import cost, funnel
from safer_instruct.report.gather import Scores, read_run
from safer_instruct.report.markdown import as_markdown
from safer_instruct.report.page import as_script_data
from safer_instruct.report.scores import _curve, precision_recall, scores
from safer_instruct.thresholds import load_calibration
from safer_instruct.visible import plain


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return list(made_up(300))


@pytest.fixture(scope="module")
def run(examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "made", examples)


@pytest.fixture(scope="module")
def document(run: Path) -> Document:
    return describe(run)


def part(document: Document, id_: str) -> Figure:
    return next(p for section in document.sections for p in section.parts if isinstance(p, Figure) and p.id == id_)


def found(document: Document) -> list[Problem]:
    return [problem for section in document.sections for problem in section.problems or ()]


def test_the_funnel_loses_nothing_on_the_way(document: Document, examples: list[Example]) -> None:
    links = part(document, "funnel-0").data["links"]
    into, out = Counter[str](), Counter[str]()
    for link in links:
        into[link["target"]] += link["value"]
        out[link["source"]] += link["value"]
    assert out["source"] == 300 and into["pairs"] == sum(e.alive for e in examples)
    assert all(into[name] == out[name] for name in out if name != "source")
    by = Counter(e.dropped_by.name for e in examples if e.dropped_by)
    assert {row[1]: row[2] for row in part(document, "funnel-0").table.rows if row[0]} == by


def test_checks_that_dropped_as_many_are_all_named(run: Path) -> None:
    dropped = {"collect": {"dedup.text": 3}, "filter": {"prompt.copying": 3, "likelihood": 1}}
    view = read_run(run)
    view.summary["stages"] = {name: {**view.summary["stages"]["filter"], "dropped": said} for name, said in dropped.items()}
    most = "The checks that dropped the most are dedup.text, in the stage collect; and prompt.copying, in the stage filter: 3 each."
    assert most in part(Document("", "", (), (funnel([view]),)), "funnel-0").says
    view.summary["stages"]["filter"]["dropped"]["likelihood"] = 4
    assert "The check that dropped the most is likelihood, in the stage filter: 4." in part(Document("", "", (), (funnel([view]),)), "funnel-0").says


def test_categories_and_lengths_are_those_of_the_examples(document: Document, examples: list[Example]) -> None:
    kept, rows = Counter(e.category for e in examples if e.alive), Counter(e.category for e in examples)
    assert {row[0]: (row[1], row[2]) for row in part(document, "categories-0").table.rows} == {c: (rows[c], kept[c]) for c in rows}
    figure = part(document, "length-chosen")
    lengths = [len(e.chosen.split()) for e in examples if e.alive]
    edges, values = figure.data["edges"], figure.data["series"][0]["values"]
    inner = [(low, high, v) for low, high, v in zip(edges[1:-2], edges[2:-1], values[1:-1], strict=True)]
    assert inner and all(v == pytest.approx(100 * sum(low <= n < high for n in lengths) / len(lengths), abs=0.01) for low, high, v in inner)
    assert sum(values) == pytest.approx(100, abs=0.1)


def test_scores_show_the_bound_of_the_config(document: Document) -> None:
    figure = next(p for s in document.sections for p in s.parts if isinstance(p, Figure) and p.title == "likelihood")
    assert figure.data["marks"] == [{"at": -6.0, "name": "bound"}]
    edges = figure.data["edges"]
    for series in figure.data["series"]:
        wrong = [v for low, v in zip(edges, series["values"], strict=False) if v and (low < -6) == (series["name"] == "passed")]
        assert wrong == []


def test_precision_and_recall_at_each_bound() -> None:
    rows = [(0.9, True), (0.8, False), (0.8, True), (0.2, True), (0.1, False)]
    assert precision_recall(rows) == [(1 / 3, 1.0, 0.9), (2 / 3, 2 / 3, 0.8), (1.0, 3 / 4, 0.2), (1.0, 3 / 5, 0.1)]


def test_labels_give_a_curve(run: Path, examples: list[Example], tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\n" + "".join(f"{e.id},{'good' if i % 4 else 'bad'}\n" for i, e in enumerate(examples[:80])), "utf-8")
    curve = part(describe(run, labels=labels), "curve-0")
    assert "80 labelled examples, 60 of them good" in curve.says
    recalls = [point[0] for point in curve.data["points"]]
    assert recalls == sorted(recalls) and recalls[-1] == 1.0 and curve.data["base"] == 0.75


@pytest.mark.parametrize(
    ("values", "whole", "edges"),
    [([0, 10], True, list(range(12))), ([3, 3, 3], True, [3, 4]), ([], True, [0, 1, 2]), ([-0.5, 0.5], False, None)],
)
def test_edges_are_round_and_hold_the_values(values: list[float], whole: bool, edges: list[float] | None) -> None:
    made = round_edges([values], most=20, whole=whole)
    assert edges is None or made == edges
    assert made == sorted(set(made)) and 2 <= len(made) <= 45
    assert not values or sum(histogram(values, made)) == pytest.approx(100, abs=0.1)


def test_the_shares_of_a_score_are_those_of_its_values(run: Path) -> None:
    """Passed and failed alike: 6 of 56 are 10.714, and a share that is rounded before it is scaled would read 10.715."""
    view = read_run(run)
    view.scores["verify.better"] = Scores(array("d", [0.05] * 2 + [0.15] * 48), array("d", [-0.15] * 6))
    figure = next(p for p in scores([view]).parts if isinstance(p, Figure) and p.title == "verify.better")
    assert sorted({cell for _, *cells in figure.table.rows for cell in cells}) == [0.0, 3.571, 10.714, 85.714]


def test_a_bin_holds_no_value_of_few_that_lies_outside_of_it() -> None:
    values = [-0.005, 0.25, *(0.3 + 0.01 * i for i in range(33))]
    edges = round_edges([values], most=10, whole=False)
    assert edges[0] <= -0.005 and max(values) <= edges[-1]
    assert histogram(values, edges)[:2] == [pytest.approx(100 / 35, abs=0.01), 0.0]


def _changed(examples: list[Example], **fields: Any) -> list[Example]:
    return [replace(e, **{k: v(e) for k, v in fields.items()}) if e.alive else e for e in examples]


@pytest.mark.parametrize(
    ("fields", "changed", "level", "says"),
    [
        ({"chosen": lambda e: e.chosen + " and more" * 40}, {}, "serious", "is the longer one in 100%"),
        ({"chosen": lambda e: "Yes."}, {}, "serious", "is the shorter one in 100%"),
        ({"chosen": lambda e: e.text}, {}, "serious", "chosen and the rejected response are the same"),
        ({"prompt": lambda e: "How do I return the green kettle that leaks?"}, {}, "serious", "near-duplicates of others"),
        ({"prompt": lambda e: f"Tell me all about {e.prompt}"}, {}, "look", "of the prompts begin with 'tell me all about'"),
        ({"text": lambda e: f"\u202e{e.text}"}, {}, "serious", "characters that nobody sees"),
        ({"rejected": lambda e: f"Rewritten.\u200b {e.text}"}, {}, "serious", "characters that nobody sees"),
        ({"category": lambda e: "rare" if e.id == "e000000" else "common"}, {}, "look", "fewer than 20 pairs"),
        ({}, {"rows": 239 + 7, "set_aside": 7}, "look", "7 source rows could not be read"),
        ({}, {"unread": {"files": 1, "places": ["a.csv.gz:5"]}}, "serious", "1 file was not read to the end; nothing was read from a.csv.gz:5 on."),
        ({}, {"cost": None}, "look", "The cost is unknown"),
        ({"verdicts": lambda e: (*e.verdicts, Verdict("pii", False, None, "a name", True))}, {}, "look", "pii flagged"),
    ],
)
def test_a_problem_of_the_data_is_named(
    examples: list[Example], tmp_path: Path, fields: dict[str, Any], changed: dict[str, Any], level: str, says: str
) -> None:
    alive = [replace(e, id=f"e{i:06}") for i, e in enumerate(e for e in examples if e.alive)]
    run = write_run(tmp_path / "run", _changed(alive, **fields), **changed)
    named = [problem for problem in found(describe(run)) if says in problem.what]
    assert [problem.level for problem in named] == [level] and all(problem.do for problem in named)


@pytest.mark.parametrize("more", [0, 1])
def test_length_is_a_finding_where_the_audit_says_so(examples: list[Example], tmp_path: Path, more: int) -> None:
    """Longer in three quarters, and alike in the others: by the audit's count, with half of the ties, that is 88%, which is bad."""
    alive = [replace(e, id=f"e{i:06}", chosen=e.text + " more" * (more if i % 4 else 0)) for i, e in enumerate(e for e in examples if e.alive)]
    problems = [problem for problem in found(describe(write_run(tmp_path / "run", alive))) if "Length alone" in problem.why]
    gap = length_gap([e.chosen for e in alive], [e.text for e in alive])
    assert gap.level == ("bad" if more else "ok") and gap.longer < 0.8
    assert [problem.level for problem in problems] == ["serious"] * more
    assert all("is the longer one in 75% of the pairs, and as long as the other in 25%" in problem.what for problem in problems)


def test_the_time_is_that_of_the_sitting_before_the_report(examples: list[Example], tmp_path: Path) -> None:
    """A run made again from the ledger brings the report back as it was, and its summary has the time of the new sitting."""
    run = write_run(tmp_path / "run", examples)
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    timing = {**summary["timing"], "wall_s": 11.2, "calls_from_ledger": 7}
    (run / "summary.json").write_text(json.dumps({**summary, "timing": timing}), "utf-8")
    document = describe(run)
    assert document.tiles[-1] == ("time", "11 s", "of the last sitting before this report; 7 calls were in the ledger")
    assert "11 seconds by the clock, in the last sitting before this report." in part(document, "cost-0").says


def test_a_ledger_that_cannot_be_read_is_told_where_its_figures_are_missing(examples: list[Example], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", examples)
    assert "ledger" not in part(describe(run), "cost-0").says, "one that is gone was put away by somebody"
    (run / "ledger.sqlite").write_bytes(b"no database, but longer than nothing" * 100)
    document = describe(run)
    assert "The ledger cannot be read, so the figures of the stages are those of the summary" in part(document, "cost-0").says
    (problem,) = (problem for problem in found(document) if problem.what == "The ledger cannot be read.")
    assert str(run / "ledger.sqlite") in problem.do
    assert all(file.read_text("utf-8").count("The ledger cannot be read") >= 2 for file in write_report(run))


@pytest.mark.parametrize(
    ("lies_here", "thresholds", "named", "caption"),
    [
        (False, "defaults or the config's own, not calibrated", "The thresholds are defaults or the config's own, fitted to no label.", ""),
        (
            True,
            "defaults or the config's own, not calibrated",
            "The thresholds are not those of calibration.yaml, which lies here and rests on 40 labels.",
            " (not used by this run)",
        ),
        (True, "calibrated on 40 labels (aim: precision of at least 0.9): verify.min_margin +0.100; all others are defaults or the config's own", "", ""),
        (
            True,
            "calibrated on 42 labels (aim: precision of at least 0.9): verify.min_margin +0.100; all others are defaults or the config's own",
            "The thresholds are not those of calibration.yaml, which lies here and rests on 40 labels.",
            " (not used by this run)",
        ),
    ],
)
def test_problems_and_scores_say_the_same_of_a_calibration(
    examples: list[Example], tmp_path: Path, lies_here: bool, thresholds: str, named: str, caption: str
) -> None:
    run = write_run(tmp_path / "run", examples, thresholds=thresholds)
    if lies_here:
        (run / "calibration.yaml").write_text("labels: {used: 40}\naim: precision of at least 0.9\nthresholds: {verify.min_margin: 0.1}\n", encoding="utf-8")
    document = describe(run)
    said = [problem for problem in found(document) if "threshold" in problem.what]
    assert [problem.what for problem in said] == [named] * bool(named) and all("calibrat" in problem.do for problem in said)
    captions = [p.caption for s in document.sections for p in s.parts if isinstance(p, Table) and p.caption.startswith("Calibrated on")]
    assert captions == [f"Calibrated on 40 labels, for precision of at least 0.9{caption}"] * lies_here


def test_a_bound_by_a_score_as_good_as_chance_is_a_problem(examples: list[Example], tmp_path: Path) -> None:
    auc = "auc: {value: 0.63, low: 0.44, high: 0.81}"
    text = f"labels: {{used: 40}}\naim: some\nthresholds: {{verify.min_margin: 0.1}}\nscores: {{verify.better: {{key: verify.min_margin, {auc}}}}}\n"
    run = write_run(tmp_path / "run", examples)
    (run / "calibration.yaml").write_text(text, encoding="utf-8")
    assert not any("chance" in problem.what for problem in found(describe(run))), "the run does not use it"
    write_run(run, examples, thresholds=load_calibration(run / "calibration.yaml").described)
    (problem,) = (problem for problem in found(describe(run)) if "chance" in problem.what)
    assert problem.level == "serious" and "The bound verify.min_margin" in problem.what and "0.63 (0.44 to 0.81)" in problem.what


def test_the_strictest_and_the_loosest_bound_stand_once_in_a_table() -> None:
    curve = _curve(0, "consistency", [(float(i), i % 3 > 0) for i in range(150)], None)
    assert curve.table.rows[-1] != curve.table.rows[-2] and curve.table.rows[-1][0] == 1.0


def test_figures_of_the_ledger_say_why_they_are_not_those_of_the_run(run: Path) -> None:
    view = read_run(run)
    fewer = replace(view, totals=[Total("induce", "m", view.summary["calls"] - 1, Usage())])
    assert "requests that were made more than once stand once" in cost([fewer]).parts[0].says
    more = replace(view, totals=[Total("induce", "m", view.summary["calls"] + 1, Usage())])
    assert f"which holds {view.summary['calls'] + 1:,} calls: also of a dry run" in cost([more]).parts[0].says
    same = replace(view, totals=[Total("induce", "m", view.summary["calls"], Usage())])
    assert "The stages are those" not in cost([same]).parts[0].says


def test_what_calls_cost_that_tell_no_tokens_is_unknown_unless_the_summary_knows_it(run: Path) -> None:
    view = replace(read_run(run), totals=[Total(stage, "openai:mute", 1, Usage()) for stage in ("induce", "verify", "elsewhere")])
    view.summary["stages"]["verify"]["cost"], view.summary["stages"]["induce"]["cost"] = None, 0.0
    table = cost([view]).parts[0].table
    assert table and [row[5] for row in table.rows] == ["0.00", "unknown", "unknown"]


@pytest.mark.parametrize(("other", "names"), [("lab/runs/made", ("runs/made", "lab/runs/made")), ("runs/more/made", ("made", "more/made"))])
def test_runs_of_one_name_are_told_apart_by_where_they_lie(examples: list[Example], tmp_path: Path, other: str, names: tuple[str, str]) -> None:
    first, second = write_run(tmp_path / "runs/made", examples), write_run(tmp_path / other, examples)
    document = describe(first, second)
    assert document.title.startswith(names[0]) and document.subtitle.endswith(f"beside {names[1]}")


def test_a_sound_set_has_no_serious_problem(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [e for e in made_up(900, seed=3) if e.alive], thresholds="calibrated on 200 labels")
    assert [problem.what for problem in found(describe(run)) if problem.level == "serious"] == []


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_hardly_any_pairs_still_make_a_report(examples: list[Example], tmp_path: Path, kept: int) -> None:
    few = [e for e in examples if e.alive][:kept] + [e for e in examples if not e.alive][:3]
    html_file, markdown = write_report(write_run(tmp_path / "run", few))
    assert html_file.is_file() and markdown.is_file()


def test_two_runs_stand_side_by_side(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "made", list(made_up(80, seed=5)))
    document = describe(run, other)
    variety = next(p for s in document.sections for p in s.parts if isinstance(p, Table) and p.caption == "Variety")
    names = variety.columns[1:3]
    assert len(set(names)) == 2 and [series["name"] for series in part(document, "length-prompt").data["series"]] == list(names)
    assert part(document, "funnel-1").data["links"][0]["value"] == 80
    assert {group["name"] for group in part(document, "map").data["groups"]} == set(names)


def test_the_same_run_gives_the_same_bytes_in_folders_that_were_not_there(run: Path, tmp_path: Path) -> None:
    first, second = (write_report(run, out=tmp_path / name / "new" / "report.html") for name in "ab")
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_cannot_end_the_data(payload: str) -> None:
    written = as_script_data({"a": payload, payload: [payload]})
    assert not set("<>&\u2028\u2029\x00\x1b\u202e") & set(written) and json.loads(written)["a"] is not None


def test_the_markdown_shows_what_was_kept_and_one_of_what_each_check_dropped_with_its_reason(tmp_path: Path) -> None:
    document = describe(write_run(tmp_path / "run", list(made_up(60))))
    (samples,) = (section.samples for section in document.sections if section.samples)
    dropped_by = {sample.by for sample in samples if sample.outcome == "dropped"}
    assert len(dropped_by) > 1
    page = as_markdown(document)
    headings = re.findall(r"^### .* \(\w+\), dropped by (.*)\n\n?\*why\*: .+$", page, re.M)
    assert sorted(headings) == sorted(map(plain, dropped_by)) and "*chosen*: \n" not in page


def test_text_is_escaped_in_both_files(tmp_path: Path) -> None:
    base = [e for e in made_up(len(PAYLOADS) * 2) if e.alive]
    examples = [replace(e, text=p, prompt=p, chosen=f"{p} yes", category=p, id=f"{i}{p}") for i, (e, p) in enumerate(zip(base, PAYLOADS, strict=False))]
    page, markdown = (file.read_text("utf-8") for file in write_report(write_run(tmp_path / "run", examples)))
    own = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "script",
        "a",
        "b",
        "p",
        "h1",
        "h2",
        "h3",
        "dl",
        "div",
        "dt",
        "dd",
        "span",
        "nav",
        "ul",
        "li",
        "main",
    }
    own |= {
        "section",
        "figure",
        "details",
        "summary",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "bdi",
        "strong",
        "form",
        "label",
        "select",
        "option",
    }
    own |= {"input", "output", "article", "button", "footer", "header"}
    without_scripts = re.sub(r"(?s)<script>.*?</script>", "", page)
    assert set(re.findall(r"<([a-zA-Z][\w:-]*)", without_scripts)) <= own
    assert len(re.findall(r"<script", without_scripts)) == 1 and "<img" not in without_scripts
    assert not re.search(r"<[a-zA-Z/!]", markdown) and not re.search(r"(?<!\\)\]\(", markdown) and "javascript:" not in markdown
    assert not set("\x00\x1b\u202e\u2066\u200b\u2028") & set(page + markdown)
    assert html.escape(PAYLOADS[0], quote=True).replace("&#x27;", "&#39;") in page


def test_the_vendored_charts_are_the_published_ones_and_fit_inline() -> None:
    folder = Path(__file__).parents[2] / "src/safer_instruct/report/vendor"
    script = (folder / "echarts.min.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"
    assert b"</script" not in script.lower() and b"<!--" not in script and b"\r" not in script


def test_the_command_says_what_it_wrote(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["report", str(run), "--out", str(tmp_path / "r.html")])
    assert done.value.code == 0 and "r.html" in capsys.readouterr().out
    written = (tmp_path / "r.md").read_text("utf-8")
    assert written.startswith("# made") and "Checks" in written and not any(of_page in written for of_page in ("underlined", "The line is"))


def test_an_unfinished_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no finished run"):
        write_report(tmp_path)
