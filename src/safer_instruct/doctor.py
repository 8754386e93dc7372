"""What is installed, what each extra would add, and whether the embedded model answers."""

from __future__ import annotations

import asyncio
import importlib.util
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from safer_instruct.errors import ModelError, SaferInstructError
from safer_instruct.models import store
from safer_instruct.models.protocol import Generation, Sampling, Scoring
from safer_instruct.models.serving.spec import llama_program, vllm_program

_EXTRAS = {
    "local": ("the embedded model and scorer, without torch (about 185 MB)", ("ctranslate2", "tokenizers", "gguf", "safetensors")),
    "review": ("the review page in your browser (about 2 MB)", ("starlette", "uvicorn")),
    "calibrate": ("thresholds from labels, and the style check of audits (about 150 MB)", ("sklearn", "scipy")),
    "code": ("bandit, which verifies the domain insecure-code", ("bandit",)),
    "serve": ("llama.cpp's server, for GGUF files of your own (about 105 MB)", ("xllamacpp",)),
    "litellm": ("every provider that LiteLLM reaches, as litellm:PROVIDER/NAME (about 220 MB)", ("litellm",)),
    "embed": ("static embeddings, for semantic duplicates and varied selections (about 70 MB)", ("safetensors", "tokenizers", "wordllama")),
    "embed-torch": ("any model of sentence-transformers, for the same (about 1 GB)", ("sentence_transformers",)),
    "docs": ("HTML, PDF and DOCX as sources (about 10 MB)", ("selectolax", "pypdf", "mammoth")),
    "storage": ("s3://, gs:// and az:// as sources, run directories and exports (about 15 MB)", ("obstore",)),
    "web": ("web crawls as sources: WARC and WET (about 30 MB)", ("fastwarc", "resiliparse", "selectolax")),
    "hub": ("export --push to the Hugging Face hub (about 20 MB)", ("huggingface_hub",)),
    "lm-eval": ("evaluate: downstream tasks by lm-evaluation-harness (about 285 MB)", ("lm_eval",)),
    "ray": ("run --runner ray: runs on a cluster (about 255 MB)", ("ray",)),
    "datasets": ("tuning data by its name on the Hugging Face hub (about 70 MB)", ("datasets",)),
    "train": ("tuning with torch, TRL and PEFT (about 1 GB)", ("torch", "transformers", "peft", "trl", "accelerate", "datasets")),
    "qlora": ("tuning with the base in 4 bits, on CUDA GPUs (about 45 MB)", ("bitsandbytes",)),
    "trackers": ("losses sent to TensorBoard and Weights & Biases too; one of them is enough (about 60 MB)", ("tensorboard", "wandb")),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis; what is `optional` may be missing in good health."""

    ok: bool
    text: str
    optional: bool = False


def diagnose() -> Iterator[Finding]:
    """Look at everything, cheapest first."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(sys.version_info >= (3, 11), f"safer-instruct {metadata.version('safer-instruct')}, Python {version}, {platform.machine()}")
    missing_local = True
    for extra, (what, modules) in _EXTRAS.items():
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        add = f"; missing {', '.join(missing)}: pip install 'safer-instruct[{extra}]'" if missing else ""
        yield Finding(not missing, f"extra {extra}: {what}{add}", optional=True)
        missing_local = bool(missing) if extra == "local" else missing_local
    yield _vllm()
    yield _llama()
    yield _cache()
    if missing_local:
        yield Finding(False, "embedded model: cannot run without the extra local; remote models can", optional=True)
    else:
        yield _embedded()


def _vllm() -> Finding:
    program = vllm_program()
    return Finding(bool(program), f"served: model folders: {program or 'no vllm on the PATH; on a machine with a GPU: pip install vllm'}", optional=True)


def _llama() -> Finding:
    wheel = "the wheel xllamacpp" if importlib.util.find_spec("xllamacpp") else ""
    program = llama_program() or wheel
    return Finding(bool(program), f"served: GGUF files: {program or 'neither llama-server on the PATH nor the extra serve'}", optional=True)


def _cache() -> Finding:
    try:
        found = f"{store.cache_dir()} ({len(store.pulled())} models)"
    except ModelError as exc:
        return Finding(False, f"model cache: {exc}", optional=True)
    why = store.why_closed()
    return Finding(not why, f"model cache: {found}{why and f'; {why}'}", optional=True)


def _embedded() -> Finding:
    from safer_instruct.models.embedded import EmbeddedModel

    started = time.monotonic()
    try:
        model = EmbeddedModel(store.EMBEDDED)
        answer = asyncio.run(model.generate(Generation("The capital of France is", Sampling(max_tokens=8, temperature=0.0))))
        fits = asyncio.run(model.score(Scoring("The capital of France is", " Paris"))).mean
        not_ = asyncio.run(model.score(Scoring("The capital of France is", " cheese"))).mean
    except SaferInstructError as exc:
        return Finding(False, f"embedded model: {exc}", optional=True)
    said = f"says {answer.completions[0].text[:40]!r}, finds Paris {fits - not_:+.1f} nats likelier than cheese, {time.monotonic() - started:.1f} s"
    return Finding(fits > not_, f"embedded model: {store.EMBEDDED} {said}")
