# /// script
# requires-python = ">=3.11"
# dependencies = ["uvloop==0.23.0"]
# ///
"""An OpenAI-compatible chat server on loopback that costs so little that it does not bound the client under measurement.

python bench/server.py --port 0 --latency-ms 50     # prints the port that it got, then serves until it is ended

POST /v1/chat/completions is answered after a fixed latency, with a text that depends on the messages alone. GET /stats counts what
was asked: `requests`, `distinct` prompts, `peak` in flight, `bad` requests; POST /reset begins the count anew. Only what a client
of such a server needs of HTTP/1.1 is understood: kept connections, bodies with a Content-Length.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
from dataclasses import dataclass, field
from typing import cast

TEXT = "thank you for writing we are sorry about the delay and will gladly help please tell us your order number so that our team can look into it"
ANSWER_WORDS = 24
CHARS_PER_TOKEN = 4
MAX_HEAD_BYTES = 64 << 10


@dataclass
class Counts:
    """What was asked since the last reset."""

    requests: int = 0
    bad: int = 0
    in_flight: int = 0
    peak: int = 0
    seen: set[bytes] = field(default_factory=set)

    def as_dict(self) -> dict[str, int]:
        return {"requests": self.requests, "distinct": len(self.seen), "bad": self.bad, "peak": self.peak}


class Server:
    """What all connections share."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.counts = Counts()
        self._words = TEXT.split()

    def route(self, method: bytes, path: bytes, body: bytes) -> tuple[bytes, float]:
        """The whole answer to one request, and after how many seconds it is due."""
        if (method, path) == (b"POST", b"/v1/chat/completions"):
            try:
                return http(b"200 OK", self._complete(json.loads(body))), self.latency_s
            except (ValueError, KeyError, TypeError) as exc:
                self.counts.bad += 1
                return refusal(b"400 Bad Request", f"not a chat request: {exc!r}"), 0.0
        if (method, path) == (b"GET", b"/stats"):
            return http(b"200 OK", self.counts.as_dict()), 0.0
        if (method, path) == (b"POST", b"/reset"):
            self.counts = Counts()
            return http(b"200 OK", {}), 0.0
        self.counts.bad += 1
        return refusal(b"404 Not Found", f"nothing at {method.decode(errors='replace')} {path.decode(errors='replace')}"), 0.0

    def _complete(self, ask: dict[str, object]) -> dict[str, object]:
        prompt = json.dumps(ask["messages"]).encode()
        digest = hashlib.blake2b(prompt, digest_size=ANSWER_WORDS).digest()
        self.counts.requests += 1
        self.counts.seen.add(digest[:16])
        text = " ".join([self._words[byte % len(self._words)] for byte in digest])
        read, written = len(prompt) // CHARS_PER_TOKEN, len(text) // CHARS_PER_TOKEN
        message = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        return {
            "id": f"chatcmpl-{digest[:12].hex()}",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": ask["model"],
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            },
            "service_tier": "default",
            "system_fingerprint": "fp_bench",
        }


class Connection(asyncio.Protocol):
    """One connection of a client; answers go out in the order of the requests, as they all take equally long."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._unread = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, though no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            head = self._unread[:end]
            length = content_length(head)
            if length is None:
                self._refuse(b"411 Length Required", "a body needs a Content-Length that is a number")
                return
            if len(self._unread) < end + 4 + length:
                if b"100-continue" in head.lower() and len(self._unread) == end + 4 and self._transport:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body, self._unread = self._unread[end + 4 : end + 4 + length], self._unread[end + 4 + length :]
            self._answer(head, body)
        if len(self._unread) > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large", f"no end of the head within {MAX_HEAD_BYTES} bytes")

    def _answer(self, head: bytes, body: bytes) -> None:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        answer, wait_s = self._server.route(method, rest.partition(b" ")[0].partition(b"?")[0], body)
        counts = self._server.counts
        counts.in_flight += 1
        counts.peak = max(counts.peak, counts.in_flight)
        if wait_s:
            asyncio.get_running_loop().call_later(wait_s, self._send, answer, counts)
        else:
            self._send(answer, counts)

    def _send(self, answer: bytes, counts: Counts) -> None:
        counts.in_flight -= 1
        if self._transport:
            self._transport.write(answer)

    def _refuse(self, status: bytes, why: str) -> None:
        self._server.counts.bad += 1
        self._unread = b""
        if self._transport:
            self._transport.write(refusal(status, why))
            self._transport.close()


def content_length(head: bytes) -> int | None:
    """How long the body is, 0 where there is none, None where the head does not say."""
    lowered = head.lower()
    if b"\r\ntransfer-encoding:" in lowered:
        return None
    _, found, rest = lowered.partition(b"\r\ncontent-length:")
    value = rest.partition(b"\r\n")[0].strip()
    return int(value) if value.isdigit() else None if found else 0


def http(status: bytes, body: dict[str, object] | dict[str, int]) -> bytes:
    content = json.dumps(body).encode()
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nServer: bench\r\n\r\n%b" % (status, len(content), content)


def refusal(status: bytes, why: str) -> bytes:
    return http(status, {"error": {"message": why, "type": "invalid_request_error", "param": None, "code": None}})


async def serve(port: int, latency_s: float) -> None:
    """Print the port, then serve on 127.0.0.1 until SIGTERM or SIGINT."""
    loop, ended, server = asyncio.get_running_loop(), asyncio.Event(), Server(latency_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", port, backlog=1024)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    listener.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes one that is free")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    arguments = parser.parse_args()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments.port, arguments.latency_ms / 1000))


if __name__ == "__main__":
    main()
