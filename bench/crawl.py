"""How fast crawls are read and sifted, on a WARC and a WET file that are written first: libraries, our reader, and each filter.

python bench/crawl.py                 # 4,000 pages, about a minute; needs the extra `web`, and warcio to compare with
python bench/crawl.py --pages 40000
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from made_crawls import http, record, wet

from safer_instruct.config import FilterConfig, SourceConfig
from safer_instruct.example import Example
from safer_instruct.filters.checks import Check, check_all
from safer_instruct.filters.registry import open_filters
from safer_instruct.sources import SourceText, read_source

Made = TypeVar("Made")
PREFILTERS = ("length", "language", "gibberish", "gopher", "gopher-repetition", "c4", "fineweb")
TEXTS = Path(__file__).parents[1] / "examples" / "tune" / "civility-plain.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=4_000)
    pages = parser.parse_args().pages
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        sizes = write(base, pages)
        print(f"{pages:,} pages, each with its request and metadata: WARC {sizes[0]:.1f} MB packed, {sizes[1]:.1f} MB unpacked; WET {sizes[2]:.1f} MB packed\n")
        libraries(base)
        texts = readers(base, pages)
    sift(texts)


def write(base: Path, pages: int) -> tuple[float, float, float]:
    """A crawl of pages of 40 kB, most of it markup as on the web, and the WET file of the same."""
    rng = random.Random(0)
    replies = [json.loads(line)["kind"] for line in TEXTS.read_text("utf-8").splitlines()]
    packed = plain = 0
    with (base / "x.warc.gz").open("wb") as warc, (base / "x.warc.wet.gz").open("wb") as texts:
        for number in range(pages):
            text = [f"{rng.choice(replies)} {rng.choice(replies)}" for _ in range(rng.randint(3, 16))]
            for block in (
                record(number, b"GET / HTTP/1.1\r\nHost: garden.example\r\n\r\n", kind="request"),
                record(number, http(html(text, rng).encode())),
                record(number, b"fetchTimeMs: 12\r\n", kind="metadata", type="application/warc-fields"),
            ):
                plain += len(block)
                packed += warc.write(gzip.compress(block, 6, mtime=0))
            texts.write(gzip.compress(wet(number, "Home\nShop\nNews\n" + "\n".join(text) + "\nAll rights reserved"), 6, mtime=0))
    return packed / 1e6, plain / 1e6, (base / "x.warc.wet.gz").stat().st_size / 1e6


def html(paragraphs: list[str], rng: random.Random) -> str:
    """A page: an article among menus, scripts, and attributes by the dozen."""
    menu = "".join(f'<li class="nav-item nav-item--{i}"><a class="link" data-id="{rng.random():.12f}" href="/c/{i}">Shop {i}</a></li>' for i in range(60))
    script = "".join(f"window.data['{rng.random():.12f}']={{'a':{i},'b':'{rng.random():.12f}'}};" for i in range(300))
    body = "".join(f'<p class="text text--body" data-track="{rng.random():.12f}">{paragraph}</p>' for paragraph in paragraphs)
    return (
        f"<!doctype html><html><head><title>A page</title><script>{script}</script></head><body><div class='navbar'><ul>{menu}</ul></div>"
        f"<div class='content'><h1>A page about it</h1>{body}</div><div class='sidebar'><ul>{menu}</ul></div><p>All rights reserved</p></body>"
    )


def libraries(base: Path) -> None:
    """Records of all kinds a second, headers read and content unpacked, without taking pages apart."""
    print("| library | records | records/s of CPU | MB/s packed | peak MB |\n|---|---|---|---|---|")
    size = (base / "x.warc.gz").stat().st_size / 1e6
    for name, read in (("fastwarc", with_fastwarc), ("warcio", with_warcio)):
        try:
            count, seconds = timed(partial(count_of, read, base / "x.warc.gz"))
        except ModuleNotFoundError as exc:
            print(f"| {name} | | not installed: {exc.name} | | |")
            continue
        print(f"| {name} | {count:,} | {count / seconds:,.0f} | {size / seconds:.0f} | {peak_mb():.0f} |", flush=True)


def with_fastwarc(path: Path) -> Iterator[int]:
    from fastwarc.warc import ArchiveIterator

    with path.open("rb") as file:
        for found in ArchiveIterator(file, parse_http=False):
            yield len(found.reader.read()) + len(found.headers.get("WARC-Target-URI") or "")


def with_warcio(path: Path) -> Iterator[int]:
    from warcio.archiveiterator import ArchiveIterator

    with path.open("rb") as file:
        for found in ArchiveIterator(file, no_record_parse=True):
            yield len(found.content_stream().read()) + len(found.rec_headers.get_header("WARC-Target-URI") or "")


def readers(base: Path, pages: int) -> list[str]:
    """Pages and passages a second of our reader, and the passages."""
    print("\n| source | pages | pages/s of CPU | passages | passages/s of CPU | peak MB |\n|---|---|---|---|---|---|")
    texts: list[str] = []
    for name, source in (
        ("WARC, main text", {"path": "x.warc.gz"}),
        ("WARC, all text", {"path": "x.warc.gz", "web": {"main_text": False}}),
        ("WET", {"path": "x.warc.wet.gz"}),
    ):
        config = SourceConfig.model_validate({**source, "documents": {"by": "paragraph"}})
        found, seconds = timed(partial(texts_of, config, base))
        print(f"| {name} | {pages:,} | {pages / seconds:,.0f} | {len(found):,} | {len(found) / seconds:,.0f} | {peak_mb():.0f} |", flush=True)
        texts = texts or found
    return texts


def sift(texts: list[str]) -> None:
    """Texts a second of each filter, and of all one after the other."""
    words = sum(len(text.split()) for text in texts) / len(texts)
    print(f"\n{len(texts):,} passages of {words:.0f} words\n\n| filter | texts/s of CPU | dropped |\n|---|---|---|")
    examples = [Example(str(at), text, "c", "f", at) for at, text in enumerate(texts[:10_000])]
    for names in (*((name,) for name in PREFILTERS), PREFILTERS):
        checks = open_filters(FilterConfig(text={name: {} for name in names}, prompt=None), Path()).text
        dropped, seconds = timed(partial(dropped_of, checks, examples))
        print(f"| {names[0] if len(names) == 1 else 'all of them'} | {len(examples) / seconds:,.0f} | {dropped} |", flush=True)


def count_of(read: Callable[[Path], Iterator[int]], path: Path) -> int:
    return sum(1 for _ in read(path))


def texts_of(config: SourceConfig, base: Path) -> list[str]:
    return [row.text for row in read_source(config, base) if isinstance(row, SourceText)]


def dropped_of(checks: tuple[Check, ...], examples: list[Example]) -> int:
    return sum(not all(verdict.passed for verdict in check_all(checks, example)) for example in examples)


def timed(work: Callable[[], Made]) -> tuple[Made, float]:
    """What `work` gives, and the processor time that it took."""
    began = time.process_time()
    return work(), time.process_time() - began


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
