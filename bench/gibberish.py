"""Gibberish against labels, beside other ways to tell it.

    python bench/gibberish.py [--errors]
    python bench/gibberish.py --fit      make src/safer_instruct/detect/bigrams.json again

bench/data/gibberish-labelled.jsonl: `text` and `gibberish` (0 or 1). The letter table is counted on examples/tune/general.jsonl and
on bench/data/languages.txt, both written for this project; its bound is what one in 2,000 of those words falls below.
"""

from __future__ import annotations

import json
import math
import sys
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from safer_instruct.detect.gibberish import _LETTERS, gibberish_reason, word_logprob
from safer_instruct.detect.language import language_of

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "src" / "safer_instruct" / "detect" / "bigrams.json"
SMOOTHING, QUANTILE = 0.02, 1 / 2000


def main() -> None:
    if "--fit" in sys.argv:
        TABLE.write_text(json.dumps(fit(), separators=(",", ":")) + "\n", encoding="utf-8")
    rows = [json.loads(line) for line in (ROOT / "bench" / "data" / "gibberish-labelled.jsonl").read_text("utf-8").splitlines()]
    print(f"{len(rows)} texts, {sum(row['gibberish'] for row in rows)} of them gibberish\n{'way':<34} precision  recall")
    ways: dict[str, Callable[[str], bool]] = {
        "letter pairs and signs (shipped)": lambda text: bool(gibberish_reason(text)),
        "CLD2 is not sure": lambda text: language_of(text) is None,
        "entropy of characters > 4.5 bits": lambda text: entropy_bits(text) > 4.5,
        "zlib makes it no smaller": lambda text: len(zlib.compress(text.encode())) >= len(text.encode()) + 8,
    }
    for name, way in ways.items():
        found = [(way(row["text"]), row["gibberish"]) for row in rows]
        right = sum(f and g for f, g in found)
        print(f"{name:<34} {right / max(1, sum(f for f, _ in found)):9.3f}  {right / sum(g for _, g in found):6.3f}")
    if "--errors" in sys.argv:
        for row in rows:
            reason = gibberish_reason(row["text"])
            if bool(reason) != row["gibberish"]:
                print(row["gibberish"], reason, repr(row["text"][:100]))


def fit() -> dict[str, object]:
    general = [json.loads(line) for line in (ROOT / "examples" / "tune" / "general.jsonl").read_text("utf-8").splitlines()]
    english = words(" ".join(f"{row['instruction']} {row['response']}" for row in general))
    others = words((ROOT / "bench" / "data" / "languages.txt").read_text("utf-8"))
    every = english + others * max(1, len(english) // (2 * len(others)))  # two parts of English to one of the others
    pairs = Counter(pair for word in every for pair in map("".join, zip(f"^{word}", f"{word}$", strict=True)))
    firsts: Counter[str] = Counter()
    for pair, count in pairs.items():
        firsts[pair[0]] += count
    letters = "abcdefghijklmnopqrstuvwxyz"
    table = {
        a + b: round(math.log((pairs[a + b] + SMOOTHING) / (firsts[a] + 27 * SMOOTHING)), 2) for a in f"^{letters}" for b in f"{letters}$" if a + b != "^$"
    }
    scores = sorted(word_logprob(word, table) for word in set(english + others) if len(word) >= 4)
    return {"bound": round(scores[int(len(scores) * QUANTILE)], 3), "logprob": table}


def words(text: str) -> list[str]:
    return _LETTERS.findall("".join(c for c in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(c)))


def entropy_bits(text: str) -> float:
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values()) if text else 0.0


if __name__ == "__main__":
    main()
