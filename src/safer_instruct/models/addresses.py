"""Where an endpoint is, with which key it is spoken to, and how to speak of it without telling the key."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from safer_instruct.errors import ModelError
from safer_instruct.oneline import one_line, shortened
from safer_instruct.settings.models import is_http

_MESSAGE_CHARS = 300


class Host(NamedTuple):
    """Somebody who hosts models: where, and the environment variable that holds the key."""

    url: str
    key_env: str


HOSTS = {  # by provider; all but Anthropic speak OpenAI's language there
    "openai": Host("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": Host("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "gemini": Host("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "mistral": Host("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
}


@dataclass(frozen=True, slots=True)
class Address:
    """One endpoint.

    Attributes:
        shown: Its address without password and query string: fit for messages, fingerprints and reports.
        host: Its name or number.
        loopback: Whether it is on this machine.
        key: The key, empty where there is none; in no representation.
        key_env: The environment variable that the key was read from.
    """

    shown: str
    host: str
    loopback: bool
    key_env: str
    key: str = field(repr=False)
    _url: SplitResult = field(repr=False)

    def url(self, path: str) -> str:
        """The whole address of `path`, secrets included: for the wire only."""
        return self._url._replace(path=self._url.path + path).geturl()

    def cleaned(self, text: str) -> str:
        """Somebody else's words, fit for one line of an error: printable, short, without the key or the password."""
        return cleaned(text, self._secrets())

    def _secrets(self) -> list[str]:
        """What is sent as key or password, as given and as it stands in a header."""
        quoted = self._url.password or ""
        login = base64.b64encode(f"{unquote(self._url.username or '')}:{unquote(quoted)}".encode()).decode()
        return [secret for secret in (self.key, login if quoted else "", quoted, unquote(quoted)) if secret]


def cleaned(text: str, secrets: Iterable[str]) -> str:
    """Somebody else's words, fit for one line of an error: printable, short, without the secrets."""
    text = one_line(text)
    for secret in secrets:
        text = text.replace(secret, "[key]")
    return shortened(text, _MESSAGE_CHARS)


def read_address(base_url: str, key_env: str, name: str) -> Address:
    """The endpoint at `base_url` with the key from the environment variable `key_env`, if that is no empty name; `name` is the model's, for messages.

    Raises:
        ModelError: It is no HTTP address, or the key is missing where one is needed: everywhere but on this machine.
    """
    url = _checked(base_url)
    host = url.hostname or ""
    loopback = _is_loopback(host)
    key = read_key(key_env, name, needed=not loopback) if key_env else ""
    bare = url._replace(netloc=url.netloc.rpartition("@")[2], path=url.path.rstrip("/"), fragment="")
    whole = bare if key else bare._replace(netloc=url.netloc)  # a key and a password cannot both be sent
    return Address(bare._replace(query="").geturl(), host, loopback, key_env, key, whole)


def read_addresses(base_url: str | Sequence[str], key_env: str, name: str) -> list[Address]:
    """The endpoints at one address or several, as by `read_address`."""
    return [read_address(url, key_env, name) for url in ([base_url] if isinstance(base_url, str) else base_url)]


def fingerprint(name: str, addresses: Sequence[Address], revision: str | None) -> str:
    """What the answers of the model `name` depend on: where it is, or what is served, in the user's words."""
    return f"{name}#{revision}" if revision else f"{name}@{','.join(sorted(a.shown for a in addresses))}" if addresses else name


def server_message(raw: bytes) -> str:
    """What an error body says, wherever it stands: `{"error": {"message": ...}}`, `{"error": ...}`, `{"message": ...}`, `{"detail": ...}`, or plain text."""
    return message_of(parsed(raw)) or raw.decode("utf-8", "replace")


def parsed(raw: bytes) -> Any:
    """The JSON of a body, or None."""
    try:
        return json.loads(raw.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def message_of(data: Any) -> str:
    """The same of a body that is decoded already; empty when it says nothing."""
    for name in ("error", "message", "detail"):
        if isinstance(data, dict) and data.get(name):
            return message_of(data[name]) or str(data[name])
    return data if isinstance(data, str) else ""


def _checked(base_url: str) -> SplitResult:
    if not is_http(base_url):  # not shown: it may hold a password
        raise ModelError("base_url is no address such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1")
    return urlsplit(base_url)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def read_key(variable: str, name: str, *, needed: bool) -> str:
    """The key in an environment variable, empty where there is none; `name` is the model's, for messages.

    Raises:
        ModelError: It is missing although `needed`, or no key.
    """
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        named = variable if variable.isupper() else "that 'api_key_env' names"  # in small letters it may be the key itself
        raise ModelError(f"{name} needs a key: set the environment variable {named} (any word will do where the endpoint asks for none)")
    if not (key.isascii() and key.isprintable()):
        raise ModelError(f"the environment variable {variable} holds characters that no key has")
    return key
