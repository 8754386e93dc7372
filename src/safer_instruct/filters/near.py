"""Near-duplicates of a whole set at once: the best of every group of like texts stays, whatever the order they came in.

An exact set-similarity join and not an estimate: two sets of Jaccard similarity t or more must share one of their rarest
shingles (prefix filtering: Chaudhuri, Ganti and Kaushik, ICDE 2006; Bayardo, Ma and Srikant, WWW 2007), so only texts that share
one are compared, and those exactly. `bench/dedup.py` measures it beside MinHash libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safer_instruct.filters.shingles import HASH_BITS, OWNER_BITS, Shingles, batches, shingle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safer_instruct.filters.shingles import Hashes, Rows

_COUNT_BITS = 10  # of a shingle's place in the order: how many texts have it, up to 1,023; the rest is its hash
_ORDER_BITS = HASH_BITS - _COUNT_BITS
_TABLE_BITS = 24  # of the table of counts, at most 128 MB; counts of shingles that fall together add up, which costs time only
_PAIRS_PER_ROUND = 1 << 25
_ROUNDING = 1e-9  # 0.7 * 10 is a little more than 7, and a prefix must not be cut short for that


@dataclass(frozen=True, slots=True)
class Deduplicated:
    """What became of each of n texts, by position.

    Attributes:
        keep: [n] Whether it stays.
        cluster: [n] First position of its cluster: texts linked by near pairs, directly or through others.
        kept: [n] Position of the text that stays in its place; its own where it stays.
        similarity: [n] To that text; 1.0 where it stays.
    """

    keep: NDArray[np.bool_]
    cluster: Rows
    kept: Rows
    similarity: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Near pairs, as ranks: the better and the worse text of each, and how similar they are."""

    better: Rows
    worse: Rows
    similarity: NDArray[np.float64]


def deduplicate(texts: Iterable[str], scores: Sequence[float] | None = None, *, threshold: float) -> Deduplicated:
    """Go through the texts, best first, and keep each that is not near to one that was kept.

    So no two that stay are near, and each that goes is near to a better one that stays. What is found depends on texts and
    scores alone. Where a crowd shares its rarest shingles, each text is compared with the best of the crowd only, round after
    round among those left; then a text may be near to the one kept in its place through a third, and time stays linear.

    Args:
        texts: The column.
        scores: What makes a text better; a tie goes to the first, and so does everything without scores. NaN is worst.
        threshold: Jaccard similarity of the sets of word trigrams from which two texts count as one, above 0.
    """
    shingles = shingle(texts)
    return resolve(best_first(len(shingles.sizes), scores), shingles, threshold)


def best_first(count: int, scores: Sequence[float] | None) -> Rows:
    """[count] Positions, best score first, ties in input order."""
    import numpy as np

    if scores is None:
        return np.arange(count)
    worst_last = np.nan_to_num(np.asarray(scores, np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    return np.argsort(-worst_last, kind="stable")


def resolve(order: Rows, shingles: Shingles, threshold: float) -> Deduplicated:
    """As `deduplicate`, for texts that are shingled already; `order` holds their positions, best first."""
    import numpy as np

    same = _best_equal(shingles, order)
    ranked = order[same[order] == order]
    counts = _counts(shingles)
    boss, alive, rounds = np.arange(len(ranked)), np.ones(len(ranked), np.bool_), []
    while True:
        pairs, crowded = _near_pairs(np.flatnonzero(alive), ranked, shingles, counts, threshold)
        rounds.append(pairs)
        _settle(pairs, alive, boss)
        if not (crowded and len(pairs.better)):
            break
    rank = np.empty(len(order), np.int64)
    rank[ranked] = np.arange(len(ranked))
    kept = ranked[_ends(boss)][rank[same]]
    gone = np.flatnonzero(kept != np.arange(len(order)))
    similarity = np.ones(len(order))
    similarity[gone] = shingles.similarity(gone, kept[gone])
    return Deduplicated(kept == np.arange(len(order)), _first_of(_components(rounds, len(ranked))[rank[same]]), kept, similarity)


def _best_equal(shingles: Shingles, order: Rows) -> Rows:
    """[n] The best text with the same set: what is copied often is compared once."""
    import numpy as np

    if not len(order):
        return order
    marks = np.add.reduceat(shingles.hashes * np.uint64(0x9E3779B97F4A7C15), shingles.starts[:-1])  # a sum knows no order
    _, first, which = np.unique(marks[order], return_index=True, return_inverse=True)
    same = np.empty(len(order), np.int64)
    same[order] = order[first[which]]
    return same


def _counts(shingles: Shingles) -> NDArray[np.uint16]:
    """[2**bits] How many texts have a shingle, by the upper bits of its hash."""
    import numpy as np

    bits = min(_TABLE_BITS, len(shingles.hashes).bit_length())
    counts = np.bincount((shingles.hashes >> np.uint64(HASH_BITS - bits)).astype(np.int64), minlength=1 << bits)
    return np.minimum(counts, (1 << _COUNT_BITS) - 1, out=counts).astype(np.uint16)


def _near_pairs(ranks: Rows, ranked: Rows, shingles: Shingles, counts: NDArray[np.uint16], threshold: float) -> tuple[Pairs, bool]:
    """The near pairs among some ranks, and whether a crowd was too large to compare all with all."""
    import numpy as np

    bits = np.uint64(len(ranked).bit_length())
    entries = _prefix_entries(ranks, ranked, shingles, counts, threshold, bits)
    entries.sort()
    group = entries >> bits
    begins = np.concatenate([[True], group[1:] != group[:-1]]) if len(group) else np.empty(0, np.bool_)
    leader = np.flatnonzero(begins)[np.cumsum(begins) - 1]
    place = np.arange(len(entries)) - leader
    members = (entries & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    leaders = _leaders(place)
    better, worse = _candidates(members, leader, place, leaders)
    sizes = shingles.sizes[ranked]
    few, many = np.minimum(sizes[better], sizes[worse]), np.maximum(sizes[better], sizes[worse])
    possible = few >= threshold * many - _ROUNDING
    better, worse = better[possible], worse[possible]
    similarity = shingles.similarity(ranked[better], ranked[worse])
    near = similarity >= threshold
    return Pairs(better[near], worse[near], similarity[near]), bool(len(place)) and int(place.max()) > leaders


def _prefix_entries(ranks: Rows, ranked: Rows, shingles: Shingles, counts: NDArray[np.uint16], threshold: float, bits: np.uint64) -> Hashes:
    """A key for each of the rarest shingles of each text: the shingle above, the text's rank in the lowest `bits`."""
    import numpy as np

    found, slot = [np.empty(0, np.uint64)], np.uint64(HASH_BITS - (len(counts).bit_length() - 1))
    sizes = shingles.sizes[ranked[ranks]]
    prefix = sizes - np.ceil(threshold * sizes - _ROUNDING).astype(np.int64) + 1
    for begin, end in batches(sizes):
        keys = shingles.keyed(ranked[ranks[begin:end]], np.arange(end - begin))
        hashes = keys & np.uint64((1 << HASH_BITS) - 1)
        rarity = counts[(hashes >> slot).astype(np.int64)].astype(np.uint64)
        keys = (keys & ~np.uint64((1 << HASH_BITS) - 1)) | (rarity << np.uint64(_ORDER_BITS)) | (hashes >> np.uint64(_COUNT_BITS))
        keys.sort()
        owner = (keys >> np.uint64(HASH_BITS)).astype(np.int64)
        own = sizes[begin:end]
        rarest = np.arange(len(keys)) - np.repeat(np.cumsum(own) - own, own) < prefix[begin:end][owner]
        found.append((keys[rarest] << np.uint64(OWNER_BITS + _COUNT_BITS) >> bits << bits) | ranks[begin:end][owner[rarest]].astype(np.uint64))
    return np.concatenate(found)


def _leaders(place: Rows) -> int:
    """How many of the best of a crowd its members are compared with: as many as the pairs of a round allow."""
    import numpy as np

    most = 1024
    while most > 8 and int(np.minimum(place, most).sum()) > _PAIRS_PER_ROUND:
        most //= 2
    return most


def _candidates(members: Rows, leader: Rows, place: Rows, leaders: int) -> tuple[Rows, Rows]:
    """Each member of a group with the members before it, up to so many; every pair once."""
    import numpy as np

    codes, left = [np.empty(0, np.int64)], np.flatnonzero(place > 0)
    for at in range(leaders):
        left = left[place[left] > at]
        if not len(left):
            break
        codes.append(members[leader[left] + at] << 32 | members[left])
    distinct = np.unique(np.concatenate(codes))
    return distinct >> 32, distinct & 0xFFFFFFFF


def _settle(pairs: Pairs, alive: NDArray[np.bool_], boss: Rows) -> None:
    """Walk down the ranks: a text that is near to one still alive goes, and notes the most similar of them."""
    import numpy as np

    order = np.lexsort((pairs.better, -pairs.similarity, pairs.worse))
    for better, worse in zip(pairs.better[order].tolist(), pairs.worse[order].tolist(), strict=True):
        if alive[worse] and alive[better]:
            alive[worse], boss[worse] = False, better


def _ends(boss: Rows) -> Rows:
    """Where following each chain of bosses ends."""
    while (boss[boss] != boss).any():
        boss = boss[boss]
    return boss


def _components(rounds: Sequence[Pairs], count: int) -> Rows:
    """[count] A number per rank, the same for all that pairs link."""
    import numpy as np

    parent = list(range(count))

    def top(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for pairs in rounds:
        for better, worse in zip(pairs.better.tolist(), pairs.worse.tolist(), strict=True):
            parent[top(worse)] = top(better)
    return np.array([top(node) for node in range(count)], np.int64)


def _first_of(labels: Rows) -> Rows:
    """[n] The first position that carries each position's label."""
    import numpy as np

    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    return first[which]
