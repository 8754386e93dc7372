"""HTTP exchanges with a provider: what may be repeated, and what may have happened when no good reply came."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from safer_instruct.errors import AccessError, ModelError
from safer_instruct.models.addresses import read_address, server_message
from safer_instruct.models.remote import TOP_UP, is_no_credit
from safer_instruct.models.transport import NoReply, Reply, Transport

_EXCHANGE_S = 60.0
_BYTES_PER_S = 500_000  # a slow line still gets a large file across in its time
_MAX_RESULT_BYTES = 4 << 30
_GROWTH, _JITTER = 1.5, 0.2
_NOTHING_DONE = (425, 429)  # refused for now without work; any 5xx may come after the work
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to wait for what; the defaults suit batches that take minutes to a day.

    Attributes:
        gather_s: A batch is sent when no further call has come for so long,
        longest_gather_s: or so long after its first call, or when it is full.
        first_poll_s: Wait before the first question how a batch stands; each further wait is longer by half,
        longest_poll_s: up to this. Failed exchanges wait by the same rule.
        settle_s: A batch that may have been created is believed not to be when it has not shown up after so long.
        give_up_s: A provider that gives no good reply for so long is given up; the batches stay, the next sitting goes on.
    """

    gather_s: float = 10.0
    longest_gather_s: float = 900.0
    first_poll_s: float = 5.0
    longest_poll_s: float = 120.0
    settle_s: float = 60.0
    give_up_s: float = 7200.0

    def wait_s(self, attempt: int) -> float:
        """The wait after `attempt` others, a fifth more or less by chance."""
        return min(self.longest_poll_s, self.first_poll_s * _GROWTH ** min(attempt, 50)) * random.uniform(1 - _JITTER, 1 + _JITTER)


PATIENT = Timing()


class NotNowError(Exception):
    """An exchange did not work out, and may later; `certain` says that nothing was done on the other side."""

    def __init__(self, reason: str, *, certain: bool) -> None:
        super().__init__(reason)
        self.certain = certain


class Api:
    """One provider's HTTP API for the holder of one key."""

    def __init__(self, name: str, base_url: str, api_key_env: str, headers: Callable[[str], Mapping[str, str]], timing: Timing) -> None:
        """Read the key; connect to nothing yet.

        Args:
            name: The model string, for messages.
            base_url: What all paths are below.
            api_key_env: Name of the environment variable that holds the key; servers on this machine need none.
            headers: The headers that carry a key, if there is one.
            timing: How long to insist.

        Raises:
            ModelError: `base_url` is no HTTP address, or the key is missing.
        """
        self.address = address = read_address(base_url, api_key_env, name)
        parts = urlsplit(base_url)
        if "@" in parts.netloc or parts.query:
            raise ModelError(f"{name}: base_url of a batch API is a plain address such as https://api.openai.com/v1, without user, password or query")
        self.url, self.timing, self._name = address.shown, timing, name
        sent = {"content-type": "application/json", **headers(address.key)}
        self._transport = Transport(sent, timeout_s=_EXCHANGE_S, through_proxy=not address.loopback)

    async def call(self, method: str, url: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None, large: bool = False) -> Reply:
        """One exchange; `url` is a path below the API's address, or a whole address; `large` expects a file.

        Raises:
            NotNowError: It may work out later.
            AccessError: The provider refuses it.
        """
        whole = url if "://" in url else self.url + url
        timeout_s = 3600.0 if large else _EXCHANGE_S + len(body or b"") / _BYTES_PER_S
        try:
            reply = await self._transport.request(method, whole, body=body, headers=headers, timeout_s=timeout_s, max_reply_bytes=_MAX_RESULT_BYTES)
        except NoReply as exc:
            raise NotNowError(f"no reply: {self.cleaned(str(exc))}", certain=not exc.sent) from None
        if 200 <= reply.status < 300:
            return reply
        said = f"HTTP {reply.status}: {self.cleaned(server_message(reply.body)) or 'no message'}"
        no_credit = is_no_credit(reply.body.decode("utf-8", "replace"), reply.status)
        if not no_credit and (reply.status in (408, 409, *_NOTHING_DONE) or reply.status >= 500):
            raise NotNowError(said, certain=reply.status in _NOTHING_DONE)
        hint = f"; the key is read from the environment variable {self.address.key_env}" if reply.status in (401, 403) else ""
        hint = f"; {TOP_UP}" if no_credit else hint
        raise AccessError(f"{self._name} at {self.url}: the batch API refuses {method} {urlsplit(whole).path}: {said}{hint}")

    async def json(self, method: str, url: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One exchange whose reply is a JSON object; raises as `call`, and `NotNowError` for another reply."""
        reply = await self.call(method, url, body, headers=headers)
        try:
            data = json.loads(reply.body)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise NotNowError(f"a reply of {len(reply.body)} bytes that is no JSON object", certain=False)
        return data

    async def get(self, url: str) -> dict[str, Any]:
        """What stands at `url`, a JSON object; asked for until it comes, raises as `insist`."""
        return await self.insist(lambda: self.json("GET", url))

    async def download(self, url: str) -> list[bytes]:
        """The lines of a file of results; asked for until it comes, raises as `insist`."""
        reply = await self.insist(lambda: self.call("GET", url, large=True))
        return [line for line in reply.body.split(b"\n") if line.strip()]  # texts may hold other line separators

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat what may be repeated freely until it works out.

        Raises:
            ModelError: It has not worked out for `timing.give_up_s`.
            AccessError: The provider refuses it.
        """
        tries, since = 0, time.monotonic()
        while True:
            try:
                return await attempt()
            except NotNowError as exc:
                if time.monotonic() - since > self.timing.give_up_s:
                    raise self.given_up(exc) from exc
                await asyncio.sleep(self.timing.wait_s(tries))
            tries += 1

    def given_up(self, last: NotNowError) -> ModelError:
        """The error for a provider that gives no good reply any more."""
        return ModelError(
            f"{self._name} at {self.url}: no good reply from the batch API for {self.timing.give_up_s:g} s, the last one: {last}; "
            "nothing is lost: run again to go on where it was"
        )

    def cleaned(self, text: str) -> str:
        """Somebody else's words, fit for one line of an error: printable, short, without the key."""
        return self.address.cleaned(text)

    async def upload(self, name: str, lines: Sequence[bytes]) -> str:
        """Send the rows of a batch ahead as a file, where the provider takes them as a form, and return its id there; raises as `insist`."""
        body, content_type = form({"purpose": "batch"}, f"{name}.jsonl", b"\n".join(lines) + b"\n")

        async def send() -> str:
            return id_of(await self.json("POST", "/files", body, headers={"content-type": content_type}))

        return await self.insist(send)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


def compact(data: Any) -> bytes:
    """JSON without blanks; half characters, which UTF-8 cannot hold, stay escaped."""
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).encode()


def id_of(data: Mapping[str, Any], name: str = "id") -> str:
    """The id in a reply.

    Raises:
        NotNowError: It holds none.
    """
    if not isinstance(data.get(name), str) or not data[name]:
        raise NotNowError("a reply without an id", certain=False)
    return str(data[name])


def form(fields: Mapping[str, str], file_name: str, content: bytes) -> tuple[bytes, str]:
    """A multipart form with a file, and its content type (RFC 7578)."""
    boundary = f"safer-instruct-{os.urandom(16).hex()}"
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\nContent-Type: application/jsonl\r\n\r\n'.encode()
    return b"".join([*parts, head, content, f"\r\n--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"
