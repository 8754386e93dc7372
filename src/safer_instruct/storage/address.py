"""Addresses in object storage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.errors import StorageError

STORES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
"""Schemes that can be written to -> the kind of store."""
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.DOTALL)
_FROM_PATH = re.compile(rf"({'|'.join(STORES)}):/(?!/)(.*)", re.DOTALL)  # what `Path` makes of one


@dataclass(frozen=True, slots=True)
class Address:
    """A place in a bucket.

    Attributes:
        scheme: As it was written.
        bucket: The bucket, for Azure the container.
        key: Below it, without slashes at its ends; '' is the bucket itself.
    """

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    def below(self, name: str) -> Address:
        """A place below this one."""
        return Address(self.scheme, self.bucket, f"{self.key}/{name}".strip("/"))


def is_remote(text: str | Path) -> bool:
    """Whether it is an address, and no path of this machine; also what `Path` makes of one."""
    return bool(_ADDRESS.match(str(text)) or _FROM_PATH.match(str(text)))


def parse(text: str | Path) -> Address:
    """The address that `text` is.

    Raises:
        StorageError: It names no bucket, or holds a secret.
    """
    found = _ADDRESS.fullmatch(str(text)) or _FROM_PATH.fullmatch(str(text))
    if not found:
        raise StorageError(f"'{text}' is no address in object storage; write one as s3://BUCKET/KEY")
    scheme, rest = found.groups()
    bucket, _, key = rest.partition("/")
    if "@" in bucket and scheme not in ("abfs", "abfss"):
        raise StorageError(f"the {scheme}:// address holds a user name or a key; credentials come from the environment or a profile, see docs/storage.md")
    if not bucket:
        raise StorageError(f"'{text}' names no bucket; write {scheme}://BUCKET/KEY")
    return Address(scheme, bucket.partition("@")[0], key.strip("/"))
