"""Pictures of the report and the review page for README and docs: python bench/screens.py RUN docs (needs Chromium and Playwright).

RUN is a finished run directory; it is copied, so nothing is written into it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from safer_instruct import rundir
from safer_instruct.report import write_report

_FOLDED = ("categories", "diversity", "cost", "samples")  # left out of the picture, not of the report


def main(run: Path, target: Path) -> None:
    """Write `report.png`, `report-dark.png` and `review.png`."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        copy = Path(shutil.copytree(run, Path(folder) / "civility"))
        for name in (rundir.REVIEW, rundir.REVIEW_INDEX):
            (copy / name).unlink(missing_ok=True)
        report, _ = write_report(copy)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, scheme in (("report", "light"), ("report-dark", "dark")):
            picture_report(browser, report, target / f"{name}.png", scheme)
        picture_review(browser, copy, target / "review.png")
        browser.close()


def picture_report(browser: Any, report: Path, target: Path, scheme: str) -> None:
    """The report from its head to the scores."""
    page = browser.new_page(viewport={"width": 1240, "height": 900}, color_scheme=scheme)
    page.goto(report.absolute().as_uri())
    page.wait_for_selector("html[data-charts]")
    page.evaluate("ids => ids.forEach((id) => { document.getElementById(id).hidden = true; })", list(_FOLDED))
    page.evaluate("scrollTo(0, 0)")
    end = page.evaluate("document.getElementById('instructions').getBoundingClientRect().bottom")
    page.screenshot(path=target, full_page=True, clip={"x": 0, "y": 0, "width": 1240, "height": end + 24})
    page.close()


def picture_review(browser: Any, run: Path, target: Path) -> None:
    """One pair with its differing words marked and two questions answered."""
    command = [sys.executable, "-m", "safer_instruct.cli", "review", str(run), "--no-browser", "--annotator", "ada"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        address = next(line.split(": ", 1)[1].strip() for line in server.stdout if line.startswith("ada: "))
        page = browser.new_page(viewport={"width": 1280, "height": 790})
        page.goto(address)
        page.wait_for_selector(".pair .head .id")
        for key in ("b", "d", "1", "2"):
            page.keyboard.press(key)
        page.wait_for_function("() => document.querySelectorAll('main [aria-pressed=true], main input:checked').length > 1")
        page.screenshot(path=target)
        page.close()
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
