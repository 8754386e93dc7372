"""The four providers' batch APIs on the loopback, as their documentation describes them, and misbehaving on demand.

    with serve_batches(polls=2, faults={"create": ["lost"]}) as server:
        provider = OpenAIBatches("m", base_url=server.url("openai"), ...)
        ...
        assert server.paid_twice == 0

Nothing depends on the clock: a batch ends after so many questions about it, faults come in a given order. A row's fate is
what its prompt says: REFUSE is refused, FLAKY fails the first time, BROKEN always, VANISH has no result the first time, TWICE
has two, GARBLED is answered with nonsense the first time, WITHHELD is withheld, BLOCKED is stopped by a filter. Keys, content
types, ids and limits are checked as the real APIs do. What is answered is counted as paid.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from aiohttp import web

KEY = "test-key-1234"
KEY_ENV = "BATCH_TEST_KEY"
PROVIDERS = ("openai", "anthropic", "gemini", "mistral")
_WORDS = ["parcel", "umbrella", "refund", "order", "lamp", "kettle", "cake", "card", "tent", "bicycle", "invoice", "voucher"]
_VERSION = {"openai": "v1", "anthropic": "v1", "gemini": "v1beta", "mistral": "v1"}


@dataclass
class Job:
    """A batch at a provider."""

    id: str
    rows: list[tuple[str, dict[str, Any]]]
    name: Any = None
    upload: str = ""
    created: float = 0.0
    left: int = 0
    state: str = "running"  # running, done, expired, cancelled, invalid
    error: str = ""
    code: str = ""
    good: list[Any] = field(default_factory=list)
    bad: list[Any] = field(default_factory=list)
    hidden: int = 0


class BatchServer:
    """A running server and what has happened at it.

    Attributes:
        paid: Answers made, by digest of what was asked.
        asked: Requests, by operation: upload, create, list, poll, results, cancel.
        jobs: Every batch, in order of creation, by provider.
        reached: Set when an operation of that name is being held.
    """

    def __init__(self, *, polls: int, faults: Mapping[str, list[str]], expire: int | None, invalid: str, queue_full: int, hidden: int) -> None:
        self.polls, self.expire, self.invalid, self.queue_full, self.hidden = polls, expire, invalid, queue_full, hidden
        self.faults = {name: list(kinds) for name, kinds in faults.items()}
        self.address = ""
        self.paid: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.jobs: dict[str, list[Job]] = {name: [] for name in PROVIDERS}
        self.files: dict[str, bytes] = {}
        self.seen: Counter[str] = Counter()
        self.reached: dict[str, threading.Event] = {name: threading.Event() for name in ("upload", "create", "poll", "results")}
        self.release = asyncio.Event()
        self.stopping = asyncio.Event()

    def url(self, provider: str) -> str:
        """The base address of one provider's API."""
        return f"{self.address}/{provider}/{_VERSION[provider]}"

    @property
    def paid_twice(self) -> int:
        """Answers that had been made before."""
        return self.paid.total() - len(self.paid)

    @property
    def created(self) -> int:
        """Batches created."""
        return sum(map(len, self.jobs.values()))

    async def doing(self, op: str, provider: str, request: web.Request, act: Any) -> web.StreamResponse:
        """Do one operation, or what the next fault of that name says instead."""
        self.asked[op] += 1
        if not _authorised(provider, request):
            return web.json_response(
                {"error": {"message": f"wrong key {request.headers.get('authorization', '')}", "type": "authentication_error"}}, status=401
            )
        fault = self.faults[op].pop(0) if self.faults.get(op) else ""
        if fault in ("hold", "hold-before"):
            reply = await act() if fault == "hold" else None
            self.reached[op].set()
            await self.release.wait()
            if reply is None:
                _break_off(request)
            return reply or web.Response()
        if fault.isdecimal():
            return web.json_response({"error": {"message": "not now"}}, status=int(fault))
        if fault in ("reset", "lost-reset"):
            if fault == "lost-reset":
                await act()
            _break_off(request)
            return web.Response()
        reply = await act()
        if fault == "lost":
            return web.json_response({"error": {"message": "something broke"}}, status=500)
        if fault == "garbage":
            return web.Response(text="<html>")
        return reply

    def start(self, provider: str, rows: list[tuple[str, dict[str, Any]]], **about: Any) -> Job:
        """Create a batch."""
        number = self.created
        id_ = f"batches/b{number}" if provider == "gemini" else f"batch-{number}"
        job = Job(id_, rows, created=datetime.now(UTC).timestamp(), left=self.polls, hidden=self.hidden, **about)
        if self.invalid:
            job.state, job.error, job.code = "invalid", self.invalid, "invalid_json_line"
        elif self.queue_full:
            self.queue_full -= 1
            job.state, job.error, job.code = "invalid", "Enqueued token limit reached", "token_limit_exceeded"
        self.jobs[provider].append(job)
        self.bodies += [body for _, body in rows]
        return job

    def hurry(self) -> None:
        """From here on batches end soon."""
        self.polls = 2
        for job in (job for jobs in self.jobs.values() for job in jobs):
            job.left = min(job.left, 2)

    def look(self, provider: str, job: Job) -> Job:
        """Somebody asks about a batch: time goes by for it."""
        job.left -= 1
        if job.state == "running" and job.left <= 0:
            cap, self.expire = self.expire, None
            job.state = "done" if cap is None else "expired"
            for number, (id_, body) in enumerate(job.rows):
                self._run(provider, job, id_, body, expired=cap is not None and number >= cap)
            job.good.reverse()
        return job

    def _run(self, provider: str, job: Job, id_: str, body: dict[str, Any], *, expired: bool) -> None:
        text = json.dumps(body, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if expired:
            job.bad += [] if (line := _expired(provider, id_)) is None else [line]
            return
        self.seen[digest] += 1
        first = self.seen[digest] == 1
        if "REFUSE" in text:
            job.bad.append(_error(provider, id_, 400, "this is not allowed"))
        elif "BLOCKED" in text:
            job.bad.append(_error(provider, id_, 400, "Output blocked by content filtering policy"))
        elif "BROKEN" in text or ("FLAKY" in text and first):
            job.bad.append(_error(provider, id_, 500, "something broke"))
        elif "DENIED" in text:
            job.bad.append(_error(provider, id_, 404, "no such model"))
        elif "VANISH" in text and first:
            return
        elif "GARBLED" in text and first:
            job.good.append(_wrapped(provider, id_, {"nonsense": [1]}))
        else:
            self.paid[f"{digest} {self.seen[digest] if 'sibling' in text else ''}"] += 1
            answer = _wrapped(provider, id_, _answer(provider, body, withheld="WITHHELD" in text))
            job.good += [answer] * (2 if "TWICE" in text else 1)


def _authorised(provider: str, request: web.Request) -> bool:
    headers = request.headers
    if provider == "anthropic":
        return headers.get("x-api-key") == KEY and headers.get("anthropic-version") == "2023-06-01"
    return headers.get("x-goog-api-key") == KEY if provider == "gemini" else headers.get("authorization") == f"Bearer {KEY}"


def _break_off(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _prompt(provider: str, body: dict[str, Any]) -> str:
    if provider == "gemini":
        return str(body["contents"][-1]["parts"][0]["text"])
    return str(body["messages"][-1]["content"] if "messages" in body else body["prompt"])


def answer_to(prompt: str, seed: int = 0) -> str:
    """What every provider answers: something of use in each stage of a run, and short prompts repeated."""
    words = [_WORDS[b % len(_WORDS)] for b in hashlib.sha256(f"{prompt} {seed}".encode()).digest()[:6]]
    if "### Questions about the reply" in prompt:
        return "Yes"
    if "### Reply A:" in prompt:
        return "A" if "happy" in prompt.partition("### Reply A:")[2].partition("### Reply B:")[0] else "B"
    if "please?" in prompt:
        return f"I am happy to help with the {' and the '.join(words)}."
    if len(prompt) > 60:
        return f"Could you look into my {' '.join(words)} today, please?"
    return f"answer to {prompt} {hashlib.sha256(f'{prompt} {seed}'.encode()).hexdigest()[:6]}"


def _answer(provider: str, body: dict[str, Any], *, withheld: bool) -> dict[str, Any]:
    prompt = _prompt(provider, body)
    if provider == "anthropic":
        content = [] if withheld else [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": answer_to(prompt)}]
        usage = {"input_tokens": 7, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 1, "output_tokens": 5}
        return {"type": "message", "role": "assistant", "content": content, "stop_reason": "refusal" if withheld else "end_turn", "usage": usage}
    if provider == "gemini":
        usage = {"promptTokenCount": 10, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 15}
        if withheld:
            return {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage}
        text = answer_to(prompt, body["generationConfig"].get("seed", 0))
        parts = [{"text": "hm", "thought": True}, {"text": text}]
        return {"candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "STOP"}], "usageMetadata": usage}
    seed, n = body.get("seed", body.get("random_seed", 0)), body.get("n", 1)
    said = [{"content": None, "refusal": "I cannot"} if withheld else {"content": answer_to(prompt, seed + i)} for i in range(n)]
    choices = [{"index": i, "finish_reason": "stop", **({"message": s} if "messages" in body else {"text": s["content"]})} for i, s in enumerate(said)]
    return {"choices": choices[::-1], "usage": {"prompt_tokens": 10, "completion_tokens": 5 * n, "total_tokens": 10 + 5 * n}}


def _wrapped(provider: str, id_: str, body: dict[str, Any]) -> dict[str, Any]:
    if provider == "anthropic":
        return {"custom_id": id_, "result": {"type": "succeeded", "message": body}}
    if provider == "gemini":
        return {"key": id_, "response": body}
    return {"id": f"req-{id_}", "custom_id": id_, "response": {"status_code": 200, "body": body}, "error": None}


def _error(provider: str, id_: str, status: int, message: str) -> dict[str, Any]:
    if provider == "anthropic":
        kind = {400: "invalid_request_error", 404: "not_found_error", 500: "api_error"}[status]
        return {"custom_id": id_, "result": {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": message}}}}
    if provider == "gemini":
        return {"key": id_, "error": {"code": {400: 3, 404: 5, 500: 13}[status], "message": message}}
    return {"id": f"req-{id_}", "custom_id": id_, "response": {"status_code": status, "body": {"error": {"message": message}}}, "error": None}


def _expired(provider: str, id_: str) -> dict[str, Any] | None:
    if provider == "anthropic":
        return {"custom_id": id_, "result": {"type": "expired"}}
    if provider == "openai":
        return {"id": f"req-{id_}", "custom_id": id_, "response": None, "error": {"code": "batch_expired", "message": "could not be executed in time"}}
    return None  # Gemini and Mistral say nothing of rows that were not run


def _jsonl(lines: list[Any]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


class _Routes:
    """What the four APIs have in common: find a job, serve a file; each has a way of its own to show a job (`shown`)."""

    def __init__(self, server: BatchServer, provider: str) -> None:
        self.server, self.provider = server, provider
        self.jobs = server.jobs[provider]

    def job(self, id_: str) -> Job | None:
        return next((job for job in self.jobs if job.id == id_), None)

    def listed(self) -> list[Job]:
        """The newest first; some are not shown at once."""
        shown = [job for job in self.jobs if job.hidden <= 0]
        for job in self.jobs:
            job.hidden -= 1
        return [self.server.look(self.provider, job) for job in reversed(shown)]

    def keep(self, content: bytes) -> str:
        name = f"file-{len(self.server.files)}"
        self.server.files[name] = content
        return name

    def results_of(self, job: Job) -> tuple[str | None, str | None]:
        """The names of the two result files."""
        files = []
        for kind, lines in (("good", job.good), ("bad", job.bad)):
            name = f"file-{job.id}-{kind}".replace("batches/", "")
            self.server.files[name] = _jsonl(lines)
            files.append(name if lines else None)
        return files[0], files[1]

    async def handle(self, op: str, request: web.Request, act: Any) -> web.StreamResponse:
        return await self.server.doing(op, self.provider, request, act)

    async def content(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            name = request.match_info["id"]
            return web.Response(body=self.server.files[name]) if name in self.server.files else web.json_response({"error": "no such file"}, status=404)

        return await self.handle("results", request, act)

    async def upload(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            form = await request.post()
            assert form["purpose"] == "batch"
            return web.json_response({"id": self.keep(form["file"].file.read())})  # type: ignore[union-attr]

        return await self.handle("upload", request, act)

    async def poll(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            job = self.job(request.match_info["id"])
            return web.json_response(self.shown(self.server.look(self.provider, job))) if job else web.json_response(self.no_such_job, status=404)

        return await self.handle("poll", request, act)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            job = self.job(request.match_info["id"])
            assert job
            job.state = "cancelled"
            return web.json_response(self.shown(job))

        return await self.handle("cancel", request, act)

    def checked(self, rows: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
        assert len({id_ for id_, _ in rows}) == len(rows) and all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", id_) for id_, _ in rows)
        return rows


class _OpenAI(_Routes):
    no_such_job: ClassVar = {"error": "no such batch"}

    def routes(self) -> list[web.RouteDef]:
        base = "/openai/v1"
        return [
            web.post(f"{base}/files", self.upload),
            web.get(base + "/files/{id}/content", self.content),
            web.post(f"{base}/batches", self.create),
            web.get(f"{base}/batches", self.list),
            web.get(base + "/batches/{id}", self.poll),
            web.post(base + "/batches/{id}/cancel", self.cancel),
        ]

    def shown(self, job: Job) -> dict[str, Any]:
        status = {"running": "in_progress", "done": "completed", "invalid": "failed"}.get(job.state, job.state)
        good, bad = self.results_of(job) if job.state in ("done", "expired", "cancelled") else (None, None)
        errors = {"object": "list", "data": [{"code": job.code, "message": job.error, "line": 1}]} if job.error else None
        counts = {"total": len(job.rows), "completed": len(job.good), "failed": len(job.bad)}
        about = {"id": job.id, "object": "batch", "status": status, "metadata": job.name, "input_file_id": job.upload}
        return {**about, "output_file_id": good, "error_file_id": bad, "errors": errors, "request_counts": counts}

    async def create(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            body = await request.json()
            assert body["completion_window"] == "24h"
            lines = [json.loads(line) for line in self.server.files[body["input_file_id"]].split(b"\n") if line]
            assert all(line["method"] == "POST" and line["url"] == body["endpoint"] for line in lines)
            assert all(("messages" in line["body"]) == body["endpoint"].endswith("/chat/completions") for line in lines)
            rows = self.checked([(line["custom_id"], line["body"]) for line in lines])
            return web.json_response(self.shown(self.server.start("openai", rows, name=body["metadata"], upload=body["input_file_id"])))

        return await self.handle("create", request, act)

    async def list(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            jobs = self.listed()
            after = request.query.get("after")
            start = next((i + 1 for i, job in enumerate(jobs) if job.id == after), 0)
            page = jobs[start : start + 2]
            return web.json_response({"object": "list", "data": [self.shown(j) for j in page], "has_more": start + 2 < len(jobs)})

        return await self.handle("list", request, act)


class _Mistral(_Routes):
    no_such_job: ClassVar = {"detail": "no such job"}

    def routes(self) -> list[web.RouteDef]:
        base = "/mistral/v1"
        return [
            web.post(f"{base}/files", self.upload),
            web.get(base + "/files/{id}/content", self.content),
            web.post(f"{base}/batch/jobs", self.create),
            web.get(f"{base}/batch/jobs", self.list),
            web.get(base + "/batch/jobs/{id}", self.poll),
            web.post(base + "/batch/jobs/{id}/cancel", self.cancel),
        ]

    def shown(self, job: Job) -> dict[str, Any]:
        status = {"running": "RUNNING", "done": "SUCCESS", "expired": "TIMEOUT_EXCEEDED", "cancelled": "CANCELLED", "invalid": "FAILED"}[job.state]
        good, bad = self.results_of(job) if job.state in ("done", "expired", "cancelled") else (None, None)
        errors = [{"message": job.error, "count": 1}] if job.error else []
        about = {"id": job.id, "object": "batch", "status": status, "metadata": job.name, "input_files": [job.upload], "errors": errors}
        return {**about, "output_file": good, "error_file": bad, "total_requests": len(job.rows), "completed_requests": len(job.good) + len(job.bad)}

    async def create(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            body = await request.json()
            assert body["endpoint"] == "/v1/chat/completions" and body["model"] == "m"
            lines = [json.loads(line) for line in self.server.files[body["input_files"][0]].split(b"\n") if line]
            rows = self.checked([(line["custom_id"], line["body"]) for line in lines])
            return web.json_response(self.shown(self.server.start("mistral", rows, name=body["metadata"], upload=body["input_files"][0])))

        return await self.handle("create", request, act)

    async def list(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            page = int(request.query["page"])
            jobs = self.listed()[page * 2 : page * 2 + 2]
            return web.json_response({"total": len(self.jobs), "data": [self.shown(job) for job in jobs]})

        return await self.handle("list", request, act)


class _Anthropic(_Routes):
    def routes(self) -> list[web.RouteDef]:
        base = "/anthropic/v1/messages/batches"
        return [
            web.post(base, self.create),
            web.get(base, self.list),
            web.get(base + "/{id}", self.poll),
            web.get(base + "/{id}/results", self.results),
            web.post(base + "/{id}/cancel", self.cancel),
        ]

    def shown(self, job: Job) -> dict[str, Any]:
        ended = job.state != "running"
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if ended:
            counts["succeeded"] = len({line["custom_id"] for line in job.good})
            counts["expired"] = len(job.rows) - counts["succeeded"]
        else:
            counts["processing"] = len(job.rows)
        created = datetime.fromtimestamp(job.created, UTC).isoformat().replace("+00:00", "Z")
        about = {"id": job.id, "type": "message_batch", "processing_status": "ended" if ended else "in_progress", "created_at": created}
        return {**about, "request_counts": counts, "results_url": "http://127.0.0.1:9/elsewhere" if ended else None}

    async def create(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            rows = [(row["custom_id"], row["params"]) for row in (await request.json())["requests"]]
            if self.server.invalid:
                return web.json_response({"type": "error", "error": {"type": "invalid_request_error", "message": self.server.invalid}}, status=400)
            assert all(body["max_tokens"] >= 1 and body["messages"][0]["role"] == "user" for _, body in rows)
            return web.json_response(self.shown(self.server.start("anthropic", self.checked(rows))))

        return await self.handle("create", request, act)

    async def list(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            jobs = self.listed()
            start = next((i + 1 for i, job in enumerate(jobs) if job.id == request.query.get("after_id")), 0)
            return web.json_response({"data": [self.shown(job) for job in jobs[start : start + 2]], "has_more": start + 2 < len(jobs)})

        return await self.handle("list", request, act)

    async def poll(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            job = self.job(request.match_info["id"])
            none = {"type": "error", "error": {"type": "not_found_error", "message": "no such batch"}}
            return web.json_response(self.shown(self.server.look("anthropic", job))) if job else web.json_response(none, status=404)

        return await self.handle("poll", request, act)

    async def results(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            job = self.job(request.match_info["id"])
            assert job and job.state != "running"
            return web.Response(body=_jsonl(job.bad + job.good))

        return await self.handle("results", request, act)


class _Gemini(_Routes):
    def routes(self) -> list[web.RouteDef]:
        base = "/gemini/v1beta"
        return [
            web.post("/gemini/upload/v1beta/files", self.begin),
            web.post("/gemini/upload/v1beta/files/{id}", self.put),
            web.get("/gemini/download/v1beta/files/{id}:download", self.content),
            web.post(base + "/models/m:batchGenerateContent", self.create),
            web.get(base + "/batches", self.list),
            web.get(base + "/batches/{id}", self.poll),
            web.post(base + "/batches/{id}:cancel", self.cancel),
        ]

    async def begin(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["x-goog-upload-command"] == "start" and request.headers["x-goog-upload-protocol"] == "resumable"
        return web.Response(headers={"X-Goog-Upload-URL": f"{self.server.address}/gemini/upload/v1beta/files/{len(self.server.files)}"})

    async def put(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            assert request.headers["x-goog-upload-command"] == "upload, finalize" and request.headers["x-goog-upload-offset"] == "0"
            return web.json_response({"file": {"name": f"files/{self.keep(await request.read())}"}})

        return await self.handle("upload", request, act)

    def shown(self, job: Job) -> dict[str, Any]:
        state = {"running": "RUNNING", "done": "SUCCEEDED", "expired": "EXPIRED", "cancelled": "CANCELLED", "invalid": "FAILED"}[job.state]
        about: dict[str, Any] = {"name": job.id, "metadata": {"displayName": job.name, "state": f"BATCH_STATE_{state}", "batchStats": {"requestCount": "3"}}}
        if job.state == "done" and job.left < 0:  # the file appears later than the state
            good, bad = job.good, job.bad
            self.server.files[f"out-{job.id[8:]}"] = _jsonl(good + bad)
            about |= {"done": True, "response": {"responsesFile": f"files/out-{job.id[8:]}"}}
        if job.error:
            about |= {"done": True, "error": {"code": 3, "message": job.error}}
        return about

    async def create(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            batch = (await request.json())["batch"]
            content = self.server.files[batch["inputConfig"]["fileName"].removeprefix("files/")]
            rows = [(line["key"], line["request"]) for line in (json.loads(raw) for raw in content.split(b"\n") if raw)]
            return web.json_response(self.shown(self.server.start("gemini", self.checked(rows), name=batch["displayName"])))

        return await self.handle("create", request, act)

    async def list(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            jobs, start = self.listed(), int(request.query.get("pageToken") or 0)
            page: dict[str, Any] = {"operations": [self.shown(job) for job in jobs[start : start + 2]]}
            return web.json_response(page | ({"nextPageToken": str(start + 2)} if start + 2 < len(jobs) else {}))

        return await self.handle("list", request, act)

    async def poll(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            job = self.job(f"batches/{request.match_info['id']}")
            none = {"error": {"code": 404, "message": "no such batch", "status": "NOT_FOUND"}}
            return web.json_response(self.shown(self.server.look("gemini", job))) if job else web.json_response(none, status=404)

        return await self.handle("poll", request, act)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        async def act() -> web.Response:
            job = self.job(f"batches/{request.match_info['id']}")
            assert job
            job.state = "cancelled"
            return web.json_response({})

        return await self.handle("cancel", request, act)


@contextmanager
def serve_batches(
    *,
    polls: int = 2,
    faults: Mapping[str, list[str]] | None = None,
    expire: int | None = None,
    invalid: str = "",
    queue_full: int = 0,
    hidden: int = 0,
) -> Iterator[BatchServer]:
    """Run the four APIs in a thread of their own.

    Args:
        polls: A batch ends when it has been asked for so often.
        faults: Operation -> what happens to its calls, in order: an HTTP status, `lost` (done, but answered 500), `reset`,
            `lost-reset`, `garbage`, `hold` (done, but never answered), `hold-before` (neither), or '' for nothing.
        expire: The first batch to end has run only so many of its rows.
        invalid: No batch is valid, for this reason.
        queue_full: So many batches are not run because too much is waiting.
        hidden: A batch does not show in the first so many lists.
    """
    started = threading.Event()
    server = BatchServer(polls=polls, faults=faults or {}, expire=expire, invalid=invalid, queue_full=queue_full, hidden=hidden)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(_run(server, started),), name="batches", daemon=True)
    thread.start()
    try:
        if not started.wait(10):
            raise RuntimeError("the test server did not start")
        yield server
    finally:
        loop.call_soon_threadsafe(server.release.set)
        loop.call_soon_threadsafe(server.stopping.set)
        thread.join(10)
        loop.close()


async def _run(server: BatchServer, started: threading.Event) -> None:
    app = web.Application(client_max_size=256 << 20)
    for routes in (_OpenAI(server, "openai"), _Mistral(server, "mistral"), _Anthropic(server, "anthropic"), _Gemini(server, "gemini")):
        app.add_routes(routes.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    started.set()
    await server.stopping.wait()
    await runner.cleanup()
