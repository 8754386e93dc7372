# /// script
# requires-python = ">=3.11"
# dependencies = ["datatrove[io,processing]==0.10.1", "spacy>=3.8"]
# ///
"""datatrove: its four MinHash stages on two workers, 20 buckets of 5 hashes on word trigrams; words are split at spaces, which costs less than its own."""

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
from datatrove.pipeline.readers import JsonlReader
from datatrove.utils.word_tokenizers import WordTokenizer
from dedup_harness import measure

WORKERS = 2
CONFIG = MinhashConfig(n_grams=3, num_buckets=20, hashes_per_bucket=5)


class Spaces(WordTokenizer):
    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def drop(corpus: Path) -> Iterator[int]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)
        size = -(-len(lines) // WORKERS)
        (folder / "in").mkdir()
        for part in range(WORKERS):
            (folder / "in" / f"{part}.jsonl").write_text("".join(lines[part * size : (part + 1) * size]), encoding="utf-8")
        stages = [
            ([JsonlReader(f"{folder}/in"), MinhashDedupSignature(f"{folder}/signatures", CONFIG, language=Spaces())], WORKERS),
            ([MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=CONFIG)], CONFIG.num_buckets),
            ([MinhashDedupCluster(f"{folder}/buckets", f"{folder}/remove", config=CONFIG)], 1),
        ]
        for number, (steps, tasks) in enumerate(stages):
            LocalPipelineExecutor(steps, tasks=tasks, workers=min(tasks, WORKERS), logging_dir=f"{folder}/log{number}").run()
        for file in sorted((folder / "remove").glob("*.remove")):
            yield from (int(file.stem) * size + at for (at,) in struct.iter_unpack("<I", file.read_bytes()))


if __name__ == "__main__":
    measure(lambda _: [], from_file=drop)
