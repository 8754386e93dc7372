"""llama.cpp's HTTP server out of the wheel `xllamacpp`, as a process of its own with llama-server's command line.

    LLAMA_API_KEY=... python -P llama_child.py --model FILE.gguf --port 8080 --ctx-size 4096 --threads 4

The wheel carries the server but no executable and no option parser. Options are set on its parameter object: by the
names of llama-server that are listed here, and by the object's own names for the rest (`--n-batch 512`, `--no-warmup`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from functools import reduce
from typing import Any

_ATTRIBUTES = {
    "model": "model.path",
    "m": "model.path",
    "ctx_size": "n_ctx",
    "c": "n_ctx",
    "parallel": "n_parallel",
    "np": "n_parallel",
    "threads": "cpuparams.n_threads",
    "t": "cpuparams.n_threads",
    "threads_batch": "cpuparams_batch.n_threads",
    "tb": "cpuparams_batch.n_threads",
    "threads_http": "n_threads_http",
    "batch_size": "n_batch",
    "b": "n_batch",
    "ubatch_size": "n_ubatch",
    "ub": "n_ubatch",
    "gpu_layers": "n_gpu_layers",
    "ngl": "n_gpu_layers",
    "cache_reuse": "n_cache_reuse",
    "cache_ram": "cache_ram_mib",
    "log_verbosity": "verbosity",
    "lv": "verbosity",
}
_WORDS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


def main(arguments: list[str]) -> None:
    """Serve until killed."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.endpoint_slots = False  # they show what others are asking
    for name, value in options(arguments):
        try:
            apply(params, name, value, xllamacpp)
        except (AttributeError, TypeError, ValueError) as exc:
            sys.exit(f"error: invalid argument: --{name.replace('_', '-')} {value or ''} ({exc}); llama-server on the PATH knows all of llama.cpp's options")
    params.api_keys = [os.environ["LLAMA_API_KEY"]]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as exc:
        sys.exit(f"error: {exc}")
    print(f"serving at {server.listening_address}", flush=True)
    while True:
        time.sleep(3600)


def options(arguments: list[str]) -> Iterator[tuple[str, str | None]]:
    """`--name value`, `--name=value` and `--name` as (name, value or None), the name with underscores."""
    rest = list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("-"):
            sys.exit(f"error: invalid argument: {flag}")
        follows = not equals and bool(rest) and (not rest[0].startswith("-") or rest[0][1:].isdigit())  # -1 is a value
        yield flag.lstrip("-").replace("-", "_"), value if equals else rest.pop(0) if follows else None


def apply(params: Any, name: str, value: str | None, engine: Any) -> None:
    """Set one option on the parameter object `params` of the module `engine`.

    Raises:
        AttributeError: There is no such option.
        ValueError: Its value does not fit.
    """
    if name == "lora":
        adapter = engine.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = _given(value), 1.0
        params.lora_adapters = [*params.lora_adapters, adapter]
    elif name == "host":
        params.hostnames = [_given(value)]
    elif name == "alias":
        params.model_alias = {_given(value)}
    elif value is None and name.startswith("no_") and not hasattr(params, name):
        apply(params, name.removeprefix("no_"), "off", engine)
    else:
        *path, attribute = _ATTRIBUTES.get(name, name).split(".")
        holder = reduce(getattr, path, params)
        setattr(holder, attribute, _read(value, getattr(holder, attribute)))


def _read(value: str | None, default: Any) -> Any:
    """`value` as the type that the option has by default."""
    if isinstance(default, bool):
        if (word := (value or "on").lower()) not in _WORDS:
            raise ValueError("on or off is expected")
        return _WORDS[word]
    if type(default) in (int, float, str):
        return type(default)(_given(value))
    raise TypeError(f"the wheel's server takes no {type(default).__name__} from a command line")


def _given(value: str | None) -> str:
    if value is None:
        raise ValueError("a value is missing")
    return value


if __name__ == "__main__":
    main(sys.argv[1:])
