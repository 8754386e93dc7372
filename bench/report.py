"""What a report costs: time to make, size, and time from opening the file to the last chart, in Debian's Chromium.

python bench/report.py --examples 128000
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from made_runs import made_up, write_run

from safer_instruct import rundir
from safer_instruct.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=128_000)
    parser.add_argument("--opens", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "run", list(made_up(arguments.examples)))
        started, cpu = time.perf_counter(), time.process_time()
        html, _ = write_report(run)
        took, of_cpu = time.perf_counter() - started, time.process_time() - cpu
        pairs = json.loads((run / rundir.SUMMARY).read_text("utf-8"))["pairs"]
        print(f"{pairs:,} pairs from {arguments.examples:,} examples: {took:.1f} s, {of_cpu:.1f} s of CPU, {html.stat().st_size / 1e6:.2f} MB")
        print("opened in", ", ".join(f"{seconds:.2f} s" for seconds in open_times(html, arguments.opens)))


def open_times(html: Path, count: int) -> list[float]:
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for _ in range(count):
            page = browser.new_page()
            started = time.perf_counter()
            page.goto(html.as_uri())
            page.wait_for_selector("html[data-charts]")
            found.append(time.perf_counter() - started)
            page.close()
        browser.close()
    return found


if __name__ == "__main__":
    main()
