"""Anthropic's Message Batches.

The rows are sent with the call that creates the batch, which ends when each has succeeded, errored, expired (after 24 hours)
or been canceled; only those that succeeded are charged. At most 100,000 rows and 256 MB; results stay for 29 days.

A batch carries no name of ours, and its rows' ids are told only with its results. One that may have been created is found
so: it is younger than the call that created it, has as many rows, and when it has ended, the rows' ids are ours.

    https://platform.claude.com/docs/en/build-with-claude/batch-processing
    https://platform.claude.com/docs/en/api/messages/batches
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from safer_instruct.models.batch.api import PATIENT, Api, Timing, compact, id_of
from safer_instruct.models.batch.jobs import Batch
from safer_instruct.models.batch.provider import Fate, Limits, Progress, Result, Sought, Tokens, row_of, turns_of
from safer_instruct.models.batch.rows import parsed, whole
from safer_instruct.models.protocol import Completion, Generation

_VERSION = "2023-06-01"
_CLOCKS_APART_S = 3600.0  # how far this machine's clock and the provider's may differ
_PAGES = 20
# Models from Claude Opus 4.7 on refuse temperature and top_k with HTTP 400; these are the ones before.
_SAMPLED = re.compile(r"claude-(?:[23]|instant|(?:opus|sonnet|haiku)-4(?:-[0-6])?(?:-\d{8})?$)")
_REFUSED, _DENIED = ("invalid_request_error", "request_too_large"), ("authentication_error", "billing_error", "permission_error", "not_found_error")


class AnthropicBatches:
    """The batches of one of Anthropic's models."""

    limits = Limits(rows=100_000, bytes=256_000_000)

    def __init__(self, model: str, *, base_url: str = "https://api.anthropic.com/v1", api_key_env: str = "ANTHROPIC_API_KEY", timing: Timing = PATIENT) -> None:
        """Check what can be checked without a call; arguments as for `OpenAIBatches`.

        Raises:
            ModelError: `base_url` is no HTTP address, or the key is missing.
        """
        self.name = f"anthropic:{model}"
        self._api = Api(self.name, base_url, api_key_env, lambda key: {"x-api-key": key, "anthropic-version": _VERSION}, timing)
        self.fingerprint = f"{self.name}@{self._api.url}"
        self._model, self._sampled = model, bool(_SAMPLED.match(model))

    def path(self, request: Generation) -> str:
        """See `Provider.path`."""
        turns_of(request, self.name)
        return "/v1/messages"

    def rows_per_call(self, request: Generation) -> int:
        """See `Provider.rows_per_call`."""
        return request.sampling.n

    def body(self, request: Generation, part: int) -> dict[str, Any]:
        """See `Provider.body`; there are no seeds."""
        turns = turns_of(request, self.name)
        body: dict[str, Any] = {"model": self._model, "max_tokens": request.sampling.max_tokens}
        body["messages"] = [{"role": turn.role, "content": turn.content} for turn in turns if turn.role != "system"]
        if system := "\n\n".join(turn.content for turn in turns if turn.role == "system"):
            body["system"] = system
        if self._sampled:
            body["temperature"] = min(1.0, request.sampling.temperature)
        if self._sampled and request.sampling.top_k > 0:
            body["top_k"] = request.sampling.top_k
        return body

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
            return Result(id_, Fate.FAILED, reason="a result line that cannot be read")
        kind = result.get("type")
        if kind == "succeeded":
            return _answer(id_, result.get("message"))
        if kind == "errored":
            error = result.get("error")
            while isinstance(error, dict) and isinstance(error.get("error"), dict):
                error = error["error"]
            type_, message = (error.get("type"), error.get("message")) if isinstance(error, dict) else (None, error)
            fate = Fate.REFUSED if type_ in _REFUSED else Fate.DENIED if type_ in _DENIED else Fate.FAILED
            return Result(id_, fate, tokens=Tokens(), reason=f"{type_}: {message}")
        if kind in ("expired", "canceled"):
            return Result(id_, Fate.FAILED, tokens=Tokens(), reason=f"it {'has expired' if kind == 'expired' else 'was canceled'}")
        return Result(id_, Fate.FAILED, reason="a result line that cannot be read")

    async def cancel(self, batch: Batch) -> None:
        """See `Provider.cancel`."""
        await self._api.insist(lambda: self._api.call("POST", f"/messages/batches/{quote(batch.remote)}/cancel", b""))

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._api.close()

    async def _holds(self, remote: str, batch: Batch) -> bool:
        lines = await self._api.download(f"/messages/batches/{quote(remote)}/results")
        return any(row_of(batch, str(parsed(line).get("custom_id"))) is not None for line in lines)


def _answer(id_: str, message: Any) -> Result:
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return Result(id_, Fate.FAILED, reason="a malformed answer")
    usage = message.get("usage") or {}
    cached, written = (int(usage.get(f"cache_{kind}_input_tokens") or 0) for kind in ("read", "creation"))
    tokens = Tokens(int(usage.get("input_tokens") or 0) + cached + written, int(usage.get("output_tokens") or 0), cached, written) if usage else None
    text = "".join(str(block.get("text") or "") for block in message["content"] if isinstance(block, dict) and block.get("type") == "text")
    if message.get("stop_reason") == "refusal" and not text:
        return Result(id_, Fate.REFUSED, tokens=tokens, reason="the answer was withheld (stop_reason refusal)")
    return Result(id_, Fate.ANSWERED, (Completion(whole(text), finished=message.get("stop_reason") != "max_tokens"),), tokens)


def _unix(time: Any) -> float:
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except ValueError:
        return 0.0
