"""`filters` and `why`, and a filter of a user's own from the config to the figures."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import civil_script
import pyarrow.parquet as pq
import pytest
from command_line import Cli, caller
from rich.console import Console
from runs import summed_up

from safer_instruct import derived, rundir, stored, tables
from safer_instruct.errors import RunDirectoryError
from safer_instruct.example import Candidate, Draft, Example, Verdict
from safer_instruct.views.story import tell

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).parents[2]

TEXTS = {
    "printer": "The printer is not broken. You left the lid open, again, and then you rang us about it on a Sunday.",
    "plug": "Nobody reads the manual these days, so here we are, discussing which end of a plug goes into the wall.",
    "parcel": "Your parcel is where you told us to leave it, which is more than can be said for your good manners.",
    "loud": "YOU HAVE LEFT THE GATE OPEN AND NOW THE DOG IS IN ANOTHER COUNTY, WHICH IS NOT OUR DOING AT ALL, IS IT.",
    "hostile": "\x1b[2J[bold]Your hat is in lost property[/bold] where it has been since the spring, and where it may stay.",
}
SCRIPT = civil_script.SCRIPT.replace(
    "generate:\n",
    """\
generate:
- {match: "Below is a response[^#]*###[^#]*plug", answers: ["WHICH END OF A PLUG GOES IN", "Which end of the plug is meant?"]}
- {match: "Below is a response[^#]*###[^#]*parcel", answers: ["WHERE IS MY PARCEL GONE"]}
""",
)
CONFIG = """\
domain: civility
source: {path: texts.jsonl, id: id}
models: {inducer: "scripted:script.yaml", expert: "scripted:script.yaml", scorer: "scripted:script.yaml"}
induce: {candidates: 8}
seed: 1                         # with it the first instruction for 'plug' is the one that shouts
filter:
  text: {shouting: {path: shouting.py}}
  prompt: {language: null, shouting: {path: shouting.py, max_share: 0.4}}
  pair: {brief: {use: length, min_words: 1, max_words: 3, mode: flag}}
"""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in a folder with a corpus, scripted models and the shipped example of a user's filter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    rows = [{"id": id_, "text": text} for id_, text in TEXTS.items()]
    Path("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("script.yaml").write_text(SCRIPT, encoding="utf-8")
    Path("my.yaml").write_text(CONFIG, encoding="utf-8")
    shutil.copy(ROOT / "examples" / "filters" / "shouting.py", "shouting.py")
    return caller(capfd)


@pytest.fixture
def ran(cli: Cli) -> Cli:
    assert cli("run", "my.yaml", "--out", "out").code == 0
    return cli


def ends() -> dict[str, str | None]:
    return {row["id"]: row["dropped_by"] for row in pq.read_table("out/examples.parquet", columns=["id", "dropped_by"]).to_pylist()}


# --- a filter of one's own, from the config to the pairs


def test_the_draft_that_lost_is_shown_with_those_that_its_verifier_dropped(cli: Cli) -> None:
    Path("my.yaml").write_text(CONFIG + "verify: {min_margin: 50}\n", encoding="utf-8")
    assert cli("run", "my.yaml", "--out", "out").code == 0
    said = cli("filters", "out", "--dropped-by", "verify.better", "--sample", "1")
    assert said.code == 0 and "instruction: " in said.out and "draft: " in said.out
    lost = next(draft.text for draft in stored.find_example(Path("out"), "plug").drafts)
    assert " ".join(lost.split())[:20] in " ".join(cli("filters", "out", "--dropped-by", "verify.better", "--sample", "9").out.split())


def test_a_users_filter_drops_texts_and_instructions_and_is_told_in_the_funnel(cli: Cli) -> None:
    said = cli("run", "my.yaml", "--out", "out")
    assert said.code == 0 and "text.shouting: 1" in said.out and "prompt.shouting: 1" in said.out
    assert ends() == {"printer": None, "plug": None, "parcel": "prompt.shouting", "loud": "text.shouting", "hostile": None}
    summary = json.loads(Path("out/summary.json").read_text("utf-8"))
    assert summary["stages"]["collect"]["dropped"] == {"text.shouting": 1} and summary["stages"]["induce"]["in"] == 4, "no call is made for what was dropped"
    pairs = {pair["id"]: pair["prompt"] for pair in tables.read_pairs(Path("out"))}
    assert pairs["plug"] == "Which end of the plug is meant?", "the likelier candidate shouted"


def test_the_file_in_the_docs_is_the_one_that_ships() -> None:
    source = (ROOT / "examples" / "filters" / "shouting.py").read_text("utf-8")
    assert f"<!-- shouting:begin -->\n```python\n{source}```\n<!-- shouting:end -->" in (ROOT / "docs" / "filters.md").read_text("utf-8")


def test_a_changed_filter_is_another_config(ran: Cli) -> None:
    assert ran("run", "my.yaml", "--out", "out").code == 0
    file = Path("shouting.py")
    file.write_text(file.read_text("utf-8").replace("capitals, more", "capitals: more"), encoding="utf-8")
    refused = ran("run", "my.yaml", "--out", "out")
    assert refused.code == 2 and "sha256" in refused.err and "--continue" in refused.err
    assert ran("run", "my.yaml", "--out", "out", "--continue").code == 0


def test_an_error_in_a_users_filter_drops_the_example_with_the_reason_and_the_run_goes_on(cli: Cli) -> None:
    file = Path("shouting.py")
    file.write_text(
        file.read_text("utf-8").replace("        letters =", "        assert 'hat' not in example.text, 'no hats'\n        letters ="), encoding="utf-8"
    )
    assert cli("run", "my.yaml", "--out", "out").code == 0
    assert ends()["hostile"] == "text.shouting" and ends()["printer"] is None
    assert stored.find_example(Path("out"), "hostile").dropped_by == Verdict("text.shouting", False, None, "raised AssertionError: no hats")
    assert "raised an error 1 times" in cli("filters", "out").out


def test_a_broken_filter_is_told_before_anything_is_opened(cli: Cli) -> None:
    Path("shouting.py").write_text("def check(:\n", encoding="utf-8")
    said = cli("run", "my.yaml", "--out", "out")
    assert said.code == 2 and "shouting.py:1: not valid Python" in said.err and "Traceback" not in said.err and not Path("out").exists()


def test_a_flag_is_recorded_and_drops_nothing(ran: Cli) -> None:
    found = stored.find_example(Path("out"), "printer")
    assert stored.find_example(Path("out"), "pr") == found, "the one that begins so"
    (flag,) = [v for v in found.verdicts if v.name == "pair.brief"]
    assert found.alive and flag.flag and not flag.passed and "more than 3" in flag.reason
    again = Example("1", "t", "c", "f", 1).with_verdicts(flag)
    assert again.alive and again.dropped_by is None


# --- filters


def test_filters_tells_what_each_kept_and_what_the_set_would_be_without_it(ran: Cli) -> None:
    said = ran("filters", "out")
    assert (said.code, said.err) == (0, "") and "3 pairs from 5 examples" in said.out and "pair.brief (flag)" in said.out
    record = json.loads(ran("filters", "out", "--json").out)
    found = {f["name"]: f for f in record["filters"]}
    assert (record["examples"], record["pairs"]) == (5, 3)
    text, prompt, flag = found["text.shouting"], found["prompt.shouting"], found["pair.brief"]
    assert (text["seen"], text["failed"], text["dropped"], text["alone"], text["pairs_without_at_most"]) == (5, 1, 1, 1, 4)
    assert (prompt["dropped"], prompt["alone"], prompt["changed"], prompt["alone_by_category"]) == (1, 1, 1, {"support": 1})
    assert (flag["flag"], flag["failed"], flag["dropped"]) == (True, 3, 0)
    assert next(iter(found)) == "text.shouting" and list(found)[-1] == "pair.brief", "in the order of the stages"


def test_a_sample_of_what_a_filter_dropped_is_one_command_away(ran: Cli) -> None:
    said = ran("filters", "out", "--dropped-by", "text.shouting", "--sample", "2")
    assert said.code == 0 and "1 of 1 dropped by text.shouting" in said.out and "THE DOG IS IN ANOTHER COUNTY" in said.out
    assert "nothing else stands in its way" in said.out
    record = json.loads(ran("filters", "out", "--dropped-by", "prompt.shouting", "--json").out)
    assert record["total"] == 1 and [e["id"] for e in record["examples"]] == ["parcel"]


def test_what_a_filter_only_flags_is_shown_too(ran: Cli) -> None:
    said = ran("filters", "out", "--dropped-by", "pair.brief", "--sample", "2")
    assert said.code == 0 and "2 of 3 flagged by pair.brief" in said.out and "flagged: " in said.out and "dropped: " not in said.out


def test_the_sample_is_drawn_by_its_seed(ran: Cli) -> None:
    rows = [{"id": f"r{i}", "text": f"{text} NUMBER {i}"} for i in range(12) for text in [TEXTS["loud"] + "ABCDEFGHIJKL"[i] * 40]]
    Path("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("my.yaml").write_text(CONFIG.replace("shouting.py}", "shouting.py, max_share: 0.2}"), encoding="utf-8")
    assert ran("run", "my.yaml", "--out", "more").code == 0

    def drawn(*more: str) -> list[str]:
        return [e["id"] for e in json.loads(ran("filters", "more", "--dropped-by", "text.shouting", "--sample", "4", "--json", *more).out)["examples"]]

    first = drawn()
    assert len(first) == 4 and drawn() == first and first == sorted(first, key=lambda id_: int(id_[1:])), "in input order"
    assert any(drawn("--seed", str(seed)) != first for seed in (1, 2, 3))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("filters", "out", "--dropped-by", "prompt.length"), "'prompt.length' dropped no example; what did: prompt.shouting (1), text.shouting (1)"),
        (("filters", "out", "--sample", "3"), "--sample is for --dropped-by"),
        (("filters", "nowhere"), "nowhere holds no finished run"),
        (("why", "nowhere", "x"), "nowhere holds no finished run"),
        (("why", "out", "p"), "no example has the id 'p'; the nearest: printer, plug, parcel"),
        (("why", "out", ""), "no example has the id ''"),
        (("why", "out", "prinetr"), "no example has the id 'prinetr'; the nearest: printer"),
        (("why", "out", "\x1b[2J"), "no example has the id '?[2J'"),
    ],
)
def test_what_cannot_be_told_is_an_error_that_says_why(ran: Cli, arguments: tuple[str, ...], said: str) -> None:
    done = ran(*arguments)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err and "\x1b" not in done.err


def test_a_row_that_was_set_aside_is_told_by_the_id_that_it_holds(cli: Cli) -> None:
    rows = [{"id": "r1", "text": TEXTS["plug"]}, {"id": "r15", "text": "  "}, {"id": 2.5, "text": TEXTS["parcel"]}]
    Path("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert cli("run", "my.yaml", "--out", "out").code == 0
    said = cli("why", "out", "r15")
    told = "the row texts.jsonl:2, which holds it and stands in rejected_rows.jsonl, was set aside (text is empty or only white space)"
    assert said.code == 2 and f"no example has the id 'r15'; {told}: mend it there" in said.err
    others = "2 rows set aside, of which no example was made: rejected_rows.jsonl"
    assert f"no example has the id '5'; pairs.jsonl and examples.parquet hold the ids; {others}" in cli("why", "out", "5").err, "2.5 is another"
    Path("out/rejected_rows.jsonl").write_text("damaged\n", encoding="utf-8")
    assert "no example has the id 'r15'; the nearest: r1" in cli("why", "out", "r15").err


def test_a_run_that_goes_on_is_not_told_by_the_figures_of_the_one_before(ran: Cli) -> None:
    derived.forget_results(Path("out"))
    assert "holds no finished run" in ran("why", "out", "printer").err and "holds no finished run" in ran("filters", "out").err


# --- why


def test_why_tells_the_story_of_a_pair(ran: Cli) -> None:
    said = ran("why", "out", "plug")
    assert said.code == 0 and said.err == ""
    for part in ("texts.jsonl:2", "category support", TEXTS["plug"], "not taken: prompt.shouting", "of its letters are capitals, more than 40%"):
        assert part in said.out
    story = said.out.splitlines()
    order = ["Source text (the rejected response)", "Instructions: 2, likeliest first, equal ones once", "Responses: 2", "End"]
    assert [line for line in story if line in order] == order
    assert "taken" in story[story.index("2. Which end of the plug is meant?") + 1] and any("accepted" in line for line in story)
    assert "a pair, margin +0.000, raw: nats per token" in story
    assert any(line.strip().startswith("flag  pair.brief") for line in story)


def test_why_tells_what_dropped_an_example_and_where(ran: Cli) -> None:
    assert "dropped at stage 'filter' by prompt.shouting: 100% of its letters are capitals" in ran("why", "out", "parcel").out
    loud = ran("why", "out", "loud").out
    assert "dropped at stage 'collect' by text.shouting" in loud and "Instructions" not in loud and "Responses" not in loud


def story(example: Example) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    tell(console, example)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_why_names_the_unit_of_margins_and_that_drafts_keep_the_verifiers_own(ran: Cli) -> None:
    assert "a pair, margin +0.000, raw: nats per token" in ran("why", "out", "plug").out
    assert "(raw)" not in ran("why", "out", "plug").out, "all margins of this run have one unit"
    summary = json.loads(Path("out/summary.json").read_text("utf-8"))
    said = {"kind": "calibrated", "score": "verify.acceptable", "method": "logistic", "labels": 58}
    Path("out/summary.json").write_text(json.dumps(summary | {"margin": said}), "utf-8")
    told = ran("why", "out", "plug").out
    assert "margin +0.000 (raw), accepted" in told and "a pair, margin +0.000, calibrated: p(chosen) - p(rejected), logistic on 58 labels" in told


def test_why_tells_the_passes_of_a_run_with_a_target_apart() -> None:
    passed, failed = Verdict("consistency", True, 1.0), Verdict("consistency", False, 0.0, "too little")
    drawn = ("One?", -3.0, passed), ("Two?", -9.0, failed), ("Three?", -4.0, passed)
    candidates = tuple(Candidate(text, logprob, verdicts=(verdict,)) for text, logprob, verdict in drawn)
    again = Verdict("target.pass_2", True, None, "the pass before ended with verify.better: worse")
    told = story(Example("r1", "text", "support", "t.jsonl", 1, candidates, prompt="Three?", verdicts=(again, passed)))
    assert "Instructions: 3 of 2 passes, likeliest first in each, equal ones once" in told
    assert told[told.index("1. One?") + 1].strip() == "log p -3.000, passed, and was taken in a pass before"
    assert "not taken: consistency" in told[told.index("2. Two?") + 1] and told[told.index("3. Three?") + 1].endswith("taken")


def test_why_tells_what_was_written_for_the_rejected_side_apart_and_that_the_source_text_was_kept() -> None:
    good, bad = Verdict("verify.better", True), Verdict("rejected.form", False, None, "has list")
    drafts = (
        Draft("Too short.", 0, verdicts=(replace(good, passed=False),)),
        Draft("Good.", 0, verdicts=(good,), expert="expert"),
        Draft("A rewrite.", 0, verdicts=(bad,)),
        Draft("Another.", 0),
    )
    pair = Example("1", "Bad.", "c", "f", 1, (Candidate("Q?"),), "Q?", "Good.", margin=1.0, drafts=drafts, verdicts=(good, replace(bad, flag=True)))
    kept = story(pair)
    headings = [line for line in kept if line.startswith(("Responses", "Written", "End"))]
    assert headings == ["Responses: 2", "Written for the rejected side: 2", "End"]
    assert kept.index("2. Good.") < kept.index(headings[1]) < kept.index("1. A rewrite.") < kept.index("2. Another.")
    assert "   round 1, by expert, accepted" in kept and kept[-1] == "rejected: the source text, kept since nothing else passed: rejected.form"
    taken = story(replace(pair, rejected="A rewrite.", verdicts=(good, replace(bad, passed=True))))
    assert "   round 1, taken as the rejected response" in taken and taken[-1] == "rejected: A rewrite."
    alike = story(replace(pair, drafts=drafts[:2], verdicts=(good, Verdict("rejected.ratio", True, 1.0))))
    assert "Written" not in "\n".join(alike) and alike[-1] == "rejected: the source text, which matches the chosen response as it is"


def test_why_sends_no_control_code_of_a_text_to_the_terminal(ran: Cli) -> None:
    said = ran("why", "out", "hostile")
    assert said.code == 0 and "\x1b" not in said.out and "[bold]Your hat" in said.out
    assert "\x1b" not in ran("why", "out", "hostile", "--json").out


def test_why_as_json_says_which_were_taken_and_how_it_ended(ran: Cli) -> None:
    pair, dropped = (json.loads(ran("why", "out", id_, "--json").out) for id_ in ("plug", "parcel"))
    assert pair["ended"] == {"state": "pair"} and [c["taken"] for c in pair["candidates"]] == [False, True]
    assert [d["taken"] for d in pair["drafts"]].count(True) == 1 and pair["text"] == TEXTS["plug"] and pair["line"] == 2
    assert dropped["ended"]["by"] == "prompt.shouting" and dropped["ended"]["stage"] == "filter" and not any(c["taken"] for c in dropped["candidates"])


def test_why_reads_ids_and_one_row_of_many(tmp_path: Path) -> None:
    out = tmp_path / "many"
    out.mkdir()
    count = tables._ROWS_PER_GROUP * 2 + 10
    with tables.outputs(out) as files:
        for i in range(count):
            files.add(Example(f"id{i}", f"text {i}", "c", "f", i + 1).with_verdicts(Verdict("text.x", i % 2 == 0, None, "odd" if i % 2 else "")))
    (out / rundir.SUMMARY).write_text(json.dumps(summed_up(out)))
    for i in (0, 499, 500, tables._ROWS_PER_GROUP - 1, tables._ROWS_PER_GROUP, count - 1):
        found = stored.find_example(out, f"id{i}")
        assert (found.id, found.text, found.line) == (f"id{i}", f"text {i}", i + 1)
    with pytest.raises(RunDirectoryError, match=f"no example has the id 'id{count}'; the nearest: id"):
        stored.find_example(out, f"id{count}")
    assert [e.text for e in stored.read_examples(out)] == [f"text {i}" for i in range(count)]
    assert next(stored.read_examples(out, ["id"])) == Example("id0", "", "", "", 0), "what is not read is empty"
    some, total = stored.sample_failed(out, "text.x", 3, lambda id_: -int(id_[2:]))
    assert total == count // 2 and [e.id for e in some] == [f"id{i}" for i in (count - 5, count - 3, count - 1)]


@pytest.mark.parametrize("command", [("why", "out", "plug"), ("filters", "out"), ("filters", "out", "--dropped-by", "text.shouting")])
def test_a_damaged_file_is_told(ran: Cli, command: tuple[str, ...]) -> None:
    file = Path("out/examples.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    said = ran(*command)
    assert said.code == 2 and "examples.parquet cannot be read" in said.err and "run' command again" in said.err
