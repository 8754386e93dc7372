"""Who may ask, and what an answer allows the page to do.

The server listens on the loopback only, which keeps other machines out but neither other users of this machine nor web
pages open in the same browser. So every request must name this server as its host (against DNS rebinding), must not come
from another origin, and must carry the session that was exchanged for a one-time token. A browser holds one session: the
page says as whom it reads, and is refused where the browser's session has become another annotator's since. What a text
from a corpus could do if it ever became markup, the content security policy forbids: no inline script, no request
elsewhere, and no writing of markup from a script at all (Trusted Types).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safer_instruct.review.store import Store

MOST_BYTES = 2_000_000  # of one request
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
_READER = "reads-as"  # the header in which the page says whose it is, percent-encoded: names may be of any script
_OPEN = ("/enter",)  # needs the token instead of a session


class Doors:
    """One-time tokens of the annotators, and the sessions that they became."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tokens: dict[str, int] = {}

    def token_for(self, name: str) -> str:
        """A fresh token, good for one entry of the annotator of that name."""
        token = secrets.token_urlsafe(32)
        self._tokens[_digest(token)] = self._store.join(name)
        return token

    def enter(self, token: str) -> str | None:
        """The secret of a new session in exchange for a token that was not used yet."""
        annotator = self._tokens.pop(_digest(token), None)
        if annotator is None:
            return None
        secret = secrets.token_urlsafe(32)
        self._store.begin_session(annotator, _digest(secret))
        return secret

    def annotator(self, secret: str) -> tuple[int, str] | None:
        """Number and name of whoever holds that session."""
        return self._store.session(_digest(secret)) if secret else None


class Guard:
    """Lets a request through to `app` where host, origin, size and session are right; puts the headers on every answer."""

    def __init__(self, app: ASGIApp, doors: Doors, port: int) -> None:
        self._app, self._doors = app, doors
        self._hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        self.cookie = cookie_name(port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_bound(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refused = self._refusal(scope, Headers(scope=scope))
        await (refused or self._app)(scope, receive, send_bound)

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if not any(hmac.compare_digest(host.encode(), known.encode()) for known in self._hosts):
            return PlainTextResponse("this server answers to 127.0.0.1 only", 421)
        origin, changes = headers.get("origin"), scope["method"] not in ("GET", "HEAD")
        if (origin is None and changes) or (origin is not None and origin != f"http://{host}"):
            return PlainTextResponse("requests from other origins are refused", 403)
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and scope["path"] not in _OPEN:
            return PlainTextResponse("requests from other sites are refused", 403)
        if changes and headers.get("content-type", "").partition(";")[0] != "application/json":
            return PlainTextResponse("only JSON is taken", 415)
        if int(headers["content-length"]) > MOST_BYTES if headers.get("content-length", "").isdigit() else changes:
            return PlainTextResponse("too large, or of unknown size", 413)
        if scope["path"] in _OPEN:
            return None
        annotator = self._doors.annotator(_cookie(headers, self.cookie))
        if annotator is None:
            return PlainTextResponse("no session: open the address that 'safer-instruct review' printed; each opens once, a new start prints a new one", 401)
        name, reader = annotator[1], unquote(headers.get(_READER, ""))
        if reader and reader != name:
            instead = f"reload it to read as {name}; for {reader}, start the review again and open the new address in another browser or profile"
            return PlainTextResponse(f"this browser reads as {name} now, and this page was opened for {reader}, so nothing is stored from it: {instead}", 409)
        scope["annotator"] = annotator
        return None


def cookie_name(port: int) -> str:
    """Cookies do not tell ports apart: each server on this machine has a name of its own."""
    return f"safer-instruct-{port}"


def _cookie(headers: Headers, name: str) -> str:
    for part in headers.get("cookie", "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
