"""One server and its life: started when it is first needed, awaited, watched, started again after a crash, stopped."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
import time
from collections import deque
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from safer_instruct.errors import AccessError
from safer_instruct.models.serving.process import ServerProcess, new_log
from safer_instruct.models.serving.spec import HOST, KEY_VARIABLE, ServerSpec

_RESTARTS, _WITHIN_S = 3, 600.0
_PORTS_TRIED = 5
_NEWS_EVERY_S = 15.0
_POLL_S, _PROBE_S, _LAST_PROBE_S = 0.1, 2.0, 20.0
_log = logging.getLogger("safer_instruct.served")
_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ServerSpec, Server]] = WeakKeyDictionary()


class Started:
    """A server that has answered, from then until it ends.

    Attributes:
        base_url: Where its OpenAI-compatible endpoint is.
        key_variable: The environment variable that holds its key while it runs.
        calls: Calls in flight; cancelled when the server crashes.
        crashed: Whether it has ended unasked.
    """

    def __init__(self, process: ServerProcess, port: int, key: str) -> None:
        self.process, self.port, self.key = process, port, key
        self.base_url = f"http://{HOST}:{port}/v1"
        self.key_variable = f"SAFER_INSTRUCT_SERVED_KEY_{port}"
        self.calls: set[asyncio.Task[Any]] = set()
        self.crashed = False
        os.environ[self.key_variable] = key

    def end(self, *, crashed: bool) -> None:
        """Note that it has ended, and let the calls in flight know."""
        self.crashed = crashed
        os.environ.pop(self.key_variable, None)
        for call in self.calls:
            call.cancel()


class Server:
    """The server of one spec in one event loop."""

    def __init__(self, spec: ServerSpec) -> None:
        self._spec = spec
        self._title = f"the {spec.engine} server of '{spec.name}'"
        self._users = 0
        self._log_path: Path | None = None
        self._process: ServerProcess | None = None
        self._starting: asyncio.Task[Started] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._started: Started | None = None
        self._had_started = False
        self._crashes: deque[float] = deque()
        self._failure = ""

    @classmethod
    def join(cls, spec: ServerSpec) -> Server:
        """The server of `spec` in the running loop, shared with whoever has joined it before; nothing is started yet."""
        servers = _shared.setdefault(asyncio.get_running_loop(), {})
        server = servers.setdefault(spec, cls(spec))
        server._users += 1
        return server

    async def leave(self) -> None:
        """Stop it if nobody else has joined it."""
        self._users -= 1
        if self._users:
            return
        for servers in _shared.values():
            if servers.get(self._spec) is self:
                del servers[self._spec]
        tasks = [task for task in (self._starting, self._watching) if task and not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._process:
            await self._process.stop()

    async def ready(self) -> Started:
        """The running server; starts it when it does not run.

        Raises:
            SaferInstructError: It cannot be started, or has crashed too often; every later call is told the same.
        """
        if self._failure:
            raise AccessError(self._failure)
        if self._started:
            return self._started
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name=f"start {self._spec.name}")
        return await asyncio.shield(self._starting)

    async def to_blame(self, started: Started) -> bool:
        """After a call has failed for good: whether the server has crashed; one that answers no health check is ended first."""
        if self._started is started and started.process.status() is None:
            if await asyncio.to_thread(_is_healthy, started.port, _LAST_PROBE_S):
                return False
            _log.warning("%s answers no health check any more and is ended", self._title)
            await started.process.stop()
        if self._started is started and self._watching:
            await asyncio.wait([self._watching])
        return started.crashed

    async def _start(self) -> Started:
        """Start it; once it has run, a failed start counts as a crash and is tried again."""
        try:
            while True:
                try:
                    self._started = started = await self._start_once()
                except AccessError as exc:
                    if not self._had_started:
                        raise
                    self._count_crash(str(exc))
                else:
                    self._had_started = True
                    self._watching = asyncio.create_task(self._watch(started), name=f"watch {self._spec.name}")
                    return started
        except AccessError as exc:
            self._failure = str(exc)
            raise
        finally:
            self._starting = None

    async def _start_once(self) -> Started:
        log = self._log_path = self._log_path or new_log(self._spec.name)
        own_port = self._spec.config.port
        for _ in range(1 if own_port else _PORTS_TRIED):
            port, key = own_port or _free_port(), secrets.token_urlsafe(24)
            environment = {KEY_VARIABLE[self._spec.engine]: key, "DO_NOT_TRACK": os.environ.get("DO_NOT_TRACK", "1")}  # vLLM reports its use otherwise
            process = self._process = ServerProcess(self._spec.command(port), environment, log, key)
            try:
                await self._until_ready(process, port, key)
            except _PortTakenError:
                process.stop_soon()
                continue
            except BaseException:
                process.stop_soon()
                raise
            return Started(process, port, key)
        what = (
            f"port {own_port} is taken; leave serve.port out to have a free one chosen"
            if own_port
            else "others took the free ports before it had them; run again"
        )
        raise AccessError(f"{self._title} cannot start: {what}")

    async def _until_ready(self, process: ServerProcess, port: int, key: str) -> None:
        began = news = time.monotonic()
        limit_s = self._spec.config.start_timeout_s
        while True:
            ready = await asyncio.to_thread(_is_ours, port, key, self._spec.name)
            if (status := process.status()) is not None:
                if process.port_taken:
                    raise _PortTakenError
                raise AccessError(f"{self._title} did not start{process.hint()} (exit status {status}; {process.evidence()})")
            if ready:
                return
            now = time.monotonic()
            if now - began > limit_s:
                late = f"{self._title} was not ready within {limit_s:g} s{process.hint()}"
                raise AccessError(f"{late}; raise serve.start_timeout_s if it only needs longer ({process.evidence()})")
            if now - news > _NEWS_EVERY_S:
                news = now
                _log.warning("%s is loading, %.0f s so far (%s)", self._title, now - began, process.evidence(lines=1))
            await asyncio.sleep(min(1.0, _POLL_S + (now - began) / 20))

    async def _watch(self, started: Started) -> None:
        """Wait for the server's end, and let the calls in flight know."""
        process = started.process
        try:
            status = await process.ended()
            self._count_crash(f"{self._title} ended{process.hint()} (exit status {status}; {process.evidence()})")
        except AccessError as exc:
            self._failure = str(exc)
        finally:  # cancelled by `leave` or with the loop: nobody needs the server any more
            crashed = process.status() is not None
            process.stop_soon()
            self._started = None
            started.end(crashed=crashed)

    def _count_crash(self, what: str) -> None:
        """Say that it is started again, unless that has been done too often.

        Raises:
            AccessError: It has.
        """
        now = time.monotonic()
        self._crashes.append(now)
        while now - self._crashes[0] > _WITHIN_S:
            self._crashes.popleft()
        if len(self._crashes) > _RESTARTS:
            raise AccessError(f"{what}; it had been started again {_RESTARTS} times within {_WITHIN_S / 60:.0f} minutes")
        _log.warning("%s; it is started again (%d of %d)", what, len(self._crashes), _RESTARTS)


class _PortTakenError(Exception):
    """Somebody else took the port before the server had it."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_healthy(port: int, timeout_s: float) -> bool:
    return _get(port, "/health", None, timeout_s) is not None


def _is_ours(port: int, key: str, name: str) -> bool:
    """Whether a server is ready at the port and is ours: it takes the key and has the model."""
    if not _is_healthy(port, _PROBE_S):
        return False
    try:
        listed = json.loads(_get(port, "/v1/models", key, _PROBE_S) or b"{}")
        return any(model["id"] == name for model in listed["data"])
    except (ValueError, TypeError, KeyError):
        return False


def _get(port: int, path: str, key: str | None, timeout_s: float) -> bytes | None:
    """The body of a good answer, else None."""
    connection = HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        return response.read() if response.status == 200 else None
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
