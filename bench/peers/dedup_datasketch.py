# /// script
# requires-python = ">=3.11"
# dependencies = ["datasketch==2.0.0"]
# ///
"""datasketch: MinHashLSH with 128 permutations, candidates checked by signature."""

from collections.abc import Iterator

from datasketch import MinHash, MinHashLSH
from dedup_harness import THRESHOLD, measure, trigrams


def drop(texts: list[str]) -> Iterator[int]:
    index, signatures = MinHashLSH(threshold=THRESHOLD, num_perm=128), {}
    for i, text in enumerate(texts):
        signature = MinHash(num_perm=128)
        signature.update_batch([part.encode() for part in trigrams(text)])
        if any(signatures[other].jaccard(signature) >= THRESHOLD for other in index.query(signature)):
            yield i
            continue
        index.insert(i, signature)
        signatures[i] = signature


if __name__ == "__main__":
    measure(drop)
