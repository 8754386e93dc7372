"""One bucket: get, put, list, delete. What the store says of errors becomes ours, without what it quotes of keys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from safer_instruct.errors import StorageError
from safer_instruct.extras import require
from safer_instruct.storage.address import STORES, Address
from safer_instruct.storage.profiles import profile_settings

_RETRIES, _RETRY_FOR_S = 8, 120.0
_PART_BYTES = 16 << 20
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthenticationFailed", "AuthorizationFailure")
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public bucket AWS_SKIP_SIGNATURE=true",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (a file), or log in: gcloud auth application-default login",
    "az": "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}
_ENDPOINT = {"s3": "AWS_ENDPOINT_URL and AWS_REGION", "gs": "the network", "az": "AZURE_STORAGE_ACCOUNT_NAME"}


class ExistsError(StorageError):
    """An object that was to be created is there, or one that was to be replaced or read has changed meanwhile."""


class GoneError(StorageError):
    """There is no such object, though its bucket may be there."""


@dataclass(frozen=True, slots=True)
class Object:
    """One object: its key below the bucket, size, version, and when it was written by the store's clock (Unix time).

    A version is the entity tag, and behind a line break the version's name where the store has one: GCS tells by it.
    """

    key: str
    size: int
    etag: str
    written_at: float


class Bucket:
    """The bucket of an address; safe to use from several threads."""

    def __init__(self, address: Address) -> None:
        """Connect to nothing yet; credentials come from the environment or a profile.

        Raises:
            StorageError: The scheme is none that can be written to, or what the environment says cannot be used.
            MissingExtraError: The extra `storage` is not installed.
        """
        if address.scheme not in STORES:
            raise StorageError(
                f"{address}: only {', '.join(f'{name}://' for name in ('s3', 'gs', 'az'))} can hold runs and exports; others can be read as sources"
            )
        self.kind, self.root = STORES[address.scheme], Address(address.scheme, address.bucket, "")
        self._obstore = require("obstore", extra="storage", purpose=f"reaching {address.scheme}:// addresses")
        stores = require("obstore.store", extra="storage", purpose=f"reaching {address.scheme}:// addresses")
        retries = {"max_retries": _attempts() - 1, "retry_timeout": timedelta(seconds=_RETRY_FOR_S)}
        with self._explained(""):
            if self.kind == "s3":
                settings = profile_settings()
                endpoint = settings.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
                options = {"allow_http": True} if endpoint.startswith("http://") else {}
                self._store = stores.S3Store(address.bucket, client_options=options, retry_config=retries, **settings)
            elif self.kind == "gs":
                self._store = stores.GCSStore(address.bucket, retry_config=retries)
            else:
                self._store = stores.AzureStore(address.bucket, retry_config=retries)

    def get(self, key: str) -> bytes:
        """A whole object.

        Raises:
            GoneError: There is none.
            StorageError: It cannot be read.
        """
        with self._explained(key):
            return bytes(self._obstore.get(self._store, key).bytes())

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """A whole object, and which version of it that is; errors as for `get`."""
        with self._explained(key):
            found = self._obstore.get(self._store, key)
            return bytes(found.bytes()), _version(found.meta)

    def get_range(self, key: str, start: int, end: int, etag: str = "") -> bytes:
        """A part of an object.

        Raises:
            ExistsError: It is not that version any more.
            GoneError: There is none.
            StorageError: It cannot be read.
        """
        options: dict[str, Any] = {"range": (start, end)} | ({"if_match": etag.partition("\n")[0]} if etag else {})
        with self._explained(key):
            return bytes(self._obstore.get(self._store, key, options=options).bytes())

    def download(self, key: str, path: Path) -> str:
        """An object as a file, which is written in place, and not made where there is none; gives the version. Errors as for `get`."""
        with self._explained(key):
            found = self._obstore.get(self._store, key)
            with path.open("wb") as file:
                for chunk in found.stream(min_chunk_size=4 << 20):
                    file.write(chunk)
            return _version(found.meta)

    def put(self, key: str, data: bytes) -> str:
        """Write an object, whatever is there; gives its version."""
        return self._put(key, data, "overwrite")

    def create(self, key: str, data: bytes) -> str:
        """Write an object that is not there yet.

        Raises:
            ExistsError: Something else is there; the same bytes are an earlier attempt of this one, whose answer was lost.
            StorageError: It cannot be written.
        """
        try:
            return self._put(key, data, "create")
        except ExistsError:
            there, etag = self.get_with_etag(key)
            if there != data:
                raise
            return etag

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Write an object in the place of that version.

        Raises:
            ExistsError: Another version is there by now.
            StorageError: It cannot be written.
        """
        tag, _, version = etag.partition("\n")
        return self._put(key, data, {"e_tag": tag, **({"version": version} if version else {})})

    def upload(self, key: str, path: Path) -> str:
        """Write a file as an object, which appears whole; gives its version."""
        with self._explained(key), path.open("rb") as file:
            return _version(self._obstore.put(self._store, key, file, chunk_size=_PART_BYTES))

    def head(self, key: str) -> Object | None:
        """What is known of an object, or None where there is none."""
        try:
            with self._explained(key):
                return _object(self._obstore.head(self._store, key))
        except GoneError:
            return None

    def list(self, prefix: str) -> Iterator[Object]:
        """All objects below a folder, in order of their keys."""
        with self._explained(prefix):
            found = [_object(each) for some in self._obstore.list(self._store, prefix or None) for each in some]
        yield from sorted(found, key=lambda each: each.key)

    def copy(self, key: str, to: str) -> None:
        """Copy an object within the bucket."""
        with self._explained(key):
            self._obstore.copy(self._store, key, to)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are gone are no error."""
        for key in (gone := list(keys)):
            if not key:
                raise ValueError("the bucket itself is not to be deleted")
        if gone:
            with self._explained(gone[0]), suppress(FileNotFoundError):  # what some stores say of one that is gone
                self._obstore.delete(self._store, gone)

    def _put(self, key: str, data: bytes, mode: Any) -> str:
        with self._explained(key):
            return _version(self._obstore.put(self._store, key, data, mode=mode, use_multipart=False))

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn what obstore raises into our errors, whose messages quote nothing that the store was sent."""
        place = self.root.below(key) if key else self.root
        try:
            yield
        except (self._obstore.exceptions.BaseError, FileNotFoundError, ValueError) as exc:
            if isinstance(exc, FileNotFoundError) and exc.filename:
                raise  # a file of this machine
            raise _error(exc, place, self.kind, self._obstore.exceptions) from _Cause(type(exc).__name__)


class _Cause(Exception):
    """Stands for the store's own error in a traceback: its text may quote keys and signatures."""


def _error(exc: Exception, place: Address, kind: str, said: Any) -> StorageError:
    text = str(exc)
    code = found.group(1) if (found := _CODE.search(text)) else ""
    status = found.group(1) if (found := _STATUS.search(text)) else ""
    bucket = Address(place.scheme, place.bucket, "")
    if code in ("NoSuchBucket", "ContainerNotFound") or "The specified bucket does not exist" in text:
        return StorageError(f"{bucket}: there is no such bucket; check its name, and {_ENDPOINT[kind]}")
    if isinstance(exc, said.AlreadyExistsError | said.PreconditionError):
        return ExistsError(f"{place}: another version is there by now")
    if _is_denied(exc, code, status, text, said):
        return StorageError(f"{place}: access is denied ({code or status or 'refused'}); check what these keys may do, and the keys themselves: {_KEYS[kind]}")
    if isinstance(exc, FileNotFoundError):
        return GoneError(f"{place}: there is no such object")
    if "169.254.169.254" in text or "metadata" in text or "Account must be specified" in text or "MissingAccount" in text:
        return StorageError(f"{place}: no credentials were found; set {_KEYS[kind]}")
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException") or status == "301" or "missing region" in text:
        return StorageError(f"{bucket}: the bucket is in another region; set AWS_REGION to its own")
    if isinstance(exc, said.NotSupportedError) or code == "NotImplemented" or status == "501":
        return StorageError(f"{place}: the store does not know what is needed here (conditional puts); use one that does: S3, GCS, Azure, MinIO, R2, Ceph")
    if "error sending request" in text or "HTTP error" in text or "timed out" in text or status.startswith("5"):
        why = f"it answers {status} {code}".strip() if status else "no answer"
        return StorageError(f"{place} cannot be reached ({why}); check the network and {_ENDPOINT[kind]}, then give the same command again")
    first = re.sub(r"\?\S*", "", text.split("\n")[0].partition("<?xml")[0])[:200]
    return StorageError(f"{place}: {code or type(exc).__name__}: {first}")


def _is_denied(exc: Exception, code: str, status: str, text: str, said: Any) -> bool:
    refused = status in ("401", "403") and "169.254.169.254" not in text  # there instances ask for keys
    return code in _DENIED or refused or isinstance(exc, said.PermissionDeniedError | said.UnauthenticatedError)


def _attempts() -> int:
    """Attempts at a request, as AWS_MAX_ATTEMPTS has them for every AWS tool."""
    said = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return max(1, int(said)) if said.isdigit() else _RETRIES


def _object(meta: Any) -> Object:
    return Object(meta["path"], meta["size"], _version(meta), meta["last_modified"].timestamp())


def _version(meta: Any) -> str:
    return str(meta["e_tag"] or "") + (f"\n{version}" if (version := meta.get("version")) else "")
