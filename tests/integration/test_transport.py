"""HTTP exchanges with real servers on the loopback: plain, over TLS, through a proxy, and broken in every way."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import ssl
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from safer_instruct.errors import ModelError
from safer_instruct.models.openai import OpenAIModel
from safer_instruct.models.protocol import Generation, Sampling
from safer_instruct.models.transport import NoReply, Reply, Transport, event_loop

T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nX-Request-Id: a\r\n"
OK = HEAD + b"Content-Length: 2\r\n\r\n{}"
SECRET = "s3cret"
BENCH = Path(__file__).parents[2] / "bench" / "transport.py"
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make certificates with")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(work)


class Server:
    """A server that reads requests and hands each, head and body, to `handler` or answers in its bytes."""

    def __init__(self, answer: bytes | Handler) -> None:
        self.answer, self.requests, self.connections, self.port = answer, list[bytes](), 0, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                self.requests.append(head + await reader.readexactly(int(length or 0)))
                if callable(self.answer):
                    await self.answer(reader, writer, self.requests[-1])
                else:
                    writer.write(self.answer)
        writer.close()


@asynccontextmanager
async def serve(answer: bytes | Handler = OK, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answer)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


@asynccontextmanager
async def transport(headers: dict[str, str] | None = None, *, timeout_s: float = 10.0, **settings: Any) -> AsyncIterator[Transport]:
    made = Transport(headers or {}, timeout_s=timeout_s, **settings)
    try:
        yield made
    finally:
        await made.close()


def post(answer: bytes | Handler, **settings: Any) -> Reply:
    async def work() -> Reply:
        async with serve(answer) as server, transport(**settings) as client:
            return await client.post(server.url, b"x")

    return run(work())


def post_to(url: str, **settings: Any) -> Reply:
    async def work() -> Reply:
        async with transport(**settings) as client:
            return await client.post(url, b"x")

    return run(work())


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    await reader.read()


async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.transport.abort()


def ending_after(answer: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(answer)
        writer.close()

    return handler


def dripping(first: bytes, rest: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(first)
        for byte in rest:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    return handler


class TestExchange:
    def test_a_post_and_its_reply(self) -> None:
        async def work() -> tuple[Reply, bytes]:
            async with (
                serve(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 3\r\n\r\nabc") as server,
                transport({"Authorization": "Bearer k"}) as client,
            ):
                return await client.post(server.url, b"question"), server.requests[0]

        reply, request = run(work())
        assert (reply.status, reply.headers["retry-after"], reply.body) == (429, "7", b"abc")
        assert list(reply.headers) == ["retry-after", "content-length"]
        assert request.startswith(b"POST /v1 HTTP/1.1\r\n") and request.endswith(b"\r\n\r\nquestion")
        assert b"\r\nauthorization: bearer k\r\n" in request.lower()

    @pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
    def test_any_method_with_headers_of_its_own(self, method: str) -> None:
        async def work() -> bytes:
            async with serve() as server, transport({"Content-Type": "application/json", "X-Kept": "1"}) as client:
                await client.request(method, server.url, body=b"--x--" if method == "PUT" else None, headers={"Content-Type": "multipart/form-data"})
                return server.requests[0].lower()

        request = run(work())
        assert request.startswith(method.lower().encode() + b" /v1 ")
        assert request.count(b"content-type:") == 1 and b"content-type: multipart/form-data" in request and b"x-kept: 1" in request
        assert request.endswith(b"--x--") == (method == "PUT")

    def test_connections_are_kept_until_they_are_dropped(self) -> None:
        async def work() -> list[int]:
            async with serve() as server, transport() as client:
                seen = []
                for end in (None, None, client.reset, client.close):
                    await client.post(server.url, b"")
                    seen.append(server.connections)
                    if end:
                        await end()
                await client.post(server.url, b"")
                return [*seen, server.connections]

        assert run(work()) == [1, 1, 1, 2, 3]

    def test_a_redirect_is_a_reply(self) -> None:
        assert post(b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n").status == 307

    def test_a_body_of_any_length_comes_whole(self) -> None:
        body = random.Random(1).randbytes(5 << 20)
        assert post(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)).body == body

    def test_a_reply_that_is_too_long_is_given_up(self) -> None:
        async def work() -> Reply:
            async with serve(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n%s\r\n" % (b"a" * 1024) * 4096) as server, transport() as client:
                return await client.request("GET", server.url, max_reply_bytes=2 << 20)

        with pytest.raises(NoReply, match="a reply of more than 2097152 bytes"):
            run(work())


class TestNoReply:
    @pytest.mark.parametrize(
        "answer",
        [
            ending_after(HEAD + b"Content-Length: 30\r\n\r\nabc"),
            ending_after(HEAD + b"Content-Length: 3000000\r\n\r\n" + b"a" * 2_000_000),
            ending_after(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            ending_after(b"HTTP/1.1 200 OK\r\nX: "),
            ending_after(b""),
            break_off,
            b"SSH-2.0-x\r\n\r\n",
            HEAD + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        ],
        ids=["short body", "long body cut", "chunks cut", "head cut", "closed", "reset", "not HTTP", "not gzip"],
    )
    def test_half_a_reply_is_none(self, answer: bytes | Handler) -> None:
        with pytest.raises(NoReply) as caught:
            post(answer)
        assert (caught.value.timed_out, caught.value.sent) == (False, True)

    @pytest.mark.parametrize(
        "answer",
        [hang, dripping(HEAD + b"Content-Length: 2000\r\n\r\n", b"a" * 2000), dripping(HEAD + b"X: ", b"a" * 2000)],
        ids=["nothing", "body drips", "head drips"],
    )
    def test_the_time_is_a_cap_on_the_whole(self, answer: Handler) -> None:
        started = time.monotonic()
        with pytest.raises(NoReply, match="the time was up") as caught:
            post(answer, timeout_s=0.3)
        assert (caught.value.timed_out, caught.value.sent) == (True, True)
        assert time.monotonic() - started < 30  # dripping to the end would take 100 s

    def test_a_request_can_have_a_time_of_its_own(self) -> None:
        async def work() -> None:
            async with serve(hang) as server, transport(timeout_s=600) as client:
                await client.request("GET", server.url, timeout_s=0.2)

        with pytest.raises(NoReply, match="the time was up"):
            run(work())

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:{closed}/v1", "http://no-such-host.invalid/v1", "http://[::1/v1", "http://a b/v1", "ftp://127.0.0.1/v1", "x"]
    )
    def test_what_cannot_connect_has_sent_nothing(self, url: str) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(NoReply) as caught:
                post_to(url.format(closed=taken.getsockname()[1]), through_proxy=False)
        assert (caught.value.timed_out, caught.value.sent) == (False, False)

    @pytest.mark.skipif(sys.platform != "linux", reason="fills a queue as Linux keeps it")
    def test_a_connection_that_never_comes_has_sent_nothing(self) -> None:
        with socket.socket() as busy, socket.socket() as first, socket.socket() as second:
            busy.bind(("127.0.0.1", 0))
            busy.listen(0)
            for waiting in (first, second):
                waiting.setblocking(False)
                waiting.connect_ex(busy.getsockname())
            with pytest.raises(NoReply, match="the time to connect was up") as caught:
                post_to(f"http://127.0.0.1:{busy.getsockname()[1]}/v1", connect_timeout_s=0.2)
        assert (caught.value.timed_out, caught.value.sent) == (True, False)

    @pytest.mark.parametrize("drop", ["reset", "close"])
    def test_dropping_the_connections_ends_what_is_in_flight(self, drop: str) -> None:
        async def work() -> list[BaseException | Reply]:
            async with serve(hang) as server, transport(timeout_s=600) as client:
                calls = [asyncio.create_task(client.post(server.url, b"")) for _ in range(8)]
                while len(server.requests) < 8:  # noqa: ASYNC110 - nothing to wait for
                    await asyncio.sleep(0.01)
                await getattr(client, drop)()
                return await asyncio.gather(*calls, return_exceptions=True)

        ends = run(work())
        assert [str(end) for end in ends] == ["the connections were dropped"] * 8
        assert all(isinstance(end, NoReply) and end.sent for end in ends)


class TestCancellation:
    def test_it_passes_through(self) -> None:
        async def work() -> bool:
            async with serve(hang) as server, transport(timeout_s=600) as client:
                call = asyncio.create_task(client.post(server.url, b""))
                while not server.requests:  # noqa: ASYNC110 - nothing to wait for
                    await asyncio.sleep(0.01)
                call.cancel()
                await asyncio.wait([call])
                return call.cancelled()

        assert run(work())

    def test_it_is_not_lost_when_the_reply_comes_at_the_same_time(self) -> None:
        async def ask_for_ever(client: Transport, url: str) -> None:
            while True:
                with suppress(NoReply):
                    await client.post(url, b"")

        async def work() -> tuple[int, int]:
            ended = 0
            async with serve() as server, transport() as client:
                for _ in range(20):
                    calls = [asyncio.create_task(ask_for_ever(client, server.url)) for _ in range(16)]
                    await asyncio.sleep(0.02)
                    for call in calls:
                        call.cancel()
                    done, _ = await asyncio.wait(calls, timeout=10)
                    ended += sum(call.cancelled() for call in done)
                    for call in calls:
                        call.cancel()
            return ended, len(server.requests)

        ended, requests = run(work())
        assert ended == 320 and requests > 320

    def test_a_task_that_was_cancelled_before_can_still_ask(self) -> None:
        async def work() -> int:
            async with serve() as server, transport() as client:

                async def clean_up() -> int:
                    try:
                        await asyncio.sleep(600)
                    except asyncio.CancelledError:
                        return (await client.request("DELETE", server.url)).status
                    return 0

                task = asyncio.create_task(clean_up())
                await asyncio.sleep(0)
                task.cancel()
                return await task

        assert run(work()) == 200


class TestSecrets:
    def test_they_are_shown_nowhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        headers, shown = {"Authorization": f"Bearer {SECRET}", "x-api-key": SECRET}, []
        monkeypatch.setenv("HTTP_PROXY", f"http://user:{SECRET}@127.0.0.1:1")
        for url in ("http://user:{0}@127.0.0.1:1/v1?key={0}", "http://user:{0}@no-such-host.invalid/?key={0}", "ftp://user:{0}@h/?key={0}", "http://{0} {0}/"):
            with pytest.raises(NoReply) as caught:
                post_to(url.format(SECRET), headers=headers)
            shown += [repr(caught.value), *traceback.format_exception(caught.value), repr(caught.value.__context__)]
        with pytest.raises(NoReply) as caught:
            run(Transport(headers, timeout_s=1).request("GET", "http://127.0.0.1:1", headers={"x": f"{SECRET}\n"}))
        with pytest.raises(ModelError, match="the header x-api-key holds") as refused:
            Transport({"x-api-key": f"{SECRET}\n"}, timeout_s=1)
        shown += [repr(caught.value), *traceback.format_exception(caught.value), str(refused.value), repr(Transport(headers, timeout_s=1))]
        assert not [text for text in shown if SECRET in text]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority of our own, and a certificate of it for localhost and example.invalid."""
    path = tmp_path_factory.mktemp("tls")
    (path / "names").write_text("subjectAltName=DNS:localhost,DNS:example.invalid,IP:127.0.0.1")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=Ours -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out server.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=path, check=True, capture_output=True)
    return path


def post_tls(authority: Path) -> Reply:
    async def work() -> Reply:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(authority / "server.pem", authority / "server.key")
        async with serve(tls=tls) as server, transport() as client:
            return await client.post(f"https://localhost:{server.port}/v1", b"")

    return run(work())


@needs_openssl
class TestAuthorities:
    def test_an_unknown_one_is_refused_before_anything_is_sent(self, authority: Path) -> None:
        with pytest.raises(NoReply, match=r"(?i)certificate") as caught:
            post_tls(authority)
        assert not caught.value.sent

    @pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
    def test_the_environment_names_more(self, authority: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(variable, str(authority / "ca.pem"))
        assert post_tls(authority).status == 200

    @pytest.mark.parametrize("name", ["missing.pem", "names"])
    def test_a_file_without_any_is_told_at_once(self, authority: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / name))
        with pytest.raises(ModelError, match=f"REQUESTS_CA_BUNDLE names .*{name}, which holds no certificates"):
            Transport({}, timeout_s=1)

    def test_a_damaged_certificate_is_told(self, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        damaged = authority / "damaged.pem"
        damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        monkeypatch.setenv("SSL_CERT_FILE", str(damaged))
        with pytest.raises(ModelError, match="SSL_CERT_FILE"):
            Transport({}, timeout_s=1)

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system keeps them")
    def test_a_system_without_any_has_those_of_certifi(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
        assert post(OK).status == 200


async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    """Answer a plain request in the place of its server; tunnel to the port that the name asked for ends in."""
    method, target, _ = request.split(b" ", 2)
    if method != b"CONNECT":
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(target), target))
        return
    there_reader, there_writer = await asyncio.open_connection("127.0.0.1", int(target.rpartition(b":")[2]))
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    await asyncio.gather(_pass_on(reader, there_writer), _pass_on(there_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


class TestProxy:
    def ask(self, monkeypatch: pytest.MonkeyPatch, ask: Callable[[], Awaitable[T]], variable: str = "HTTP_PROXY", login: str = "") -> tuple[T, list[bytes]]:
        async def work() -> tuple[T, list[bytes]]:
            async with serve(proxy) as between:
                monkeypatch.setenv(variable, f"http://{login}127.0.0.1:{between.port}")
                return await ask(), between.requests

        return run(work())

    def test_plain_requests_go_through_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def ask() -> bytes:
            async with transport() as client:
                return (await client.post("http://example.invalid/v1", b"")).body

        body, requests = self.ask(monkeypatch, ask, login="user:pass@")
        assert body == b"http://example.invalid/v1"
        assert b"proxy-authorization: basic dxnlcjpwyxnz" in requests[0].lower()

    @needs_openssl
    def test_encrypted_ones_go_through_a_tunnel(self, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(authority / "server.pem", authority / "server.key")

        async def ask() -> Reply:
            async with serve(tls=tls) as server, transport({"Authorization": SECRET}) as client:
                return await client.post(f"https://example.invalid:{server.port}/v1", b"")

        reply, requests = self.ask(monkeypatch, ask, "HTTPS_PROXY")
        assert reply.body == b"{}"
        assert requests[0].startswith(b"CONNECT example.invalid:") and SECRET.encode() not in requests[0]

    @pytest.mark.parametrize("way", ["NO_PROXY", "through_proxy"])
    def test_it_can_be_passed_by(self, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if way == "NO_PROXY":
            monkeypatch.setenv("NO_PROXY", "example.invalid")

        async def ask() -> bool:
            async with transport(through_proxy=way == "NO_PROXY") as client:
                with pytest.raises(NoReply) as caught:
                    await client.post("http://example.invalid/v1", b"")
                return caught.value.sent

        assert self.ask(monkeypatch, ask) == (False, [])

    def test_a_model_on_this_machine_is_never_asked_through_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = b'{"choices":[{"text":"Hello."}]}'

        async def ask() -> str:
            async with serve(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(answer), answer)) as server:
                model = OpenAIModel("m", base_url=server.url)
                try:
                    return (await model.generate(Generation("Hi", Sampling()))).completions[0].text
                finally:
                    await model.close()

        assert self.ask(monkeypatch, ask) == ("Hello.", [])


def test_a_process_ends_as_it_should_with_calls_in_flight() -> None:
    """At its end, after Ctrl-C, and after an error: twice each."""
    done = subprocess.run([sys.executable, BENCH, "exits", "--runs", "6"], capture_output=True, text=True, timeout=300, check=True)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    assert [(row[2], row[3], row[5]) for row in rows] == [("end", "2", "0"), ("interrupt", "2", "0"), ("error", "2", "0")], done.stdout
