"""The review app as people use it: by keyboard, interrupted, two at once, and with texts that want to be markup."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import serious_findings
from reviewing import Server, write_run

from safer_instruct.export import Options, export_pairs
from safer_instruct.holding import hold
from safer_instruct.progress import published
from safer_instruct.review.index import ensure_index
from safer_instruct.review.labels import read_reviewed
from safer_instruct.review.queue import find_item
from safer_instruct.review.store import Store, read_labels
from safer_instruct.state import RunState, StageState

TEXTS = [(f"Where is parcel {n}?", f"Sorry about parcel {n}. I will look for it today.", f"Parcel {n} is where you left it.") for n in range(24)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", TEXTS, dropped=2)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*arguments: Any, **options: Any) -> Server:
        started.append(Server(*arguments, **options))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def shown(page: Any) -> str:
    page.wait_for_selector(".pair .head .id")
    return str(page.inner_text(".pair .head .id"))


def press(page: Any, key: str) -> None:
    """Press a key and wait until the page shows another pair."""
    before = shown(page)
    page.keyboard.press(key)
    page.wait_for_function("before => document.querySelector('.pair .head .id')?.textContent !== before", arg=before)


def test_words_count_for_more_than_blanks_in_what_two_sides_have_in_common(run: Path, serve: Any, new_page: Any) -> None:
    page = new_page()
    page.goto(serve(run, "ada").addresses["ada"])
    shown(page)
    source = page.evaluate("[...document.scripts].map(s => s.src).find(src => src)").rpartition("/")[0]
    compare = f"async ([a, b]) => (await import('{source}/text.js')).compare(a, b).likeness"
    assert page.evaluate(compare, ["the test asks you", "you ask ! ? ! ? the test"]) == pytest.approx(2 * 2 / 8)
    assert page.evaluate(compare, ["a b c d e", "e ! ! ! ! a"]) == pytest.approx(2 / 7)
    assert page.evaluate(compare, ["Same words", "same words"]) == 1


def test_twenty_pairs_are_read_by_keyboard_with_undo_correction_and_reload(run: Path, serve: Any, new_page: Any) -> None:
    page = new_page()
    page.goto(serve(run, "ada").addresses["ada"])
    first = shown(page)
    press(page, "r")
    page.keyboard.press("u")
    page.wait_for_function("id => document.querySelector('.pair .head .id').textContent === id", arg=first)
    assert page.query_selector("#decision") is None
    page.keyboard.press("e")
    page.fill("#edit-prompt", "Where is my parcel?")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=Corrected; accept it with A.")
    press(page, "a")
    for _ in range(9):
        press(page, "a")
    here = shown(page)
    page.reload()
    assert shown(page) == here
    for _ in range(9):
        press(page, "r")
    press(page, "s")
    labels = {id_: label for _, id_, label in read_labels(run)}
    assert [sum(label.decision == d for label in labels.values()) for d in ("accept", "reject", "skip")] == [10, 9, 1]
    out = export_pairs(run, "jsonl", options=Options(reviewed=True)).path
    pairs = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(pairs) == 10 and {p["prompt"] for p in pairs if p["id"] == first} == {"Where is my parcel?"}
    assert serious_findings(page) == []


def test_a_click_that_a_killed_server_could_not_answer_is_sent_when_it_is_back(run: Path, serve: Any, new_page: Any) -> None:
    page = new_page()
    server = serve(run, "ada")
    page.goto(server.addresses["ada"])
    first = shown(page)
    press(page, "a")
    second = shown(page)
    server.kill()
    page.keyboard.press("r")
    page.wait_for_selector("#alert p")
    serve(run, "ada", port=server.port)
    page.wait_for_function("id => document.querySelector('.pair .head .id').textContent !== id", arg=second)
    assert {id_: label.decision for _, id_, label in read_labels(run)} == {first: "accept", second: "reject"}
    new_page.complaints[:] = [c for c in new_page.complaints if "ERR_" not in c]  # the browser reports the refused connection


def test_two_annotators_share_only_the_overlap(run: Path, serve: Any, new_page: Any) -> None:
    server = serve(run, "ada", "ben", options=["--overlap", "0"])
    pages = [new_page(), new_page()]
    for page, name in zip(pages, ("ada", "ben"), strict=True):
        page.goto(server.addresses[name])
        shown(page)
    for _ in range(5):
        for page in pages:
            press(page, "a")
    said = list(read_reviewed(run))
    assert len(said) == 10 and all(len(one.accepted) == 1 for one in said)


def test_a_page_goes_on_for_nobody_but_the_annotator_whom_it_names(run: Path, serve: Any, new_page: Any) -> None:
    server = serve(run, "ada", "ben")
    page = new_page()
    page.goto(server.addresses["ada"])
    press(page, "a")
    other = page.context.new_page()
    other.goto(server.addresses["ben"])
    shown(other)
    page.keyboard.press("a")
    page.wait_for_selector("#alert >> text=this browser reads as ben now, and this page was opened for ada")
    page.click("nav >> text=All")
    page.wait_for_selector("h1 >> text=All examples")
    press(other, "r")
    assert [(name, label.decision) for name, _, label in read_labels(run)] == [("ada", "accept"), ("ben", "reject")]
    page.reload()
    page.wait_for_selector(".pace >> text=ben")
    assert page.inner_text("#alert") == ""
    new_page.complaints[:] = [c for c in new_page.complaints if "409" not in c]


def test_a_run_that_is_made_again_under_an_open_review_is_read_anew(run: Path, serve: Any, new_page: Any) -> None:
    page = new_page()
    page.goto(serve(run, "ada").addresses["ada"])
    press(page, "a")
    (run / "summary.json").rename(run / "aside.json")
    with hold(run):
        page.keyboard.press("a")
        page.wait_for_selector("#alert >> text=nothing can be read or decided here for now")
        assert f"{run} holds no finished run (it is in progress by process" in page.inner_text("#alert")
        page.reload()
        page.wait_for_selector("text=No run has begun here.")
    (run / "aside.json").rename(run / "summary.json")
    page.wait_for_selector("text=The run is finished: reload this page to read its pairs.")
    page.goto(page.url.partition("#")[0])
    page.reload()
    before = shown(page)
    write_run(run, [(prompt, f"{chosen} Good day.", rejected) for prompt, chosen, rejected in TEXTS])
    page.keyboard.press("a")
    page.wait_for_selector("#alert >> text=the run was made again since this page was opened: reload it")
    assert shown(page) == before and len(list(read_labels(run))) == 1
    page.reload()
    page.wait_for_selector(".pace >> text=nothing read yet")
    assert page.inner_text("[data-side=chosen]").endswith("Good day.")
    press(page, "a")
    assert page.inner_text(".pace").split("\n")[1] == "1 accepted, 0 rejected"
    new_page.complaints[:] = [c for c in new_page.complaints if "409" not in c]


def test_a_correction_of_blanks_only_stays_on_the_page_until_it_is_a_text(run: Path, serve: Any, new_page: Any) -> None:
    page = new_page()
    page.goto(serve(run, "ada").addresses["ada"])
    shown(page)
    page.keyboard.press("e")
    page.fill("#edit-chosen", "  \n ")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#fault-chosen >> text=There is nothing to read in this text: write one, or reject the pair.")
    assert page.evaluate("() => document.activeElement.id") == "edit-chosen" and list(read_labels(run)) == [] and serious_findings(page) == []
    page.fill("#edit-chosen", "I will look at once.")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=corrected")
    assert [label.edit for _, _, label in read_labels(run)] == [{"chosen": "I will look at once."}]


def test_who_corrects_a_pair_that_they_accepted_has_accepted_the_corrected_texts(run: Path, serve: Any, new_page: Any) -> None:
    page = new_page()
    page.goto(serve(run, "ada").addresses["ada"])
    here = shown(page)
    press(page, "a")
    page.goto(f"{page.url.split('#')[0]}#/read/{here}")
    page.wait_for_function("id => document.querySelector('.pair .head .id')?.textContent === id", arg=here)
    page.keyboard.press("e")
    page.fill("#edit-chosen", "I will look at once.")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=Corrected; your acceptance holds for the corrected texts.")
    (pair,) = map(json.loads, export_pairs(run, "jsonl", options=Options(reviewed=True)).path.read_text("utf-8").splitlines())
    assert (pair["id"], pair["chosen"]) == (here, "I will look at once.")


def test_what_was_typed_and_not_saved_is_kept_within_the_page_and_asked_for_at_its_end(run: Path, serve: Any, new_page: Any) -> None:
    page = new_page()
    page.goto(serve(run, "ada").addresses["ada"])
    here = shown(page)
    page.keyboard.press("e")
    page.wait_for_selector("#edit-chosen")
    page.click("nav >> text=All")
    page.wait_for_selector("h1 >> text=All examples")
    page.click(f"a.row[href$='{here}']")
    assert shown(page) == here, "nothing was changed, so the pair is shown as it is"
    page.keyboard.press("e")
    page.fill("#edit-chosen", "I will look at")
    page.click("nav >> text=All")
    page.wait_for_selector("h1 >> text=All examples")
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    page.click(f"a.row[href$='{here}']")
    page.wait_for_selector("text=This correction was begun before, and is not saved yet.")
    assert page.input_value("#edit-chosen") == "I will look at" and serious_findings(page) == []
    page.keyboard.press("Escape")
    assert shown(page) == here
    page.keyboard.press("c")
    page.keyboard.type("Too sh")
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload" and list(read_labels(run)) == []
    page.keyboard.type("ort.")
    page.click(".actions .accept", delay=200)
    page.wait_for_function("before => document.querySelector('.pair .head .id')?.textContent !== before", arg=here)
    assert [(label.decision, label.comment, label.edit) for _, _, label in read_labels(run)] == [("accept", "Too short.", {})]
    page.reload()
    shown(page)
    assert [c for c in new_page.complaints if not c.startswith("dialog: ")] == [] and len(new_page.complaints) == 2, "no more was asked"
    new_page.complaints.clear()


def test_where_the_filters_hide_all_examples_the_list_says_so_and_shows_them(tmp_path: Path, serve: Any, new_page: Any) -> None:
    run = write_run(tmp_path / "run", TEXTS[:4], dropped=1)
    page = new_page()
    page.goto(serve(run, "ada").addresses["ada"])
    for _ in range(2):
        press(page, "a")
    page.keyboard.press("a")
    page.wait_for_selector("text=All read.")
    page.click("nav >> text=All")
    page.wait_for_selector("text='Show' stands at 'to read', which hides all that the other filters let through: 3.")
    assert page.inner_text("main > p[role=status]") == "0 examples" and serious_findings(page) == []
    page.click("text=Show all (3)")
    page.wait_for_function("() => document.querySelectorAll('.row').length === 3")
    assert page.input_value("select[name=state]") == "any" and page.query_selector(".empty") is None
    page.fill("input[type=search]", "nowhere")
    page.click("text=Show all (4)")
    page.wait_for_function("() => document.querySelectorAll('.row').length === 4")
    assert page.input_value("select[name=outcome]") == page.input_value("input[type=search]") == ""


def test_the_page_of_a_run_counts_as_its_terminal_does_and_shows_what_was_set_aside(run: Path, serve: Any, new_page: Any) -> None:
    took = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost": 0}
    stages = {"collect": {"in": 24, "dropped": {"dedup.text": 2}, "out": 22, **took}, "filter": {"in": 22, "dropped": {}, "out": 22, **took}}
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    (run / "summary.json").write_text(json.dumps(summary | {"rows": 26, "set_aside": 2, "stages": stages}), "utf-8")
    page = new_page()
    page.goto(serve(run, "ada").addresses["ada"])
    shown(page)
    page.click("nav >> text=Run")
    cells = "() => [...document.querySelectorAll('.stages tbody tr')].map((row) => [...row.children].slice(0, 4).map((cell) => cell.textContent).join(' '))"
    page.wait_for_selector(".stages")
    assert page.evaluate(cells) == ["read 26 set aside: 2 24", "collect 24 2 22", "filter 22 0 22"]
    assert page.inner_text(".note").startswith("2 of the rows were set aside") and serious_findings(page) == []
    state = RunState(total=26, set_aside=2)
    state.stages["collect"] = StageState(done=24, dropped=2)
    with published(run, state):
        page.reload()
        page.wait_for_selector("progress")
        assert page.evaluate(cells)[0] == "collect 24 of 24  2" and page.get_attribute("progress", "max") == "24"


HOSTILE = [
    *(f"<{tag} onload=alert(1) onerror=alert(1) src=x>" for tag in ("img", "svg", "body", "video", "audio", "iframe", "object", "embed", "input", "link")),
    *(f"<{tag} onfocus=alert(1) onmouseover=alert(1) onclick=alert(1) autofocus tabindex=0>x" for tag in ("a", "b", "select", "textarea", "button", "details")),
    *(f"</{tag}><script>alert(1)</script>" for tag in ("title", "textarea", "style", "script", "noscript", "template", "pre", "option", "dialog")),
    "<script>alert(1)</script>", "<ScRiPt src=//example.org/x.js></sCrIpT>", "<svg><script>alert(1)</script>", "<math><mtext><img src=x onerror=alert(1)>",
    "<a href=javascript:alert(1)>x</a>", "<a href='data:text/html,<script>alert(1)</script>'>x</a>", "<form action=javascript:alert(1)><button>x",
    "<meta http-equiv=refresh content='0;url=//example.org'>", "<base href=//example.org/>", "<link rel=stylesheet href=//example.org/x.css>",
    "<style>@import '//example.org/x.css';</style>", "<div style='background:url(//example.org/x)'>x", "<img srcset='//example.org/x 1x'>",
    "<iframe srcdoc='<script>alert(1)</script>'>", "<object data=//example.org>", "<svg><use href='//example.org/x#y'>", "<svg><animate onbegin=alert(1)>",
    "<marquee onstart=alert(1)>x", "<details open ontoggle=alert(1)>x", "<x contenteditable onblur=alert(1)>x", "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<script>alert(1)</script>]]>", "&lt;script&gt;alert(1)&lt;/script&gt;", "{{constructor.constructor('alert(1)')()}}", "${alert(1)}",
    "<%= alert(1) %>",
    "'-alert(1)-'", "\"onmouseover=alert(1) x=\"", "javascript:alert(1)", "\u202egnp.exe", "\x1b]0;owned\x07\x1b[31mred", "a\x00b", "\u2028alert(1)",
    "\ufeffx\u200by",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>", "<svg/onload=alert(1)//", "<img src=x:x onerror&#61;alert(1)>",
]  # fmt: skip
ELEMENTS = "() => [...document.querySelectorAll('*')].map((e) => e.tagName.toLowerCase()).sort().join()"


def test_hostile_texts_stand_in_every_view_as_what_they_are(tmp_path: Path, serve: Any, new_page: Any) -> None:
    assert len(HOSTILE) >= 50
    run = write_run(tmp_path / "run", [(text, f"chosen {text}", f"rejected {text}") for text in HOSTILE])
    page = new_page()
    page.goto(serve(run, "ada").addresses["ada"])
    shown(page)
    home = page.url.partition("#")[0]
    allowed = set(page.evaluate(ELEMENTS).split(",")) | {"mark", "details", "summary", "datalist", "option"}
    for number, text in enumerate(HOSTILE):
        page.goto(f"{home}#/read/x{number:03}")
        page.wait_for_function("id => document.querySelector('.pair .head .id')?.textContent === id", arg=f"x{number:03}")
        page.keyboard.press("b")
        page.keyboard.press("d")
        assert set(page.evaluate(ELEMENTS).split(",")) <= allowed
        said = page.inner_text("[data-side=rejected]")
        assert said.startswith("rejected ") and (not text.isprintable() or said == f"rejected {text}")
        assert not set(said) & set("\x1b\x00\x07\u202e\u2028\ufeff\u200b")
    page.goto(f"{home}#/list")
    page.wait_for_selector(".row")
    page.click("text=Show more")
    page.wait_for_function("count => document.querySelectorAll('.row').length === count", arg=len(HOSTILE))
    assert {"script", "img"} & set(page.evaluate(ELEMENTS).split(",")) == {"script", "img"}  # the page's own
    assert page.evaluate("() => document.querySelectorAll('main img, main script, main svg, main iframe, main style').length") == 0
    assert serious_findings(page) == []


def test_hostile_tags_comments_corrections_checks_and_disagreements_are_text(tmp_path: Path, serve: Any, new_page: Any) -> None:
    run = write_run(tmp_path / "run", [(text, f"chosen {text}", f"rejected {text}") for text in HOSTILE])
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    stage = {"in": len(HOSTILE), "out": 0, "calls": 1, "prompt_tokens": 1, "completion_tokens": 1, "cost": None}
    summary["stages"] = {"filter": {**stage, "dropped": dict.fromkeys(HOSTILE, 1)}}
    (run / "summary.json").write_text(json.dumps(summary), "utf-8")
    server = serve(run, "ada", "ben")
    store = Store(run)
    store.attach(ensure_index(run))
    for number, text in enumerate(HOSTILE):
        item = find_item(store, f"x{number:03}")
        assert item
        said = {"tags": (text,), "comment": text, "edit": {"chosen": text}}
        store.change(store.join("ada"), item.id, item.digest, {**said, "decision": "accept"}, key=f"ada {number:05}", seconds=1)
        store.change(store.join("ben"), item.id, item.digest, {"decision": "reject"}, key=f"ben {number:05}", seconds=1)
    store.close()
    page = new_page()
    page.goto(server.addresses["ada"])
    page.wait_for_selector("header")
    home = page.url.partition("#")[0]
    markup = (
        "() => document.querySelectorAll('main :is(img, script, svg, iframe, style, object, form[action], a[href^=javascript], [onerror], [onload])').length"
    )
    for number in range(len(HOSTILE)):
        page.goto(f"{home}#/read/x{number:03}")
        page.wait_for_function("id => document.querySelector('.pair .head .id')?.textContent === id", arg=f"x{number:03}")
        page.keyboard.press("e")
        page.wait_for_selector("#edit-prompt")
        assert page.evaluate(markup) == 0
        page.keyboard.press("Escape")
    for view, expected in (("agreement", "x000"), ("run", "<svg><script>alert(1)</script>")):
        page.goto(f"{home}#/{view}")
        page.wait_for_function("text => document.querySelector('main').innerText.includes(text)", arg=expected)
        assert page.evaluate(markup) == 0
        assert serious_findings(page) == []
