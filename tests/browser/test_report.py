"""The report as a person meets it: opened from the disk in a browser that is watched."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile_texts import MARK, PAYLOADS
from made_runs import made_up, write_run

from browser.conftest import Watched
from safer_instruct.example import Candidate, Example, Verdict
from safer_instruct.report import write_report

pytest.importorskip("numpy")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on a run of 400 examples beside one of 150, with labels."""
    folder = tmp_path_factory.mktemp("runs")
    examples = list(made_up(400))
    first, second = write_run(folder / "first", examples), write_run(folder / "second", list(made_up(150, seed=1)))
    labelled = [f"{e.id},{'good' if i % 3 else 'bad'}" for i, e in enumerate(examples[:90])]
    (first / "labels.csv").write_text("\n".join(["id,label", *labelled]), encoding="utf-8")
    html, _ = write_report(first, second)
    return html


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which every text is a payload: texts, prompts, categories, ids, reasons, names of checks and of the folder."""
    base = list(made_up(len(PAYLOADS) * 2, seed=2))
    examples = [_poisoned(example, i, PAYLOADS[i % len(PAYLOADS)]) for i, example in enumerate(base)]
    folder = tmp_path_factory.mktemp("runs") / "<img src=x onerror=window.pwned=1>"
    dropped = dict.fromkeys(PAYLOADS[:12], 3)
    run = write_run(folder, examples, thresholds=PAYLOADS[0])
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    summary["stages"]["filter"]["dropped"] = dropped
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return write_report(run, out=tmp_path_factory.mktemp("out") / "report.html")[0]


def _poisoned(example: Example, i: int, payload: str) -> Example:
    verdicts = [replace(v, reason=payload if not v.passed else v.reason) for v in example.verdicts]
    verdicts.append(Verdict(f"check {payload}", False, float(i), payload, flag=i % 2 == 0))
    candidates = (Candidate(payload, -1.0, True, tuple(verdicts)),)
    alive = i % 2 == 0
    chosen = {"prompt": payload, "chosen": f"{payload} {payload}"} if alive else {"prompt": "", "chosen": ""}
    kept = [replace(v, passed=True, reason="") for v in verdicts[:-1]] if alive else verdicts[:-1]
    return replace(example, id=f"{i} {payload}", text=payload, category=payload, candidates=candidates, verdicts=(*kept, verdicts[-1]), **chosen)


def open_report(watched: Watched, file: Path) -> Any:
    watched.page.goto(file.as_uri())
    watched.page.wait_for_selector("html[data-charts]")
    return watched.page


def test_every_chart_is_drawn_and_nothing_else_happens(watched: Watched, report: Path) -> None:
    page = open_report(watched, report)
    charts = page.evaluate("[...document.querySelectorAll('[data-chart]')].map(box => [box.dataset.chart, inked(box)])".replace("inked(box)", _INKED))
    assert len(charts) >= 14 and [name for name, inked in charts if not inked] == []
    assert {name.partition("-")[0] for name, _ in charts} == {"funnel", "categories", "length", "verbs", "map", "score", "curve", "cost"}
    assert watched.complaints == [] and watched.requests == [report.as_uri()]


_INKED = """(() => {
  const canvas = box.querySelector('canvas');
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const colors = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 40) colors.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
  return colors.size > 8;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(watched: Watched, report: Path, scheme: str) -> None:
    watched.page.emulate_media(color_scheme=scheme)
    page = open_report(watched, report)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert watched.serious() == []


def test_charts_follow_the_colour_scheme(watched: Watched, report: Path) -> None:
    page = open_report(watched, report)
    before = page.evaluate("document.querySelector('[data-chart] canvas').toDataURL()")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("(old) => document.querySelector('[data-chart] canvas').toDataURL() !== old", arg=before)
    assert watched.complaints == []


def test_samples_are_chosen_by_keyboard(watched: Watched, report: Path) -> None:
    page = open_report(watched, report)
    assert page.locator(".sample:visible").count() == 12
    page.get_by_label("Outcome").focus()
    page.keyboard.type("dropped")
    assert set(page.locator(".sample:visible .tag").all_text_contents()) == {"dropped"}
    page.get_by_label("Search").fill("no such words anywhere")
    assert page.locator(".sample:visible").count() == 0 and page.get_by_role("status").text_content() == "0 of 0 samples"
    page.get_by_label("Search").fill("")
    page.get_by_role("button", name="Show more").press("Enter")
    assert page.locator(".sample:visible").count() > 12


def test_a_check_leads_to_what_it_dropped(watched: Watched, report: Path) -> None:
    page = open_report(watched, report)
    page.get_by_label("Search").fill("no such words anywhere")
    page.locator(".explore[data-by=likelihood]").first.press("Enter")
    assert page.get_by_label("Search").input_value() == ""
    assert set(page.locator(".sample:visible h3 bdi:first-of-type").all_text_contents()) == {"likelihood"}
    assert page.evaluate("document.activeElement.name") == "by"


def test_a_hover_shows_a_prompt(watched: Watched, report: Path) -> None:
    page = open_report(watched, report)
    box = page.locator("[data-chart=map]")
    box.scroll_into_view_if_needed()
    at = page.evaluate("""() => { const chart = echarts.getInstanceByDom(document.querySelector('[data-chart=map]'));
      return chart.convertToPixel({seriesIndex: 0}, chart.getOption().series[0].data[0]); }""")
    corner = box.bounding_box()
    page.mouse.move(corner["x"] + at[0], corner["y"] + at[1])
    page.wait_for_selector(".tip")
    assert re.search(r"\w+ \w+", page.locator(".tip").text_content())
    assert watched.complaints == []


def test_a_narrow_page_has_no_sideways_scroll(watched: Watched, report: Path) -> None:
    watched.page.set_viewport_size({"width": 390, "height": 800})
    page = open_report(watched, report)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_it_prints(watched: Watched, report: Path) -> None:
    watched.page.emulate_media(color_scheme="dark")
    page = open_report(watched, report)
    assert page.pdf().startswith(b"%PDF") and watched.complaints == []


def test_no_payload_becomes_anything_but_text(watched: Watched, hostile: Path) -> None:
    page = open_report(watched, hostile)
    assert len(PAYLOADS) >= 50
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    while page.locator(".more:visible").count():
        page.locator(".more").click()
    for name in ("outcome", "by", "category"):
        box = page.locator(f".pick select[name={name}]")
        box.select_option(index=box.locator("option").count() - 1)
        box.select_option(index=0)
    hover_everything(page)
    assert page.evaluate(f"window.{MARK}") is None
    assert watched.complaints == [] and watched.requests == [hostile.as_uri()]
    strange = "img, iframe, object, embed, base, link, svg, math, video, audio, marquee, style ~ style, [onload], [onerror], [onfocus], [style*=fixed]"
    assert page.locator(strange).count() == 0
    shown = page.evaluate("document.body.innerText")
    assert "<img src=x onerror=window.pwned=1>" in shown and "\u27e8U+202E\u27e9gnp.exe" in shown and "\u27e8U+001B\u27e9[2J" in shown
    assert not any(character in page.content() for character in "\u202e\u2066\x1b\u200b\U000e0041")


def hover_everything(page: Any) -> None:
    """Every tooltip of every chart, as the mouse would bring it up."""
    page.evaluate("""() => document.querySelectorAll('[data-chart]').forEach((box) => {
      const chart = echarts.getInstanceByDom(box);
      chart.getOption().series.forEach((series, seriesIndex) => {
        const many = Math.min((series.data || []).length, 80);
        for (let dataIndex = 0; dataIndex < many; dataIndex++) chart.dispatchAction({type: 'showTip', seriesIndex, dataIndex});
      });
    })""")


def test_the_policy_lets_no_other_script_in(watched: Watched, report: Path) -> None:
    page = open_report(watched, report)
    page.evaluate(f"""() => {{ const script = document.createElement('script');
      try {{ script.textContent = 'window.{MARK}=1'; document.body.append(script); }} catch (error) {{ /* trusted types refuse it already */ }} }}""")
    refused = page.evaluate("() => { try { document.body.insertAdjacentHTML('beforeend', '<b>x</b>'); return false; } catch (error) { return true; } }")
    assert page.evaluate(f"window.{MARK}") is None and refused


def test_axe_is_awake(watched: Watched, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><html><body><img src='data:,'><input></body></html>", "utf-8")
    watched.page.goto(page.as_uri())
    assert {finding.partition(":")[0] for finding in watched.serious()} >= {"image-alt", "label", "html-has-lang"}
