"""A run at an address: claim it, bring the working directory up to date, work there, publish.

What a run finishes is in the store before its answer is used (`append`), and so is what it may spend and what is at a batch API
(`keep`): a machine that vanishes takes with it what was in flight and nothing else. Only `progress.json` lags, some seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from safer_instruct import rundir
from safer_instruct.derived import DERIVED
from safer_instruct.errors import RunDirectoryError, StorageError
from safer_instruct.holding import hold
from safer_instruct.ledger import Call
from safer_instruct.remote.folders import work_folder
from safer_instruct.remote.mark import MARK, Mark
from safer_instruct.remote.publish import MANIFEST, Manifest, publish, read_manifest
from safer_instruct.remote.restore import Restored, calls_of, last_number, restore
from safer_instruct.storage.address import Address, parse
from safer_instruct.storage.attached import attached
from safer_instruct.storage.claim import LOCK, Claim, claimed
from safer_instruct.storage.client import Bucket
from safer_instruct.storage.journal import Journal, Segment, delete_segments, list_segments
from safer_instruct.visible import visible

_RESULTS = (rundir.SUMMARY, rundir.CARD, *DERIVED)


@contextmanager
def working_at(out: str | Path, work: Path | None, mode: rundir.Mode) -> Iterator[Path]:
    """The working directory of a run at an address, published when the block ends well.

    Args:
        out: The address.
        work: The directory; by default one below the user's state folder that belongs to the address.
        mode: `fresh` moves what stands at the address into `previous-N/` first.

    Raises:
        StorageError: The store cannot be reached, refuses, or is damaged.
        RunDirectoryError: Another process works at the address, or took it over.
    """
    address = parse(out)
    if not address.key:
        raise StorageError(f"{address}: a run needs a place of its own in the bucket; write {address}/NAME")
    bucket, folder = Bucket(address), (work or work_folder(address)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    homes: list[_Home] = []
    with claimed(bucket, address, _say, also=lambda: _tell(homes)) as claim:
        with hold(folder):
            if mode == "fresh":
                (folder / MARK).unlink(missing_ok=True)  # before what it speaks of: one that is ahead of the ledger would keep calls from being sent
                rundir.move_run_aside(folder)
                _move_aside(bucket, address)
        mark = Mark.read(folder, str(address))
        restored = restore(bucket, address, folder, mark, claim.earlier_epoch)
        claim.begin(restored.epoch)
        home = _Home(bucket, address, folder, claim, restored, mark)
        home.send_left()
        homes.append(home)
        try:
            with attached(folder, home):
                yield folder
        except BaseException:
            with suppress(StorageError, RunDirectoryError, OSError):  # what stopped the run is the news
                home.leave(finished=False)
            raise
        home.leave(finished=(folder / rundir.SUMMARY).is_file())


class _Home:
    """See `attached.Home`."""

    def __init__(self, bucket: Bucket, address: Address, folder: Path, claim: Claim, restored: Restored, mark: Mark) -> None:
        self._bucket, self._address, self._folder = bucket, address, folder
        self._claim, self._restored, self._mark = claim, restored, mark
        self._journal = Journal(bucket, address, restored.epoch)
        self._earlier: Manifest | None = None
        self._told = b""
        self._begun = self._retracted = self._failed = False

    def append(self, calls: Sequence[Call]) -> None:
        """See `Home.append`."""
        try:
            self._claim.check()
            if not self._begun:
                self._send_config()
            self._journal.append(calls)
        except (StorageError, RunDirectoryError) as exc:
            self._failed = True
            raise ConnectionError(f"{exc}; they are safe on this machine: give the same command again here") from exc

    def keep(self, name: str, data: bytes) -> None:
        """See `Home.keep`."""
        self._claim.check()
        self._mark.saw(name, self._bucket.put(self._address.below(name).key, data))
        self._mark.write()

    def retract(self) -> tuple[str, ...]:
        """See `Home.retract`: the manifest goes first, for a reader must not find it beside what is left."""
        self._claim.check()
        self._earlier = read_manifest(self._bucket, self._address)
        self._bucket.delete([self._address.below(MANIFEST).key])
        there = tuple(name for name in _RESULTS if self._bucket.head(self._address.below(name).key))
        self._bucket.delete(self._address.below(name).key for name in there)
        self._send_config()
        self._retracted = True
        return there

    def send_left(self) -> None:
        """Send calls that only this directory has: their upload had failed, or was cut off."""
        if self._restored.left:
            for calls in calls_of(self._folder / rundir.LEDGER, self._restored.left):
                self._journal.append(calls)
        self._note(self._listed())

    def send_progress(self) -> None:
        """Send how far the run is, where that has changed."""
        file = self._folder / rundir.PROGRESS
        data = file.read_bytes() if file.is_file() else b""
        if data and data != self._told:
            self.keep(rundir.PROGRESS, data)
            self._told = data

    def leave(self, *, finished: bool) -> None:
        """Send what else there is, and publish the results of a run that has `finished`; a dry run has none."""
        self._claim.check()
        self.send_progress()
        segments = self._listed()
        if finished and self._retracted:
            publish(self._bucket, self._address, self._folder, self._earlier, self._mark)
            self._mark.write()
            delete_segments(self._bucket, self._address, segments)
            segments = []
        self._note(segments)

    def _listed(self) -> list[Segment]:
        """The segments in the store whose calls are in the directory's ledger, and nobody else's."""
        known = set(self._restored.segments)
        return [one for one in list_segments(self._bucket, self._address) if one.epoch == self._restored.epoch or one in known]

    def _send_config(self) -> None:
        file = self._folder / rundir.RUN
        if file.is_file():
            self.keep(rundir.RUN, file.read_bytes())
        self._begun = True

    def _note(self, segments: list[Segment]) -> None:
        """Note how far the store and the directory are equal."""
        if not self._failed and (self._folder / rundir.LEDGER).is_file():
            self._mark.number = last_number(self._folder / rundir.LEDGER)
            self._mark.merged = segments
        self._mark.write()


def _tell(homes: list[_Home]) -> None:
    for home in homes:
        home.send_progress()


def _move_aside(bucket: Bucket, address: Address) -> None:
    """Move what stands at the address into `previous-N/` below it: copies first, then the manifest goes, then the rest."""
    keys = [each.key[len(address.key) + 1 :] for each in bucket.list(address.key)]
    old = [name for name in keys if not name.startswith(("previous-", "probe-")) and name != LOCK]
    if not old:
        return
    number = 1 + max((int(n) for name in keys if (n := name.removeprefix("previous-").partition("/")[0]).isdigit()), default=0)
    for name in old:
        bucket.copy(address.below(name).key, address.below(f"previous-{number}/{name}").key)
    bucket.delete([address.below(MANIFEST).key])
    bucket.delete(address.below(name).key for name in old if name != MANIFEST)


def _say(message: str) -> None:
    sys.stderr.write(f"note: {visible(message)}\n")
