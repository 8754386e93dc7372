"""HTTP exchanges: the only module that knows which HTTP library there is.

pyreqwest (reqwest and tokio, in Rust) was chosen by measurement, bench/README.md. Under the default event loop of asyncio it
sometimes aborts the process when the interpreter exits; under uvloop it never did, so `event_loop` gives uvloop's where that exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyreqwest.client import Client


class NoReply(Exception):
    """The exchange ended before the whole reply was there; `timed_out` says whether for want of time."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply, whatever its status; header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """A pool of kept connections for one set of headers; redirects are not followed, cookies not kept."""

    def __init__(self, headers: Mapping[str, str], *, timeout_s: float, connect_timeout_s: float, through_proxy: bool = True) -> None:
        """Connect to nothing yet.

        Args:
            headers: Sent with every request; `Authorization` is kept out of every representation.
            timeout_s: Cap on one exchange, from connecting to the last byte.
            connect_timeout_s: Cap on connecting.
            through_proxy: Use the proxy that the environment names (HTTPS_PROXY, NO_PROXY ...).
        """
        self._headers, self._through_proxy = headers, through_proxy
        self._timeout, self._connect_timeout = timedelta(seconds=timeout_s), timedelta(seconds=min(timeout_s, connect_timeout_s))
        self._client: Client | None = None

    async def post(self, url: str, body: bytes) -> Reply:
        """Send `body` to `url`.

        Raises:
            NoReply: No connection, or it broke, or the time was up.
        """
        from pyreqwest.exceptions import PyreqwestError

        try:
            response = await self._opened().post(url).body_bytes(body).build().send()
            content = bytes(await response.bytes())
        except TimeoutError as exc:
            raise NoReply("the time was up", timed_out=True) from exc
        except PyreqwestError as exc:
            raise NoReply(_innermost(exc)) from exc
        return Reply(response.status, response.headers, content)

    async def close(self) -> None:
        """Close the connections; a later exchange opens new ones."""
        client, self._client = self._client, None
        if client:
            await client.close()

    def _opened(self) -> Client:
        from pyreqwest.client import ClientBuilder

        if self._client is None:
            builder = ClientBuilder().follow_redirects(False).timeout(self._timeout).connect_timeout(self._connect_timeout)
            builder = builder.default_headers(dict(self._headers)).pool_idle_timeout(timedelta(seconds=30))
            self._client = (builder if self._through_proxy else builder.no_proxy()).build()
        return self._client


def event_loop() -> asyncio.AbstractEventLoop:
    """A new event loop of the kind that the transport runs best under."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _innermost(exc: Exception) -> str:
    """The cause that says most: the last of a chain such as 'error sending request: connection refused'."""
    details = getattr(exc, "details", None) or {}
    causes = [cause["message"] for cause in details.get("causes") or ()]
    return causes[-1] if causes else str(exc)
