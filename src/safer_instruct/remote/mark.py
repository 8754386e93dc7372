"""What a working directory knows of its address: which versions it has seen, so that nothing is fetched or sent twice."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

from safer_instruct.storage.journal import Segment

MARK = ".storage.json"


@dataclass(slots=True)
class Mark:
    """Kept beside the ledger; a mark that is lost or behind costs time and nothing else.

    Attributes:
        path: Where it is kept.
        address: That the directory belongs to.
        versions: File -> the version in the store that this directory wrote or fetched last.
        merged: The segments in the store whose calls are here.
        number: Calls of the local ledger up to this number are in the store.
    """

    path: Path
    address: str
    versions: dict[str, str] = field(default_factory=dict)
    merged: list[Segment] = field(default_factory=list)
    number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def read(cls, folder: Path, address: str) -> Mark:
        """That of a directory; a fresh one where there is none, or it is of another address."""
        mark = cls(folder / MARK, address)
        try:
            said = json.loads(mark.path.read_text(encoding="utf-8"))
            if said["address"] == address:
                mark.versions, mark.number = dict(said["versions"]), int(said["number"])
                mark.merged = [Segment(*each) for each in said["merged"]]
        except (OSError, ValueError, KeyError, TypeError):
            return cls(folder / MARK, address)
        return mark

    def saw(self, name: str, version: str) -> None:
        """That version of a file is the directory's own."""
        with self._lock:
            self.versions[name] = version

    def write(self) -> None:
        """Keep it, without waiting for the disk."""
        with self._lock:
            said = {"address": self.address, "versions": self.versions, "merged": self.merged, "number": self.number}
            part = self.path.with_name(f"{MARK}.part")
            part.write_text(json.dumps(said), encoding="utf-8")
            part.replace(self.path)
