"""What a model call costs, ours beside a bare loop and beside other clients, each in a process of its own.

python bench/calls.py                       # 5,000 calls at 256 in flight, 0 and 50 ms of latency, 3 repetitions; 6 minutes on a quiet machine
python bench/calls.py --quick               # a tenth of it, once
python bench/calls.py --only ours aiohttp   # rows whose title has one of these words

Peers are installed on demand, pinned, each into an environment of its own under ~/.cache/safer-instruct/bench; one that cannot be
installed or started is skipped, with the reason. CPU is user and system time of the client's process and its children, after a
warm-up. A table goes to standard output, every single figure to --out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

from clients import FLOOR, OURS, PEERS, TRANSPORT, Client, Figures, Load, RunError, run_client, serving
from environments import CACHE, UnavailableError

ORDER = [FLOOR, TRANSPORT, OURS, *PEERS, FLOOR]  # the floor first and last shows how the machine drifts
Results = dict[str, list[Figures]]  # by title


def main() -> None:
    arguments = parse_arguments()
    wanted = [c for c in ORDER if not arguments.only or any(word.lower() in c.title.lower() for word in arguments.only)]
    report = {"machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", "latencies": {}}
    print(f"{arguments.calls:,} calls, {arguments.peer_calls:,} for peers, {arguments.concurrency} in flight, median of {arguments.repetitions}")
    for latency_ms in arguments.latency_ms:
        load_before = os.getloadavg()[0]
        results, skipped = measure(wanted, latency_ms, arguments)
        print(f"\n### {latency_ms:g} ms of latency (load of the machine before: {load_before:.1f})\n")
        print_table(wanted, results)
        print_criteria(results)
        for title, reason in skipped.items():
            print(f"- {title} skipped: {reason}")
        report["latencies"][f"{latency_ms:g} ms"] = {
            "load_before": load_before,
            "runs": {title: [asdict(run) for run in runs] for title, runs in results.items()},
            "skipped": skipped,
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nevery run: {arguments.out}", file=sys.stderr)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--peer-calls", type=int, default=1000, help="for the slow ones; 3 to 5 ms of CPU each")
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0.0, 50.0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="WORD")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=CACHE / "calls.json")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.calls, arguments.peer_calls, arguments.repetitions = arguments.calls // 10, arguments.peer_calls * 3 // 10, 1
    return arguments


def measure(wanted: list[Client], latency_ms: float, arguments: argparse.Namespace) -> tuple[Results, dict[str, str]]:
    """Every client once, as often as asked for, so that a machine that slows down slows all; a client that fails is not tried again."""
    results: Results = {}
    skipped: dict[str, str] = {}
    with serving(latency_ms) as base_url:
        for repetition in range(arguments.repetitions):
            for position, client in enumerate(wanted):
                title = row_title(wanted, position)
                if title in skipped:
                    continue
                warm_up = arguments.concurrency  # opens the connections
                load = Load(arguments.peer_calls if client.peer else arguments.calls, warm_up, arguments.concurrency)
                try:
                    figures = run_client(client, base_url, load)
                except (UnavailableError, RunError) as exc:
                    skipped[title] = str(exc)
                    continue
                results.setdefault(title, []).append(figures)
                print(f"{latency_ms:g} ms, {repetition + 1}: {title}: {figures.cpu_us:,.0f} us, {figures.calls_per_s:,.0f} calls/s", file=sys.stderr)
    return results, skipped


def row_title(wanted: list[Client], position: int) -> str:
    """The floor comes twice and gets two rows."""
    client = wanted[position]
    return f"{client.title}, again" if client in wanted[:position] else client.title


def print_table(wanted: list[Client], results: Results) -> None:
    """Medians, and in brackets the lowest and highest CPU."""
    ours = cpu_us(results, OURS.title)
    print("| client | version | calls | CPU us/call | of ours | calls/s | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for position, client in enumerate(wanted):
        title = row_title(wanted, position)
        if not (runs := results.get(title)):
            continue
        cpu = cpu_us(results, title)
        spread = f"({min(r.cpu_us for r in runs):,.0f} to {max(r.cpu_us for r in runs):,.0f})"
        speed, peak_mb = statistics.median(r.calls_per_s for r in runs), max(r.peak_mb for r in runs)
        notes = "".join(f"; {note}" for note in notes_on(runs))
        of_ours = f"{cpu / ours:.2f}" if cpu and ours else ""
        print(f"| {title} | {client.version}{notes} | {runs[0].calls:,} | {cpu:,.0f} {spread} | {of_ours} | {speed:,.0f} | {peak_mb:.0f} |")


def notes_on(runs: list[Figures]) -> list[str]:
    """What else is to be said about the runs of a client."""
    notes = []
    if whole := [r.whole_cpu_s / r.calls * 1e6 for r in runs if r.whole_cpu_s is not None]:
        notes.append(f"{statistics.median(whole):,.0f} us with the fixed cost of a run")
    if more := max(r.requests - r.asked for r in runs):
        notes.append(f"{more} more requests than prompts")
    if bad_ends := [r.exit_code for r in runs if r.exit_code]:
        notes.append(f"{len(bad_ends)} of {len(runs)} processes ended badly ({bad_ends[0]})")
    return notes


def cpu_us(results: Results, title: str) -> float | None:
    return statistics.median(r.cpu_us for r in results[title]) if title in results else None


def print_criteria(results: Results) -> None:
    """What is asked of ours, as measured."""
    if OURS.title not in results:
        return
    ours, speed = cpu_us(results, OURS.title), statistics.median(r.calls_per_s for r in results[OURS.title])
    assert ours
    print()
    if floors := [r.cpu_us for title in (FLOOR.title, f"{FLOOR.title}, again") for r in results.get(title, ())]:
        say("CPU per call, of the bare aiohttp loop's", ours / statistics.median(floors), "at most", 1.0)
    if transport := results.get(TRANSPORT.title):
        say("calls/s, of the bare transport's", speed / statistics.median(r.calls_per_s for r in transport), "at least", 0.8)
    for peer in PEERS:
        if theirs := cpu_us(results, peer.title):
            say(f"CPU per call of {peer.title}, of ours", theirs / ours, "at least", 12.0)


def say(what: str, value: float, bound: str, limit: float) -> None:
    met = value <= limit if bound == "at most" else value >= limit
    print(f"- {what}: {value:.2f} ({bound} {limit:g}: {'met' if met else 'NOT met'})")


if __name__ == "__main__":
    main()
