"""Which keys a ledger may hold, asked without a look into the file: most calls of a run are new to it."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import islice

_BITS = 26  # 8 MB; of the keys that are not there, 2 in 10,000 look as if they were at 2 million calls, 5 in 100 at 10 million
_MASK = (1 << _BITS) - 1
_AT_ONCE = 100_000
_parts = struct.Struct("<4I")


class KnownKeys:
    """A Bloom filter (Bloom 1970) of four bits a key: says of no key that it is unknown when it is not.

    Keys are digests, so their own bits serve as the hashes.
    """

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._bits = bytearray(1 << (_BITS - 3))
        keys = iter(keys)
        while some := b"".join(islice(keys, _AT_ONCE)):
            self._add_all(some)

    def add(self, key: bytes) -> None:
        """From now on `key` may be there."""
        bits = self._bits
        for part in _parts.unpack(key):
            bits[(part & _MASK) >> 3] |= 1 << (part & 7)

    def _add_all(self, keys: bytes) -> None:
        """The same for many, one behind the other: a ledger of ten million calls is to be opened in seconds."""
        import numpy as np

        parts = np.frombuffer(keys, "<u4")
        np.bitwise_or.at(np.frombuffer(self._bits, np.uint8), (parts & _MASK) >> 3, (1 << (parts & 7)).astype(np.uint8))

    def __contains__(self, key: bytes) -> bool:
        bits, (a, b, c, d) = self._bits, _parts.unpack(key)
        return bool(
            bits[(a & _MASK) >> 3] & 1 << (a & 7)
            and bits[(b & _MASK) >> 3] & 1 << (b & 7)
            and bits[(c & _MASK) >> 3] & 1 << (c & 7)
            and bits[(d & _MASK) >> 3] & 1 << (d & 7)
        )
