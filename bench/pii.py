"""Personal data against labels: precision and recall per kind, and the same for libraries, where they are installed.

    python bench/pii.py [--errors]       pip install phonenumbers python-stdnum    for the comparison

bench/data/pii-labelled.jsonl: `text` and `kinds` (what it holds; reserved or published numbers only).
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from safer_instruct.detect.pii import PII_KINDS, find_pii

ROWS = [json.loads(line) for line in (Path(__file__).parent / "data" / "pii-labelled.jsonl").read_text("utf-8").splitlines()]


def main() -> None:
    print(f"{len(ROWS)} texts\n{'kind':<22} precision  recall  us/text")
    for kind in PII_KINDS:
        report(kind, kind, lambda text, kind=kind: kind in {span.kind for span in find_pii(text)})
    report("all of them", None, lambda text: bool(find_pii(text)))
    for region in ("GB", "US"):
        matches = library_phones(region)
        if matches:
            report(f"phonenumbers, {region}", "phone", matches)


def report(name: str, kind: str | None, find: Callable[[str], bool]) -> None:
    start = time.process_time()
    found = [find(row["text"]) for row in ROWS]
    took = (time.process_time() - start) / len(ROWS) * 1e6
    true = [kind in row["kinds"] if kind else bool(row["kinds"]) for row in ROWS]
    counts = Counter(zip(found, true, strict=True))
    print(f"{name:<22} {counts[True, True] / max(1, sum(found)):9.3f}  {counts[True, True] / max(1, sum(true)):6.3f}  {took:7.1f}")
    if "--errors" in sys.argv:
        for row, f, t in zip(ROWS, found, true, strict=True):
            if f != t:
                print("   ", "found" if f else "missed", row["text"])


def library_phones(region: str) -> Callable[[str], bool] | None:
    try:
        import phonenumbers
    except ImportError:
        return None
    return lambda text: any(phonenumbers.PhoneNumberMatcher(text, region))


if __name__ == "__main__":
    main()
