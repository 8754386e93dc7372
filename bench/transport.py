"""Which HTTP client and event loop: CPU per call, calls/s, and whether the process always ends as it should.

python bench/transport.py speed                  # 4,000 distinct calls at concurrency 256, answers at once and after 50 ms
python bench/transport.py exits --runs 200       # short processes that end, are interrupted, or raise, with calls in flight

The server is a process of its own, one write per answer, so that it does not bound the clients.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager

from safer_instruct.models.transport import NoReply, Transport, event_loop

CONCURRENCY = 256
ANSWER = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}],"usage":{"prompt_tokens":50,"completion_tokens":50}}'
BODY = '{"model":"m","messages":[{"role":"user","content":"%s"}],"max_tokens":64}'
CLIENTS = ("pyreqwest", "aiohttp")
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": event_loop, "asyncio": asyncio.new_event_loop}
ENDINGS = {"end": {0}, "interrupt": {-signal.SIGINT, 130}, "error": {1}}  # and the exit codes that are right for each

Call = Callable[[bytes], Awaitable[bytes]]


class Answering(asyncio.Protocol):
    """Answers every request after `latency_s`, drawn between its bounds; drops the connection for a share of them."""

    def __init__(self, latency_s: tuple[float, float], dropped: float) -> None:
        self.latency_s, self.dropped, self.buffer = latency_s, dropped, b""
        body = ANSWER % (b"word " * 60)
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            self.respond()

    def respond(self) -> None:
        if self.dropped and random.random() < self.dropped:
            self.transport.abort()
        elif self.latency_s[1]:
            asyncio.get_running_loop().call_later(random.uniform(*self.latency_s), self.write)
        else:
            self.write()

    def write(self) -> None:
        if not self.transport.is_closing():  # the client may be gone
            self.transport.write(self.answer)


async def serve(latency_s: tuple[float, float], dropped: float) -> None:
    """Answer on a free port, which is printed, until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Answering(latency_s, dropped), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def served(low_s: float, high_s: float, dropped: float = 0.0):
    """The server in a process of its own; gives its port."""
    process = subprocess.Popen([sys.executable, __file__, "serve", str(low_s), str(high_s), str(dropped)], stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def client(name: str, port: int) -> AsyncIterator[Call]:
    """One call with the client of that name."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    if name == "pyreqwest":
        transport = Transport({"Content-Type": "application/json", "Authorization": "Bearer none"}, timeout_s=60, through_proxy=False)

        async def call(body: bytes) -> bytes:
            return (await transport.post(url, body)).body

        try:
            yield call
        finally:
            await transport.close()
    else:
        import aiohttp

        headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), headers=headers, timeout=timeout
        ) as session:

            async def call(body: bytes) -> bytes:
                try:
                    async with session.post(url, data=body) as response:
                        return await response.read()
                except aiohttp.ClientError as exc:
                    raise NoReply(str(exc)) from exc

            yield call


async def measure(name: str, port: int, calls: int) -> tuple[float, float]:
    """CPU per call in microseconds, and calls/s, after the connections have been opened."""
    async with client(name, port) as call:
        bodies = (BODY.replace("%s", f"question {i} " + "word " * 38).encode() for i in itertools.count())
        await in_parallel(call, bodies, CONCURRENCY * 2)
        cpu, start = cpu_s(), time.perf_counter()
        await in_parallel(call, bodies, calls)
        return (cpu_s() - cpu) / calls * 1e6, calls / (time.perf_counter() - start)


async def in_parallel(call: Call, bodies: itertools.Iterator[bytes], calls: int) -> None:
    """So many calls, `CONCURRENCY` at a time."""
    left = itertools.islice(bodies, calls)

    async def work() -> None:
        for body in left:
            await call(body)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def cpu_s() -> float:
    """CPU time of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def speed(calls: int, rounds: int) -> None:
    """Every client under every loop, round by round, each in a process of its own; medians."""
    print("| client | loop | latency, ms | CPU per call, microseconds | calls/s |\n|---|---|---|---|---|")
    for latency_s in (0.0, 0.05):
        with served(latency_s, latency_s) as port:
            found: dict[tuple[str, str], list[tuple[float, float]]] = {}
            for _, name, loop in itertools.product(range(rounds), CLIENTS, LOOPS):
                command = [sys.executable, __file__, "measure", name, loop, str(port), str(calls)]
                cpu, rate = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
                found.setdefault((name, loop), []).append((float(cpu), float(rate)))
        for (name, loop), values in found.items():
            cpus, rates = zip(*values, strict=True)
            cpu = f"{statistics.median(cpus):.0f} ({min(cpus):.0f} to {max(cpus):.0f})"
            print(f"| {name} | {loop} | {latency_s * 1000:.0f} | {cpu} | {statistics.median(rates):,.0f} |", flush=True)


async def short(name: str, port: int, ending: str) -> None:
    """Calls until they end, raise in the middle, or for ever."""
    async with client(name, port) as call:
        done = itertools.count(1)

        async def work() -> None:
            for _ in range(4) if ending == "end" else itertools.count():
                try:
                    await call(b"{}")
                except NoReply:  # the server drops some
                    continue
                if next(done) == 100:
                    print("under way", flush=True)
                    if ending == "error":
                        raise RuntimeError("on purpose")

        await asyncio.gather(*(work() for _ in range(64)))


def exits(runs: int, names: list[str], loops: list[str]) -> None:
    """Start `short` so often for each client and loop, a third for each ending, and count the exit codes."""
    print("| client | loop | ending | runs | exit codes | wrong |\n|---|---|---|---|---|---|")
    with served(0.0, 0.03, 0.02) as port:
        for name, loop in itertools.product(names, loops):
            codes = {ending: Counter[int]() for ending in ENDINGS}
            for _, ending in zip(range(runs), itertools.cycle(ENDINGS), strict=False):
                codes[ending][exit_code(name, loop, port, ending)] += 1
            for ending, right in ENDINGS.items():
                wrong = sum(n for code, n in codes[ending].items() if code not in right)
                print(f"| {name} | {loop} | {ending} | {codes[ending].total()} | {dict(codes[ending])} | {wrong} |", flush=True)


def exit_code(name: str, loop: str, port: int, ending: str) -> int:
    """Run one short process to its end."""
    command = [sys.executable, __file__, "short", name, loop, str(port), ending]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    process.stdout.readline()
    if ending == "interrupt":
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        return 999


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("speed")
    verb.add_argument("--calls", type=int, default=4000)
    verb.add_argument("--rounds", type=int, default=3)
    verb = verbs.add_parser("exits")
    verb.add_argument("--runs", type=int, default=200)
    verb.add_argument("--client", nargs="+", choices=CLIENTS, default=["pyreqwest"])
    verb.add_argument("--loop", nargs="+", choices=LOOPS, default=["uvloop"])
    for name, arguments in {"serve": "low_s high_s dropped", "measure": "client loop port calls", "short": "client loop port ending"}.items():
        verb = verbs.add_parser(name)  # see `run_here`
        for argument in arguments.split():
            verb.add_argument(argument)
    given = parser.parse_args()
    if given.verb == "speed":
        speed(given.calls, given.rounds)
    elif given.verb == "exits":
        exits(given.runs, given.client, given.loop)
    else:
        run_here(given)


def run_here(given: argparse.Namespace) -> None:
    """What `speed` and `exits` start in processes of their own."""
    with asyncio.Runner(loop_factory=LOOPS[getattr(given, "loop", "uvloop")]) as runner:
        if given.verb == "serve":
            runner.run(serve((float(given.low_s), float(given.high_s)), float(given.dropped)))
        elif given.verb == "measure":
            print(*runner.run(measure(given.client, int(given.port), int(given.calls))))
        else:
            runner.run(short(given.client, int(given.port), given.ending))


if __name__ == "__main__":
    main()
