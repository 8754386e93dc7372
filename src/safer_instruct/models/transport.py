"""HTTP exchanges: the only module that knows which HTTP library there is.

pyreqwest (reqwest, hyper and tokio, in Rust) was chosen by measurement: bench/README.md, section 'Transport'. Its thread hands
every answer to the event loop through `call_soon_threadsafe`. In asyncio's own loop that call lets go of the interpreter lock when
the answer is there already; where the interpreter ends before that thread has the lock again, the process aborts. uvloop keeps the
lock, so `event_loop` gives uvloop's loop where there is one; for the other, `close` waits a moment.

A cancelled exchange is forgotten, not stopped: the server goes on with it.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Coroutine, Mapping
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safer_instruct.errors import ModelError

if TYPE_CHECKING:
    from pyreqwest.bytes import Bytes
    from pyreqwest.client import Client
    from pyreqwest.exceptions import DetailedPyreqwestError
    from pyreqwest.http import Url
    from pyreqwest.request import RequestBuilder
    from pyreqwest.response import Response

MAX_REPLY_BYTES = 64 << 20
_READ_AHEAD_BYTES = 1 << 20  # a reply of this size is handed over at once; what is longer comes in pieces
_IDLE_S = 30  # shorter than most servers keep a connection, so that it is seldom the server who closes it
_SETTLE_S = 0.01  # for asyncio's own loop: the library's thread gets the interpreter lock that it may still wait for
_NO_TLS = "InvalidContentType"  # rustls, of a first record that is none
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


class NoReply(Exception):
    """The exchange ended before the whole reply was there.

    Attributes:
        timed_out: The time was up.
        sent: The request may have reached the server, which may have worked on it and may charge for it.
        plain: Whoever is there answers, and not in TLS as an https:// address must.
    """

    def __init__(self, reason: str, *, timed_out: bool = False, sent: bool = True, plain: bool = False) -> None:
        super().__init__(reason)
        self.timed_out, self.sent, self.plain = timed_out, sent, plain


class Reply(NamedTuple):
    """A whole reply, whatever its status; header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """A pool of kept connections for one set of headers; redirects are not followed, cookies not kept.

    The certificate authorities are the system's and those in the files that SSL_CERT_FILE and REQUESTS_CA_BUNDLE name.
    """

    def __init__(self, headers: Mapping[str, str], *, timeout_s: float, connect_timeout_s: float = 20.0, through_proxy: bool = True) -> None:
        """Connect to nothing yet.

        Args:
            headers: Sent with every request, never shown.
            timeout_s: Cap on one exchange, from connecting to the last byte.
            connect_timeout_s: Cap on connecting.
            through_proxy: Use the proxy that the environment names (HTTPS_PROXY, HTTP_PROXY, NO_PROXY); not for a server on this machine.

        Raises:
            ModelError: A header holds what no header can, or a file of certificate authorities cannot be used.
        """
        from pyreqwest.exceptions import RequestError

        for name, value in headers.items():
            if not (value.isascii() and value.isprintable()):
                raise ModelError(f"the header {name} holds characters that no header can")
        self._headers, self._through_proxy = dict(headers), through_proxy
        self._timeout, self._connect_timeout = timedelta(seconds=timeout_s), timedelta(seconds=min(timeout_s, connect_timeout_s))
        self._authorities = _authorities()
        self._error = RequestError
        self._client: Client | None = None

    def post(self, url: str, body: bytes) -> Coroutine[Any, Any, Reply]:
        """Send `body` to `url`.

        Raises:
            NoReply: No connection, or it broke, or the time was up.
        """
        return self._exchange("POST", url, body, {}, None, MAX_REPLY_BYTES)

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> Reply:
        """Any other exchange.

        Args:
            method: In capital letters.
            url: Where to.
            body: What to send.
            headers: Sent in place of the transport's own of the same names, and beside its others.
            timeout_s: In place of the transport's own.
            max_reply_bytes: A longer reply is given up.

        Raises:
            NoReply: No connection, or it broke, or the time was up.
        """
        return await self._exchange(method, url, body, headers or {}, timeout_s, max_reply_bytes)

    async def reset(self) -> None:
        """Drop all connections: exchanges in flight end as `NoReply`, later ones open new connections."""
        client, self._client = self._client, None
        if client:
            await client.close()

    async def close(self) -> None:
        """Drop all connections before the event loop ends; a later exchange opens new ones."""
        if self._client:
            await self.reset()
            await asyncio.sleep(_SETTLE_S)

    async def _exchange(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float | None, cap: int) -> Reply:
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        outcome: Reply | NoReply  # raised below and not where the library's own error, which shows the whole address, would be its context
        try:
            builder = (self._client or self._open()).request(method, _parsed(url))
            if body is not None:
                builder = builder.body_bytes(body)
            if headers:
                builder = builder.headers(dict(headers))
            if timeout_s is not None:
                builder = builder.timeout(timedelta(seconds=timeout_s))
            outcome = await _send(builder, cap)
        except self._error as exc:
            outcome = _no_reply(exc)
        except ValueError:  # a BuilderError among them; its words may show a header
            outcome = NoReply("the address or a header is not valid", sent=False)
        if task and task.cancelling() > cancellations:  # when both come together, pyreqwest draws lots, and the cancellation may lose
            raise asyncio.CancelledError
        if isinstance(outcome, NoReply):
            raise outcome
        return outcome

    def _open(self) -> Client:
        from pyreqwest.exceptions import BuilderError

        try:
            self._client = self._built(self._authorities)
        except BuilderError as exc:
            if self._authorities:
                raise ModelError(f"a certificate in the file that {' or '.join(_CA_VARIABLES)} names cannot be used: {_innermost(exc)}") from exc
            import certifi

            self._client = self._built(_certificates(certifi.where()))  # the system has none, as in many small container images
        return self._client

    def _built(self, authorities: list[bytes]) -> Client:
        from pyreqwest.client import ClientBuilder

        builder = ClientBuilder().follow_redirects(False).timeout(self._timeout).connect_timeout(self._connect_timeout)
        builder = builder.default_headers(self._headers).user_agent("safer-instruct").pool_idle_timeout(timedelta(seconds=_IDLE_S))
        for certificate in authorities:
            builder = builder.add_root_certificate_pem(certificate)
        return (builder if self._through_proxy else builder.no_proxy()).build()


def event_loop() -> asyncio.AbstractEventLoop:
    """A new event loop of the kind that the transport runs best under."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@lru_cache(maxsize=64)  # a model's addresses are few
def _parsed(url: str) -> Url:
    from pyreqwest.http import Url

    return Url(url)


async def _send(builder: RequestBuilder, cap: int) -> Reply | NoReply:
    request = builder.streamed_read_buffer_limit(_READ_AHEAD_BYTES).build_streamed()
    response = await request.__aenter__()  # each further `await` on it lets go of the interpreter lock, so a reply that is whole is left at once
    first = await response.body_reader.read_chunk()
    if first is not None and response.get_header("content-length") == str(len(first)) and len(first) <= min(cap, _READ_AHEAD_BYTES):
        return Reply(response.status, response.headers, bytes(first))
    try:
        return await _read_rest(response, first, cap)
    finally:
        await request.__aexit__(None, None, None)


async def _read_rest(response: Response, chunk: Bytes | None, cap: int) -> Reply | NoReply:
    chunks, size = [], 0
    while chunk is not None:
        size += len(chunk)
        if size > cap:
            return NoReply(f"a reply of more than {cap} bytes")
        chunks.append(chunk)
        chunk = await response.body_reader.read_chunk()
    return Reply(response.status, response.headers, b"".join(chunks))


def _no_reply(exc: DetailedPyreqwestError) -> NoReply:
    from pyreqwest.exceptions import ClientClosedError

    if isinstance(exc, ClientClosedError):
        return NoReply("the connections were dropped")
    sent = "client error (Connect)" not in _causes(exc)  # nothing of a request is sent before it is connected, TLS and tunnel included
    if isinstance(exc, TimeoutError):
        return NoReply("the time was up" if sent else "the time to connect was up", timed_out=True, sent=sent)
    if _NO_TLS in (reason := _innermost(exc)):
        return NoReply(f"what answers there speaks no TLS ({_NO_TLS}); does it speak http:// and not https://?", sent=sent, plain=True)
    return NoReply(reason, sent=sent)


def _innermost(exc: DetailedPyreqwestError) -> str:
    """The last of a chain of causes, which says most, without the address: that may hold a key."""
    return re.sub(r" for url \(.*\)", "", _causes(exc)[-1])


def _causes(exc: DetailedPyreqwestError) -> list[str]:
    return [exc.message, *(cause["message"] for cause in exc.details["causes"] or ())]


def _authorities() -> list[bytes]:
    """The certificates in the files that the environment names, each in PEM."""
    found = []
    for variable in _CA_VARIABLES:
        if path := os.environ.get(variable):
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
                found += _certificates(path)
            except OSError as exc:
                raise ModelError(f"the environment variable {variable} names {path}, which holds no certificates that can be read ({exc.strerror})") from exc
    return found


def _certificates(path: str) -> list[bytes]:
    return re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", Path(path).read_bytes(), re.DOTALL)
