"""Texts as sets of word trigrams, hashed, in one flat array: what set-level near-duplicate detection works on."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safer_instruct.detect.words import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]
    Rows = NDArray[np.int64]

OWNER_BITS = 14  # of a sort key: which of at most 16,384 owners, above the bits of a hash
HASH_BITS = 64 - OWNER_BITS  # two of 30 million shingles share 50 bits by chance in some 0.4 pairs: no figure moves
_OWNERS = 1 << OWNER_BITS
_HASHES_PER_BATCH = 1 << 21


@dataclass(frozen=True, slots=True)
class Shingles:
    """The sets of n texts.

    Attributes:
        hashes: [total] Hashes below 2**50, ascending and each once within a text.
        starts: [n + 1] Text i owns `hashes[starts[i]:starts[i + 1]]`.
    """

    hashes: Hashes
    starts: Rows

    @property
    def sizes(self) -> Rows:
        """[n] How many shingles each text has; at least 1."""
        return self.starts[1:] - self.starts[:-1]

    def similarity(self, left: Rows, right: Rows) -> NDArray[np.float64]:
        """Exact Jaccard similarity of the texts `left[k]` and `right[k]`: [pairs]."""
        import numpy as np

        sizes, shared = self.sizes, np.zeros(len(left), np.int64)
        both = sizes[left] + sizes[right]
        for begin, end in batches(both):
            owners = np.arange(end - begin)
            keys = np.concatenate([self.keyed(left[begin:end], owners), self.keyed(right[begin:end], owners)])
            keys.sort()
            twice = keys[1:][keys[1:] == keys[:-1]]  # each side is a set, so what stands twice is shared
            shared[begin:end] = np.bincount((twice >> np.uint64(HASH_BITS)).astype(np.int64), minlength=end - begin)
        jaccard: NDArray[np.float64] = shared / np.maximum(both - shared, 1)
        return jaccard

    def keyed(self, rows: Rows, owners: Rows) -> Hashes:
        """The hashes of some texts, each under the number of its owner: sorting these sorts within every owner."""
        import numpy as np

        sizes = self.sizes[rows]
        offsets = np.cumsum(sizes) - sizes
        places = np.arange(int(sizes.sum())) + np.repeat(self.starts[rows] - offsets, sizes)
        keys: Hashes = (np.repeat(owners, sizes).astype(np.uint64) << np.uint64(HASH_BITS)) | self.hashes[places]
        return keys


def shingle(texts: Iterable[str]) -> Shingles:
    """Hash the word trigrams of every text; a text of one or two words, or of none, counts as one shingle.

    A word is known by the order in which words first appear, so the result depends on the texts alone. Memory: 8 bytes per
    trigram (about 250 bytes for an instruction of 30 words) and the vocabulary.
    """
    import numpy as np

    numbers: defaultdict[str, int] = defaultdict(itertools.count(1).__next__)
    hashes, sizes = [], []
    remaining = iter(texts)
    while chunk := list(itertools.islice(remaining, _OWNERS)):
        flat, lengths = _numbered(chunk, numbers)
        keys = _trigrams(flat, lengths)
        keys.sort()
        keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
        sizes.append(np.bincount((keys >> np.uint64(HASH_BITS)).astype(np.int64), minlength=len(chunk)))
        hashes.append(keys & np.uint64((1 << HASH_BITS) - 1))
    starts = np.concatenate([np.zeros(1, np.int64), *sizes]).cumsum()
    return Shingles(np.concatenate([np.empty(0, np.uint64), *hashes]), starts)


def _numbered(chunk: Sequence[str], numbers: defaultdict[str, int]) -> tuple[Hashes, Rows]:
    """Word numbers of the texts, one after the other and each filled up with zeros to three, and how many each has."""
    import numpy as np

    flat: list[int] = []
    lengths = []
    for text in chunk:
        parts = words(text) or ["\0" + text]  # no word holds a null, so a text without words equals only itself
        found = [numbers[word] for word in parts]
        found += [0] * (3 - len(found))
        flat += found
        lengths.append(len(found))
    return np.array(flat, np.uint64), np.array(lengths, np.int64)


def _trigrams(flat: Hashes, lengths: Rows) -> Hashes:
    """Hash every three neighbours that belong to the same text, under the text's number in the chunk."""
    import numpy as np

    owner = np.repeat(np.arange(len(lengths)), lengths)
    inside = owner[:-2] == owner[2:]
    mixed = _mix(_mix(_mix(flat[:-2]) ^ flat[1:-1]) ^ flat[2:])[inside]
    keys: Hashes = (owner[:-2][inside].astype(np.uint64) << np.uint64(HASH_BITS)) | (mixed >> np.uint64(OWNER_BITS))
    return keys


def _mix(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014)."""
    import numpy as np

    values = (values + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def batches(sizes: Rows) -> Iterator[tuple[int, int]]:
    """Cut rows of these sizes into runs that share one set of owners and stay within a few megabytes."""
    import numpy as np

    ends, begin = np.cumsum(sizes), 0
    while begin < len(sizes):
        done = int(ends[begin - 1]) if begin else 0
        end = int(np.searchsorted(ends, done + _HASHES_PER_BATCH, "right"))
        end = min(max(end, begin + 1), begin + _OWNERS)
        yield begin, end
        begin = end
