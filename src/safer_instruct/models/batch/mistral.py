"""Mistral's batch inference.

Rows are uploaded as a JSONL file with purpose `batch`; the job names the model, once for all rows, and ends `SUCCESS`,
`FAILED`, `TIMEOUT_EXCEEDED` or `CANCELLED`, with answers in `output_file` and rows with errors in `error_file`. At most a
million rows in a job, and files of 512 MB; jobs of more than 100,000 rows bring no gain here.

    https://docs.mistral.ai/capabilities/batch
    https://docs.mistral.ai/api/#tag/batch
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from safer_instruct.models.addresses import HOSTS, fingerprint
from safer_instruct.models.batch.api import PATIENT, Api, Timing, compact, id_of
from safer_instruct.models.batch.jobs import Batch
from safer_instruct.models.batch.provider import Limits, Progress, Result, Sought, each_completion, turns_of
from safer_instruct.models.batch.rows import read_chat_line
from safer_instruct.models.chat import authorization, completion_body, dialect_of
from safer_instruct.models.protocol import Generation

_RUNNING = ("QUEUED", "RUNNING", "CANCELLATION_REQUESTED")
_TOKEN = "safer_instruct_batch"  # noqa: S105 - the name of the metadata entry that holds a batch's token
_PAGES = 20


class MistralBatches:
    """The batches of one of Mistral's models."""

    limits = Limits(rows=100_000, bytes=500_000_000)

    def __init__(
        self,
        model: str,
        *,
        base_url: str = HOSTS["mistral"].url,
        api_key_env: str = HOSTS["mistral"].key_env,
        revision: str | None = None,
        timing: Timing = PATIENT,
    ) -> None:
        """Check what can be checked without a call; arguments as for `OpenAIBatches`.

        Raises:
            ModelError: `base_url` is no HTTP address, or the key is missing.
        """
        self.name = f"mistral:{model}"
        self._api = Api(self.name, base_url, api_key_env, authorization, timing)
        self.fingerprint = fingerprint(self.name, [self._api.address], revision)
        self._model, self._dialect = model, dialect_of("mistral", self._api.address.host)

    def path(self, request: Generation) -> str:
        """See `Provider.path`."""
        turns_of(request, self.name)
        return "/v1/chat/completions"

    def rows(self, request: Generation) -> tuple[Generation, ...]:
        """See `Provider.rows`; some of the models refuse `n`."""
        return each_completion(request)

    def body(self, row: Generation) -> dict[str, Any]:
        """See `Provider.body`; the job names the model."""
        body = completion_body(self._model, row, self._dialect)
        del body["model"]
        return body

    def line(self, custom_id: str, body: bytes, path: str) -> bytes:
        """See `Provider.line`."""
        return b'{"custom_id":%b,"body":%b}' % (compact(custom_id), body)

    async def upload(self, batch: Batch, lines: Sequence[bytes]) -> str:
        """See `Provider.upload`."""
        return await self._api.upload(batch.token, lines)

    async def create(self, batch: Batch, lines: Sequence[bytes]) -> str:
        """See `Provider.create`."""
        job = {"input_files": [batch.upload], "endpoint": batch.path, "model": self._model, "metadata": {_TOKEN: batch.token}, "timeout_hours": 24}
        return id_of(await self._api.json("POST", "/batch/jobs", compact(job)))

    async def find(self, batch: Batch, others: set[str]) -> Sought:
        """See `Provider.find`."""
        for page in range(_PAGES):
            jobs = (await self._api.get(f"/batch/jobs?page={page}&page_size=100&order_by=-created")).get("data") or ()
            for job in jobs:
                if (job.get("metadata") or {}).get(_TOKEN) == batch.token or batch.upload in (job.get("input_files") or ()):
                    return Sought(id_of(job))
            if not jobs:
                break
        return Sought()

    async def poll(self, batch: Batch) -> Progress:
        """See `Provider.poll`."""
        job = await self._api.get(f"/batch/jobs/{quote(batch.remote)}")
        outputs = tuple(str(job[name]) for name in ("output_file", "error_file") if job.get(name))
        failed = ""
        if job.get("status") == "FAILED" and not outputs:
            failed = "; ".join(str(e.get("message")) for e in (job.get("errors") or ())[:3] if isinstance(e, dict)) or "no reason given"
        done = job.get("completed_requests")
        return Progress(job.get("status") not in _RUNNING, outputs, done if isinstance(done, int) else 0, self._api.cleaned(failed))

    async def results(self, batch: Batch, progress: Progress) -> list[bytes]:
        """See `Provider.results`."""
        return [line for file in progress.outputs for line in await self._api.download(f"/files/{quote(file)}/content")]

    def read(self, line: bytes) -> Result:
        """See `Provider.read`."""
        return read_chat_line(line)

    async def cancel(self, batch: Batch) -> None:
        """See `Provider.cancel`."""
        await self._api.insist(lambda: self._api.call("POST", f"/batch/jobs/{quote(batch.remote)}/cancel", b""))

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._api.close()
