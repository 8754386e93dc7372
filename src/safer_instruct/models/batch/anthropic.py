"""Anthropic's Message Batches.

The rows are sent with the call that creates the batch, which ends when each has succeeded, errored, expired (after 24 hours)
or been canceled; only those that succeeded are charged. At most 100,000 rows and 256 MB; results stay for 29 days.

A batch carries no name of ours, and its rows' ids are told only with its results. One that may have been created is found
so: it is younger than the call that created it, has as many rows, and when it has ended, the rows' ids are ours.

    https://platform.claude.com/docs/en/build-with-claude/batch-processing
    https://platform.claude.com/docs/en/api/messages/batches
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from safer_instruct.models.addresses import HOSTS, fingerprint
from safer_instruct.models.batch.api import PATIENT, Api, Timing, compact, id_of
from safer_instruct.models.batch.jobs import Batch
from safer_instruct.models.batch.provider import Fate, Limits, Progress, Result, Sought, row_of
from safer_instruct.models.batch.rows import UNREADABLE, answered, failed, parsed
from safer_instruct.models.messages import headers, message_body, read_message, single
from safer_instruct.models.protocol import Completion, Generation
from safer_instruct.models.spending import Tokens

_CLOCKS_APART_S = 3600.0  # how far this machine's clock and the provider's may differ
_PAGES = 20
_REFUSED, _DENIED = ("invalid_request_error", "request_too_large"), ("authentication_error", "billing_error", "permission_error", "not_found_error")


class AnthropicBatches:
    """The batches of one of Anthropic's models."""

    limits = Limits(rows=100_000, bytes=256_000_000)

    def __init__(
        self,
        model: str,
        *,
        base_url: str = HOSTS["anthropic"].url,
        api_key_env: str = HOSTS["anthropic"].key_env,
        revision: str | None = None,
        timing: Timing = PATIENT,
    ) -> None:
        """Check what can be checked without a call; arguments as for `OpenAIBatches`.

        Raises:
            ModelError: `base_url` is no HTTP address, or the key is missing.
        """
        self.name = f"anthropic:{model}"
        self._api = Api(self.name, base_url, api_key_env, headers, timing)
        self.fingerprint = fingerprint(self.name, [self._api.address], revision)
        self._model = model

    def path(self, request: Generation) -> str:
        """See `Provider.path`."""
        return "/v1/messages"

    def rows(self, request: Generation) -> tuple[Generation, ...]:
        """See `Provider.rows`."""
        return (single(self._model, request),) * request.sampling.n

    def body(self, row: Generation) -> dict[str, Any]:
        """See `Provider.body`; there are no seeds."""
        return message_body(self._model, row)

    def line(self, custom_id: str, body: bytes, path: str) -> bytes:
        """See `Provider.line`."""
        return b'{"custom_id":%b,"params":%b}' % (compact(custom_id), body)

    async def upload(self, batch: Batch, lines: Sequence[bytes]) -> str:
        """See `Provider.upload`; nothing is sent ahead."""
        return ""

    async def create(self, batch: Batch, lines: Sequence[bytes]) -> str:
        """See `Provider.create`."""
        return id_of(await self._api.json("POST", "/messages/batches", b'{"requests":[%b]}' % b",".join(lines)))

    async def find(self, batch: Batch, others: set[str]) -> Sought:
        """See `Provider.find`."""
        after, undecided = "", False
        for _ in range(_PAGES):
            page = await self._api.get(f"/messages/batches?limit=100{f'&after_id={quote(after)}' if after else ''}")
            jobs = [job for job in page.get("data") or () if _unix(job.get("created_at")) > batch.changed_at - _CLOCKS_APART_S]
            for job in jobs:
                if id_of(job) in others or sum((job.get("request_counts") or {}).values()) != batch.size:
                    continue
                if job.get("processing_status") != "ended":
                    undecided = True
                elif await self._holds(id_of(job), batch):
                    return Sought(id_of(job))
            if not jobs or not page.get("has_more"):
                break
            after = id_of(jobs[-1])
        return Sought(undecided=undecided)

    async def poll(self, batch: Batch) -> Progress:
        """See `Provider.poll`."""
        job = await self._api.get(f"/messages/batches/{quote(batch.remote)}")
        counts = job.get("request_counts") or {}
        done = sum(counts.values()) - counts.get("processing", 0)
        return Progress(job.get("processing_status") == "ended", done=done)

    async def results(self, batch: Batch, progress: Progress) -> list[bytes]:
        """See `Provider.results`; the key is sent to the API's own address, not to one that a reply names."""
        return await self._api.download(f"/messages/batches/{quote(batch.remote)}/results")

    def read(self, line: bytes) -> Result:
        """See `Provider.read`."""
        data = parsed(line)
        id_, result = str(data.get("custom_id") or ""), data.get("result")
        if not isinstance(result, dict):
            return Result(id_, Fate.FAILED, reason=UNREADABLE)
        kind = result.get("type")
        if kind == "succeeded":
            return answered(id_, result.get("message"), _read)
        if kind == "errored":
            error = result.get("error")
            while isinstance(error, dict) and isinstance(error.get("error"), dict):
                error = error["error"]
            type_ = error.get("type") if isinstance(error, dict) else None
            return failed(id_, Fate.REFUSED if type_ in _REFUSED else Fate.DENIED if type_ in _DENIED else Fate.FAILED, error, str(type_))
        if kind in ("expired", "canceled"):
            return Result(id_, Fate.FAILED, tokens=Tokens(), reason=f"it {'has expired' if kind == 'expired' else 'was canceled'}")
        return Result(id_, Fate.FAILED, reason=UNREADABLE)

    async def cancel(self, batch: Batch) -> None:
        """See `Provider.cancel`."""
        await self._api.insist(lambda: self._api.call("POST", f"/messages/batches/{quote(batch.remote)}/cancel", b""))

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._api.close()

    async def _holds(self, remote: str, batch: Batch) -> bool:
        lines = await self._api.download(f"/messages/batches/{quote(remote)}/results")
        return any(row_of(batch, str(parsed(line).get("custom_id"))) is not None for line in lines)


def _read(message: Mapping[str, Any]) -> tuple[tuple[Completion, ...], Tokens | None]:
    completion, tokens = read_message(message)
    return (completion,), tokens


def _unix(time: Any) -> float:
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except ValueError:
        return 0.0
