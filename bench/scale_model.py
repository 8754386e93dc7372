"""What a run of a million, a hundred million and a billion texts takes: a model that stands on measured constants and on assumptions, told apart.

python bench/scale_model.py                              # the tables of docs/scale.md
python bench/scale_model.py --write docs/scale.md        # and put them there
python bench/scale_model.py --set gpu_written_per_s=8000 --set keep_sift=0.2 --api anthropic:claude-haiku-4-5
python bench/scale_model.py --measure                    # the constants that no other script measures (about 10 s)
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safer_instruct.prices import load_prices

BENCH = "bench/README.md"
BEGIN, END = "<!-- model:begin -->", "<!-- model:end -->"
HOUR, GB, TB = 3600.0, 1e9, 1e12


@dataclass(frozen=True)
class Constant:
    """A number that the model stands on.

    Attributes:
        source: The command that measured it; for an assumption why it is so large, or where it was read.
        measured: On this machine, by this project.
    """

    value: float
    unit: str
    source: str
    measured: bool = True


def measured(value: float, unit: str, source: str) -> Constant:
    return Constant(value, unit, source)


def assumed(value: float, unit: str, source: str) -> Constant:
    return Constant(value, unit, source, measured=False)


GPU_PAGE = "https://www.morphllm.com/vllm-benchmarks (8B on one H100, April 2026)"
READ_PAGE = "GPUStack's performance lab, gpt-oss-20b on an A100 (short prompts, all tokens)"
CONSTANTS = {
    # the way of one text, on a CPU core
    "pages_per_cpu_s": measured(790, "WARC pages of 36 kB, main text", "bench/crawl.py --pages 400"),
    "sifted_per_cpu_s": measured(
        5_100, "passages of 56 words through length, language, gibberish and the rules of Gopher, C4 and FineWeb", "bench/crawl.py --pages 400"
    ),
    "routed_per_cpu_s": measured(29_000, "passages, by static vectors", "bench/routing.py"),
    "row_cpu_s": measured(
        0.0046, "CPU s for one text that becomes a pair, of it 10 calls with ledger and two duplicate detectors", "bench/scale.py --rows 100000"
    ),
    "call_cpu_s": measured(0.000156, "CPU s for one call over HTTP, ledger on", "bench/calls.py"),
    "embedded_tokens_per_cpu_s": measured(630, "tokens scored by the embedded model on one core", "bench/consistency.py --speed"),
    # what one process does in turn
    "dedup_s": measured(0.000135, "s for one text in a streaming duplicate detector", "bench/scale.py --rows 100000"),
    "driver_s": measured(0.00047, "s for one text in the Ray runner's driver, one that becomes a pair", "bench/ray_serial.py --rows 8000"),
    "ledger_calls_per_s": measured(10_407, "calls committed by one ledger", "bench/ledger.py"),
    "export_s": measured(0.00001, "s for one pair in `export datasets`", "bench/export.py FOLDER --pairs 1000000"),
    "near_s": measured(0.000026, "CPU s for one text in the duplicate search over a whole set (`keep: best`)", "bench/dedup.py --rows 1000000 --only ours"),
    # bytes
    "text_bytes": assumed(300, "bytes of one passage of 50 words, as it came", "5 bytes a word, a blank, and its address"),
    "ledger_bytes": measured(228, "bytes of one call in the ledger", "bench/scale.py --rows 100000"),
    "example_bytes": assumed(
        250, "bytes of one text in examples.parquet, packed; dropped ones are in it too", "the text compressed to half, its place and verdicts"
    ),
    "pair_bytes": assumed(3_000, "further bytes of one that became a pair, in pairs and examples", "candidates, drafts and two responses of 150 words"),
    "dedup_bytes": measured(650, "bytes on disk of one text in a streaming duplicate detector", "bench/scale_model.py --measure"),
    "near_bytes": measured(1_153, "bytes in memory of one text in the search over a whole set", "bench/dedup.py --rows 1000000 --only ours"),
    # what is left of the texts
    "passages_per_page": assumed(4.0, "passages of a page that are long enough", "a page with an article of some hundred words; pages without one give none"),
    "keep_sift": assumed(
        0.4, "of the passages pass language and quality", "a guess for a crawl; a dry run tells yours, and a corpus of one's own keeps nearly all"
    ),
    "keep_route": assumed(0.5, "of these reach a category", "bench/routing.py drops 0 to 0.7 of texts that all belong to one"),
    "keep_distinct": assumed(0.8, "of these are no duplicates", "a guess for a crawl"),
    "keep_prompt": assumed(0.6, "of these get an instruction that passes the gates", "the demo keeps 25 of 100 with a 135M inducer, README.md"),
    "keep_verify": assumed(0.7, "of these get a response that is accepted", "the demo 25 of 25, where nearly all replies are alike"),
    # tokens of one text at each stage that it reaches
    "inducer_read": assumed(100, "tokens read", "the reversed template and 50 words"),
    "inducer_written": assumed(100, "tokens written", "four candidates of 25"),
    "scorer_read": assumed(300, "tokens scored", "log p of the text alone and under two instructions, at most 64 tokens each, with what comes before"),
    "expert_read": assumed(500, "tokens read", "two drafts under a guideline of 200 tokens"),
    "expert_written": assumed(300, "tokens written", "two drafts of 150"),
    "judge_read": assumed(3_000, "tokens read", "two drafts: criteria once, comparison in both orders, 500 tokens each"),
    "judge_written": assumed(180, "tokens written", "six answers of 30"),
    "calls_induced": assumed(4.5, "calls for a text that enters, of induction and consistency", "one of the inducer, and what the scorer is asked"),
    "calls_answered": assumed(8.0, "calls for a text with an instruction, of expert and judge", "two drafts and six questions"),
    # machines
    "node_memory_gb": assumed(128, "GB of memory of one node", "8 GB a core"),
    "random_read_s": assumed(0.0001, "s for one page read from an SSD that memory does not hold", "NVMe, one read at a time"),
    "dedup_reads": assumed(17, "pages looked up for one text by a streaming duplicate detector", "sixteen bands and a digest, filters/dedup.py"),
    "gpu_read_per_s": assumed(25_000, "tokens read by one GPU", READ_PAGE),
    "gpu_written_per_s": assumed(12_500, "tokens written by one GPU, an 8B model", GPU_PAGE),
    "gpu_usd_per_hour": assumed(2.5, "US dollars for an hour of one GPU", "a round number for a rented H100; set your own"),
    "cpu_usd_per_hour": assumed(0.05, "US dollars for an hour of one core", "a round number"),
    "storage_usd_per_tb_month": assumed(23.0, "US dollars for a terabyte of object storage a month", "a round number of the large providers"),
    "api_tokens_per_min": assumed(
        30e6, "tokens a minute that a hosted API lets through", "the order of the largest published tiers; yours is on your account's page"
    ),
}


@dataclass(frozen=True)
class Cluster:
    """What a run of one size is given."""

    texts: float
    nodes: int
    cores: int
    gpus: int

    @property
    def name(self) -> str:
        return f"10^{len(str(int(self.texts))) - 1}"


CLUSTERS = (Cluster(1e6, 1, 16, 1), Cluster(1e8, 8, 128, 32), Cluster(1e9, 32, 512, 256))


@dataclass(frozen=True)
class Flow:
    """How many texts reach each stage, and the calls and tokens that they take."""

    texts: float
    values: dict[str, float]

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @property
    def sifted(self) -> float:
        return self.texts * self["keep_sift"]

    @property
    def routed(self) -> float:
        return self.sifted * self["keep_route"]

    @property
    def distinct(self) -> float:
        return self.routed * self["keep_distinct"]

    @property
    def prompted(self) -> float:
        return self.distinct * self["keep_prompt"]

    @property
    def pairs(self) -> float:
        return self.prompted * self["keep_verify"]

    @property
    def calls(self) -> float:
        return self.distinct * self["calls_induced"] + self.prompted * self["calls_answered"]

    @property
    def read(self) -> float:
        """Tokens read on GPUs: by inducer, scorer, expert and judge."""
        return self.distinct * (self["inducer_read"] + self["scorer_read"]) + self.prompted * (self["expert_read"] + self["judge_read"])

    @property
    def written(self) -> float:
        return self.distinct * self["inducer_written"] + self.prompted * (self["expert_written"] + self["judge_written"])

    @property
    def gpu_s(self) -> float:
        return self.read / self["gpu_read_per_s"] + self.written / self["gpu_written_per_s"]

    @property
    def api_tokens(self) -> tuple[float, float]:
        """Tokens read and written by expert and judge, where these are hosted."""
        return self.prompted * (self["expert_read"] + self["judge_read"]), self.prompted * (self["expert_written"] + self["judge_written"])

    @property
    def reading_s(self) -> float:
        """CPU seconds of reading pages, sifting passages and routing them."""
        pages = self.texts / self["passages_per_page"] / self["pages_per_cpu_s"]
        return pages + self.texts / self["sifted_per_cpu_s"] + self.sifted / self["routed_per_cpu_s"]

    @property
    def working_s(self) -> float:
        """CPU seconds of the rows and their calls; the calls that the measured row had are in it."""
        return self.distinct * self["row_cpu_s"] + max(0.0, self.calls - 10 * self.distinct) * self["call_cpu_s"]


def resources(flow: Flow, cluster: Cluster) -> Iterator[tuple[str, float]]:
    """Hours that each resource is busy, were it alone in the way."""
    read, written = flow.api_tokens
    yield "one process: reading, sifting, routing, repeated texts", (flow.reading_s + flow.routed * _duplicate_s(flow)) / HOUR
    yield "one process: repeated instructions", flow.prompted * _duplicate_s(flow) / HOUR
    yield "one process: driver, files in order", flow.texts * flow["driver_s"] / HOUR
    yield "cores: rows, calls, ledger", flow.working_s / cluster.cores / HOUR
    yield "GPUs: all four models", flow.gpu_s / cluster.gpus / HOUR
    yield "instead of repeated texts in order, `keep: best` over the whole set", flow.routed * flow["near_s"] / HOUR
    yield "instead of reading in one process, one run for each node", flow.reading_s / cluster.nodes / HOUR
    yield "one process: merged ledger", flow.calls / flow["ledger_calls_per_s"] / HOUR
    yield "one process: export", flow.pairs * flow["export_s"] / HOUR
    yield "instead of GPUs, expert and judge at an API: its limit", (read + written) / flow["api_tokens_per_min"] / 60
    yield "instead of GPUs, the embedded scorer on the cores", flow.distinct * flow["scorer_read"] / flow["embedded_tokens_per_cpu_s"] / cluster.cores / HOUR


def _duplicate_s(flow: Flow) -> float:
    """Seconds for one text, measured where memory holds what was seen before; where it does not, each look-up beyond it waits for the disk."""
    on_disk = max(0.0, 1 - flow["node_memory_gb"] * GB / _seen(flow))
    return flow["dedup_s"] + on_disk * flow["dedup_reads"] * flow["random_read_s"]


def tables(values: dict[str, float], api: str) -> str:
    """The tables, as Markdown."""
    flows = [(Flow(cluster.texts, values), cluster) for cluster in CLUSTERS]
    head = "| | " + " | ".join(cluster.name for _, cluster in flows) + " |\n|---|" + "---|" * len(flows)
    return "\n\n".join(
        (
            "### What is there, and what comes of it\n\n" + head + "\n" + "\n".join(_sizes(flows)),
            "### Hours that each resource is busy\n\n" + head + "\n" + "\n".join(_hours(flows)),
            "### Money and bytes\n\n" + head + "\n" + "\n".join(_money(flows, api)),
            "### Constants\n\n| constant | value | unit | measured by, or assumed because |\n|---|---|---|---|\n" + "\n".join(_constants(values)),
        )
    )


def _sizes(flows: list[tuple[Flow, Cluster]]) -> Iterator[str]:
    yield _row("nodes, cores, GPUs", [f"{cluster.nodes}, {cluster.cores}, {cluster.gpus}" for _, cluster in flows])
    for name, of in (("texts", "texts"), ("after sifting", "sifted"), ("after routing", "routed"), ("after duplicates", "distinct")):
        yield _row(name, [_short(getattr(flow, of)) for flow, _ in flows])
    for name, of in (("with an instruction", "prompted"), ("pairs", "pairs"), ("calls", "calls"), ("tokens read", "read"), ("tokens written", "written")):
        yield _row(name, [_short(getattr(flow, of)) for flow, _ in flows])


def _hours(flows: list[tuple[Flow, Cluster]]) -> Iterator[str]:
    busy = [dict(resources(flow, cluster)) for flow, cluster in flows]
    for name in busy[0]:
        yield _row(name, [_hour(hours[name]) for hours in busy])
    first = [max((name for name in hours if not name.startswith("instead")), key=hours.__getitem__) for hours in busy]
    yield _row("**first bottleneck**", [f"**{name}**" for name in first])
    yield _row("after that", [_second(hours) for hours in busy])


def _second(hours: dict[str, float]) -> str:
    return sorted((name for name in hours if not name.startswith("instead")), key=hours.__getitem__)[-2]


def _money(flows: list[tuple[Flow, Cluster]], api: str) -> Iterator[str]:
    hosts = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
    price = load_prices().require(api, hosts.get(api.partition(":")[0]))
    yield _row("GPU hours", [_short(flow.gpu_s / HOUR) for flow, _ in flows])
    yield _row("GPUs, US dollars", [_short(flow.gpu_s / HOUR * flow["gpu_usd_per_hour"]) for flow, _ in flows])
    yield _row("cores, US dollars", [_short((flow.reading_s + flow.working_s) / HOUR * flow["cpu_usd_per_hour"]) for flow, _ in flows])
    costs = [price.cost(round(flow.api_tokens[0]), round(flow.api_tokens[1]), batch=False) for flow, _ in flows]
    yield _row(f"instead, expert and judge at {api}, US dollars", [_short(cost) for cost in costs])
    halves = [price.cost(round(flow.api_tokens[0]), round(flow.api_tokens[1]), batch=True) for flow, _ in flows]
    yield _row("the same through its batch API", [_short(cost) for cost in halves])
    for name, of in (("ledger", _ledger), ("texts as they came", _texts), ("pairs and examples", _pairs), ("duplicate detectors, disk of one node", _seen)):
        yield _row(name, [_bytes(of(flow)) for flow, _ in flows])
    whole = [flow.routed * flow["near_bytes"] for flow, _ in flows]
    told = [_bytes(size) + ("" if size < flow["node_memory_gb"] * GB else ": **does not fit**") for size, (flow, _) in zip(whole, flows, strict=True)]
    yield _row("`keep: best`, memory of one process", told)
    stored = [(_ledger(flow) + _pairs(flow)) / TB * flow["storage_usd_per_tb_month"] for flow, _ in flows]
    yield _row("storage of ledger and pairs, US dollars a month", [_short(cost) for cost in stored])


def _ledger(flow: Flow) -> float:
    return flow.calls * flow["ledger_bytes"]


def _texts(flow: Flow) -> float:
    return flow.texts * flow["text_bytes"]


def _pairs(flow: Flow) -> float:
    return flow.texts * flow["example_bytes"] + flow.pairs * flow["pair_bytes"]


def _seen(flow: Flow) -> float:
    return (flow.routed + flow.prompted) * flow["dedup_bytes"]


def _constants(values: dict[str, float]) -> Iterator[str]:
    for name, constant in CONSTANTS.items():
        source = f"`{constant.source}`" if constant.measured else f"*assumed*: {constant.source}"
        yield f"| `{name}` | {values[name]:,.12g} | {constant.unit} | {source} |"


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _short(value: float) -> str:
    """Two digits that count, with a word for the size."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= 0.995 * size:
            return f"{float(f'{value / size:.2g}'):g}{unit}"
    return f"{float(f'{value:.2g}'):g}"


def _hour(hours: float) -> str:
    return f"{float(f'{hours:.2g}'):g} h" if hours < 96 else f"{float(f'{hours / 24:.2g}'):g} days"


def _bytes(size: float) -> str:
    return f"{float(f'{size / TB:.2g}'):g} TB" if size >= TB else f"{float(f'{size / GB:.2g}'):g} GB"


def measure() -> None:
    """Bytes and CPU of the streaming duplicate detector, for texts of 40 words none of which is like another."""
    import random

    from scale import SYLLABLES

    from safer_instruct.filters.dedup import Deduplicator

    rng, count = random.Random(0), 50_000
    vocabulary = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(20_000)]
    detector, seconds = Deduplicator("text", 0.7), 0.0
    for number in range(count):
        text = " ".join(vocabulary[int(20_000 ** rng.random()) - 1] for _ in range(40))
        began = time.process_time()
        detector.check(text, str(number))
        seconds += time.process_time() - began
    (pages,), (size,) = (detector._db.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "page_size"))
    print(f"dedup: {pages * size / count:.0f} bytes and {seconds / count * 1e6:.0f} us of CPU for one of {count:,} texts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another value of a constant; may be given again")
    parser.add_argument("--api", default="openai:gpt-6-luna", help="whose prices the API's line has, as in prices.yaml")
    parser.add_argument("--write", type=Path, help="put the tables between the marks of this file")
    parser.add_argument("--measure", action="store_true")
    arguments = parser.parse_args()
    if arguments.measure:
        measure()
        return
    values = {name: constant.value for name, constant in CONSTANTS.items()}
    for said in arguments.set:
        name, _, value = said.partition("=")
        if name not in values:
            parser.error(f"there is no constant '{name}'; there are {', '.join(values)}")
        values[name] = float(value)
    made = tables(values, arguments.api)
    if arguments.write is None:
        print(made)
        return
    before, _, rest = arguments.write.read_text("utf-8").partition(BEGIN)
    arguments.write.write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
