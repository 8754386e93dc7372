"""OpenAI's Batch API, which other hosts (Groq, Together, Azure's v1) offer in the same form.

Rows are uploaded as a JSONL file with purpose `batch`, the batch is created over it, and ends `completed`, `expired`,
`cancelled` or `failed`. Answers come in `output_file_id`, rows with errors in `error_file_id`, in any order; rows of an
expired batch that were not run stand there with the error `batch_expired`, and only answered rows are charged. At most
50,000 rows and 200 MB; too many tokens waiting make the batch fail with `token_limit_exceeded`.

    https://developers.openai.com/api/docs/guides/batch
    https://developers.openai.com/api/reference/resources/batches
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from safer_instruct.models.addresses import HOSTS, fingerprint
from safer_instruct.models.batch.api import PATIENT, Api, Timing, compact, id_of
from safer_instruct.models.batch.jobs import Batch
from safer_instruct.models.batch.provider import Limits, Progress, Result, Sought, each_completion
from safer_instruct.models.batch.rows import read_chat_line
from safer_instruct.models.chat import OPENAI_HOST, authorization, completion_body, dialect_of
from safer_instruct.models.protocol import Generation

_ENDED = ("completed", "expired", "cancelled", "failed")
_TOKEN = "safer_instruct_batch"  # noqa: S105 - the name of the metadata entry that holds a batch's token
_PAGES = 20


class OpenAIBatches:
    """The batches of one model behind an OpenAI-compatible batch API."""

    limits = Limits(rows=50_000, bytes=200_000_000)

    def __init__(
        self,
        model: str,
        *,
        base_url: str = HOSTS["openai"].url,
        api_key_env: str = HOSTS["openai"].key_env,
        revision: str | None = None,
        want_logprobs: bool = False,
        timing: Timing = PATIENT,
    ) -> None:
        """Check what can be checked without a call.

        Args:
            model: The name that the endpoint knows the model by.
            base_url: Where `/batches` and `/files` are found.
            api_key_env: Name of the environment variable that holds the key.
            revision: What is served, in the user's words; then the address is no part of the fingerprint.
            want_logprobs: Ask for `Completion.logprob`.
            timing: How long to wait for what.

        Raises:
            ModelError: `base_url` is no HTTP address, or the key is missing.
        """
        self.name = f"openai:{model}"
        self._api = Api(self.name, base_url, api_key_env, authorization, timing)
        # the same as of the model that is asked call by call: its ledger serves here, and the other way round
        self.fingerprint = fingerprint(self.name, [self._api.address], revision) + ("+logprobs" if want_logprobs else "")
        self._model, self._want_logprobs = model, want_logprobs
        self._hosted_by_openai = self._api.address.host == OPENAI_HOST
        self._dialect = dialect_of("openai", self._api.address.host)

    def path(self, request: Generation) -> str:
        """See `Provider.path`."""
        return "/v1/completions" if isinstance(request.prompt, str) else "/v1/chat/completions"

    def rows(self, request: Generation) -> tuple[Generation, ...]:
        """See `Provider.rows`; other hosts often refuse `n`, or give one completion whatever it says."""
        return (request,) if self._hosted_by_openai else each_completion(request)

    def body(self, row: Generation) -> dict[str, Any]:
        """See `Provider.body`."""
        return completion_body(self._model, row, self._dialect, want_logprobs=self._want_logprobs)

    def line(self, custom_id: str, body: bytes, path: str) -> bytes:
        """See `Provider.line`."""
        return b'{"custom_id":%b,"method":"POST","url":%b,"body":%b}' % (compact(custom_id), compact(path), body)

    async def upload(self, batch: Batch, lines: Sequence[bytes]) -> str:
        """See `Provider.upload`."""
        return await self._api.upload(batch.token, lines)

    async def create(self, batch: Batch, lines: Sequence[bytes]) -> str:
        """See `Provider.create`."""
        job = {"input_file_id": batch.upload, "endpoint": batch.path, "completion_window": "24h", "metadata": {_TOKEN: batch.token}}
        return id_of(await self._api.json("POST", "/batches", compact(job)))

    async def find(self, batch: Batch, others: set[str]) -> Sought:
        """See `Provider.find`; hosts that keep no metadata still tell the file, which no other batch has."""
        after = ""
        for _ in range(_PAGES):
            url = f"/batches?limit=100{f'&after={quote(after)}' if after else ''}"
            page = await self._api.get(url)
            jobs = [job for job in page.get("data") or () if isinstance(job, dict)]
            for job in jobs:
                if (job.get("metadata") or {}).get(_TOKEN) == batch.token or job.get("input_file_id") == batch.upload:
                    return Sought(id_of(job))
            if not jobs or not page.get("has_more"):
                break
            after = id_of(jobs[-1])
        return Sought()

    async def poll(self, batch: Batch) -> Progress:
        """See `Provider.poll`."""
        job = await self._api.get(f"/batches/{quote(batch.remote)}")
        outputs = tuple(str(job[name]) for name in ("output_file_id", "error_file_id") if job.get(name))
        counts = job.get("request_counts") or {}
        done = int(counts.get("completed") or 0) + int(counts.get("failed") or 0)
        failed, full = "", False
        if job.get("status") == "failed" and not outputs:
            errors = [error for error in (job.get("errors") or {}).get("data") or () if isinstance(error, dict)]
            full = any(error.get("code") == "token_limit_exceeded" for error in errors)
            failed = "; ".join(_failure(error) for error in errors[:3]) or "no reason given"
        return Progress(job.get("status") in _ENDED, outputs, done, self._api.cleaned(failed), full)

    async def results(self, batch: Batch, progress: Progress) -> list[bytes]:
        """See `Provider.results`."""
        return [line for file in progress.outputs for line in await self._api.download(f"/files/{quote(file)}/content")]

    def read(self, line: bytes) -> Result:
        """See `Provider.read`."""
        return read_chat_line(line)

    async def cancel(self, batch: Batch) -> None:
        """See `Provider.cancel`."""
        await self._api.insist(lambda: self._api.call("POST", f"/batches/{quote(batch.remote)}/cancel", b""))

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._api.close()


def _failure(error: dict[str, Any]) -> str:
    line = f" (line {error['line']})" if error.get("line") is not None else ""
    return f"{error.get('message') or error.get('code') or 'no message'}{line}"
