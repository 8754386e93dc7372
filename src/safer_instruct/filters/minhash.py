"""MinHash over word trigrams with locality-sensitive hashing: which texts are worth comparing.

Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, sections 3.3 and 3.4. rensa makes the signatures.
"""

from __future__ import annotations

from collections.abc import Sequence

PERMUTATIONS = 64
_ROWS, _SEED = 4, 42  # sixteen bands of four: at similarity 0.7, 99 of 100 pairs share one


def trigrams_of(parts: Sequence[str]) -> list[str]:
    """The trigrams of a text's words, as often as they stand there."""
    return [" ".join(trigram) for trigram in zip(parts, parts[1:], parts[2:], strict=False)]


def signature_of(trigrams: Sequence[str]) -> Sequence[int]:
    """[PERMUTATIONS] In how many places two of them agree estimates the Jaccard similarity, to about 0.06."""
    from rensa import RMinHash

    minhash = RMinHash(PERMUTATIONS, _SEED)
    minhash.update(trigrams)
    signature: list[int] = minhash.digest()
    return signature


def band_keys(signature: Sequence[int]) -> list[int]:
    """One key per band: texts that agree in all rows of a band have it in common."""
    return [hash((at, *signature[at : at + _ROWS])) for at in range(0, PERMUTATIONS, _ROWS)]
