"""The Gemini API's batch mode.

Rows are uploaded as a JSONL file (in two steps, of which the first tells where to), the batch is created over it with a
display name of ours, and ends SUCCEEDED, FAILED, CANCELLED or EXPIRED (after 48 hours, without results). The results are a
file that may appear a little later than the state. Files have at most 2 GB; a number of rows is not given.

    https://ai.google.dev/gemini-api/docs/batch-api
    https://ai.google.dev/api/batch-api
    https://ai.google.dev/api/generate-content#generationconfig
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from safer_instruct.errors import AccessError
from safer_instruct.models.addresses import HOSTS, fingerprint
from safer_instruct.models.answers import cached_tokens, refuses_content, withheld_by
from safer_instruct.models.batch.api import PATIENT, Api, NotNowError, Timing, compact, id_of
from safer_instruct.models.batch.jobs import Batch
from safer_instruct.models.batch.provider import Fate, Limits, Progress, Result, Sought, each_completion, turns_of
from safer_instruct.models.batch.rows import UNREADABLE, answered, failed, fate_of, parsed
from safer_instruct.models.parsing import MalformedError, whole
from safer_instruct.models.protocol import Completion, Generation
from safer_instruct.models.spending import Tokens, reported

_PAGES = 100
# google.rpc.Code -> HTTP status (https://cloud.google.com/apis/design/errors#handling_errors)
_STATUS_OF_CODE = {3: 400, 5: 404, 7: 403, 9: 400, 11: 400, 16: 401}


class GeminiBatches:
    """The batches of one of Google's Gemini models."""

    limits = Limits(rows=100_000, bytes=2_000_000_000)

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "https://generativelanguage.googleapis.com/v1beta",
        api_key_env: str = HOSTS["gemini"].key_env,
        revision: str | None = None,
        timing: Timing = PATIENT,
    ) -> None:
        """Check what can be checked without a call; arguments as for `OpenAIBatches`.

        Raises:
            ModelError: `base_url` is no HTTP address, or the key is missing.
        """
        self.name = f"gemini:{model}"
        self._api = Api(self.name, base_url, api_key_env, lambda key: {"x-goog-api-key": key} if key else {}, timing)
        self.fingerprint = fingerprint(self.name, [self._api.address], revision)
        self._model = model.removeprefix("models/")
        self._root, _, self._version = self._api.url.rpartition("/")

    def path(self, request: Generation) -> str:
        """See `Provider.path`."""
        turns_of(request, self.name)
        return f"/models/{self._model}:generateContent"

    def rows(self, request: Generation) -> tuple[Generation, ...]:
        """See `Provider.rows`; some of the models refuse more than one candidate."""
        return each_completion(request)

    def body(self, row: Generation) -> dict[str, Any]:
        """See `Provider.body`."""
        sampling, turns = row.sampling, turns_of(row, self.name)
        config: dict[str, Any] = {"maxOutputTokens": sampling.max_tokens, "temperature": sampling.temperature, "seed": row.seed}
        if sampling.top_k > 0:
            config["topK"] = sampling.top_k
        if row.schema:
            config |= {"responseMimeType": "application/json", "responseJsonSchema": row.schema.definition}
        body: dict[str, Any] = {
            "contents": [{"role": "model" if t.role == "assistant" else "user", "parts": [{"text": t.content}]} for t in turns if t.role != "system"],
            "generationConfig": config,
        }
        if system := [{"text": turn.content} for turn in turns if turn.role == "system"]:
            body["systemInstruction"] = {"parts": system}
        return body

    def line(self, custom_id: str, body: bytes, path: str) -> bytes:
        """See `Provider.line`."""
        return b'{"key":%b,"request":%b}' % (compact(custom_id), body)

    async def upload(self, batch: Batch, lines: Sequence[bytes]) -> str:
        """See `Provider.upload`."""
        content = b"\n".join(lines) + b"\n"

        async def send() -> str:
            where = await self._upload_address(batch, len(content))
            headers = {"x-goog-upload-offset": "0", "x-goog-upload-command": "upload, finalize", "content-type": "application/jsonl"}
            done = await self._api.json("POST", where, content, headers=headers)
            return id_of(done.get("file") or {}, "name")

        return await self._api.insist(send)

    async def create(self, batch: Batch, lines: Sequence[bytes]) -> str:
        """See `Provider.create`."""
        job = {"batch": {"displayName": batch.token, "inputConfig": {"fileName": batch.upload}}}
        return id_of(await self._api.json("POST", f"/models/{quote(self._model)}:batchGenerateContent", compact(job)), "name")

    async def find(self, batch: Batch, others: set[str]) -> Sought:
        """See `Provider.find`."""
        token = ""
        for _ in range(_PAGES):
            page = await self._api.get(f"/batches?pageSize=100{f'&pageToken={quote(token)}' if token else ''}")
            for job in page.get("operations") or ():
                if (job.get("metadata") or {}).get("displayName") == batch.token:
                    return Sought(id_of(job, "name"))
            token = str(page.get("nextPageToken") or "")
            if not token:
                break
        return Sought()

    async def poll(self, batch: Batch) -> Progress:
        """See `Provider.poll`."""
        job = await self._api.get(f"/{quote(batch.remote)}")
        meta = job.get("metadata") or {}
        state = str(meta.get("state") or "").rpartition("_STATE_")[2]
        file = next((str(place["responsesFile"]) for place in (job.get("response") or {}, meta.get("output") or {}) if place.get("responsesFile")), "")
        stats = meta.get("batchStats") or {}
        done = sum(int(stats.get(f"{kind}RequestCount") or 0) for kind in ("successful", "failed"))
        failed = ""
        if state == "FAILED" and not file:
            failed = self._api.cleaned(str((job.get("error") or {}).get("message") or "no reason given"))
        ended = state in ("FAILED", "CANCELLED", "EXPIRED") or (state in ("SUCCEEDED", "PARTIALLY_SUCCEEDED") and bool(file))
        return Progress(ended, (file,) if file else (), done, failed)

    async def results(self, batch: Batch, progress: Progress) -> list[bytes]:
        """See `Provider.results`."""
        address = f"{self._root}/download/{self._version}"
        return [line for file in progress.outputs for line in await self._api.download(f"{address}/{quote(file)}:download?alt=media")]

    def read(self, line: bytes) -> Result:
        """See `Provider.read`."""
        data = parsed(line)
        id_ = str(data.get("key") or "")
        if isinstance(data.get("response"), dict):
            return answered(id_, data["response"], _read)
        error = data.get("error") or data.get("status")
        if isinstance(error, dict):
            code = error.get("code")
            status = _STATUS_OF_CODE.get(code, code) if isinstance(code, int) else 0
            return failed(id_, fate_of(status), error, f"code {code}")
        return Result(id_, Fate.FAILED, reason=UNREADABLE)

    async def cancel(self, batch: Batch) -> None:
        """See `Provider.cancel`."""
        await self._api.insist(lambda: self._api.call("POST", f"/{quote(batch.remote)}:cancel", b""))

    async def close(self) -> None:
        """See `Provider.close`."""
        await self._api.close()

    async def _upload_address(self, batch: Batch, size: int) -> str:
        headers = {
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(size),
            "x-goog-upload-header-content-type": "application/jsonl",
        }
        about = compact({"file": {"displayName": batch.token}})
        reply = await self._api.call("POST", f"{self._root}/upload/{self._version}/files", about, headers=headers)
        address = reply.headers.get("x-goog-upload-url", "")
        if not address:
            raise NotNowError("a reply that does not tell where to upload to", certain=True)
        if urlsplit(address)[:2] != urlsplit(self._root)[:2]:
            raise AccessError(f"{self.name} at {self._api.url} wants the upload at another address, {urlsplit(address).netloc}; the key is not sent there")
        return address


def _read(response: Mapping[str, Any]) -> tuple[tuple[Completion, ...], Tokens | None]:
    """What an answer says, and the tokens it took; a prompt that was blocked took some, too."""
    usage = response.get("usageMetadata") or {}
    told = reported(*(usage.get(name) for name in ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")))
    tokens = Tokens(told[0], told[1] + told[2], cached_tokens(response)) if told else None
    candidates = response.get("candidates") or []
    if not candidates and refuses_content(response):
        return (Completion(f"the prompt was blocked ({response['promptFeedback']['blockReason']})", withheld="filter"),), tokens
    if not candidates:
        raise MalformedError("an answer without candidates")
    parts = (candidates[0].get("content") or {}).get("parts") or ()
    text = "".join(str(part.get("text") or "") for part in parts if not part.get("thought"))
    finish = candidates[0].get("finishReason")
    withheld = withheld_by(finish) or ("" if text or finish in (None, "STOP", "MAX_TOKENS") else "filter")
    return (Completion(whole(text), finished=finish != "MAX_TOKENS", withheld=withheld),), tokens
