"""Served models: the life of a server, with a stand-in for vLLM on the PATH, and with llama.cpp's real one."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError

import pytest

from safer_instruct import pipeline
from safer_instruct.config import ModelConfig, ServeConfig, load_config
from safer_instruct.errors import AccessError, MissingExtraError, ModelError, RequestError
from safer_instruct.models import open_model, store
from safer_instruct.models.protocol import Generation, Sampling, Scoring, Turn
from safer_instruct.models.served import ServedModel
from safer_instruct.models.serving import process
from safer_instruct.models.serving.server import Server

pytestmark = pytest.mark.filterwarnings("error")
T = TypeVar("T")
STAND_IN = Path(__file__).parents[1] / "stand_in_vllm.py"
GREEDY = Sampling(max_tokens=8, temperature=0.0)


class Weights:
    """A model folder that the stand-in for vLLM serves, and notes its starts in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def model(self, amiss: str = "", *, adapter: str | None = None, want_logprobs: bool = False, **serve: Any) -> ServedModel:
        config = ServeConfig(args=("--amiss", amiss) if amiss else (), **serve)
        model = open_model(ModelConfig(model="served:weights", adapter=adapter, serve=config), self.folder.parent, want_logprobs=want_logprobs)
        assert isinstance(model, ServedModel)
        return model

    def starts(self) -> list[dict[str, Any]]:
        noted = self.folder / ".starts"
        return [json.loads(line) for line in noted.read_text("utf-8").splitlines()] if noted.exists() else []


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFER_INSTRUCT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{STAND_IN.read_text('utf-8')}", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    for name, rank in (("polite", 8), ("curt", 24)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"r": rank}))
        (tmp_path / name / "adapter_model.safetensors").write_bytes(name.encode())
    return Weights(folder)


@pytest.fixture
def gguf(monkeypatch: pytest.MonkeyPatch) -> str:
    """Path of the real small model, for the real llama.cpp server."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("the extra serve (xllamacpp) is not installed")
    with monkeypatch.context() as usual:
        usual.delenv("SAFER_INSTRUCT_CACHE")
        try:
            return str(store.gguf_path(store.EMBEDDED))
        except ModelError as exc:
            pytest.skip(str(exc))


def llama(gguf: str, **settings: Any) -> ServedModel:
    serve = ServeConfig(slots=4, context=256, args=("--threads", 1))
    model = open_model(ModelConfig(model=f"served:{gguf}", serve=serve, **settings), Path(), want_logprobs=True)
    assert isinstance(model, ServedModel)
    return model


def run(work: Callable[[], Coroutine[Any, Any, T]], *models: ServedModel) -> T:
    async def main() -> T:
        try:
            return await work()
        finally:
            for model in models:
                await model.close()

    return asyncio.run(main())


def say(model: ServedModel, prompt: str, seed: int = 0, sampling: Sampling = GREEDY) -> Coroutine[Any, Any, str]:
    async def text() -> str:
        return (await model.generate(Generation(prompt, sampling, seed))).completions[0].text

    return text()


def logs() -> list[Path]:
    return sorted((store.cache_dir() / "logs").glob("*.log"))


def server_pid() -> int:
    """The process that the guard of the newest start runs, out of the log."""
    return int(re.findall(r"guard: process (\d+) is", logs()[-1].read_text("utf-8"))[-1])


def proc(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text()


def runs(pid: int) -> bool:
    try:
        return proc(pid, "stat").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second when it ends between the opening and the reading
        return False


def wait_until(true: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


# --- one life


def test_nothing_is_started_before_the_first_call_and_nothing_is_left_after_close(vllm: Weights) -> None:
    model = vllm.model()
    assert vllm.starts() == [] and not logs()

    async def work() -> list[str]:
        return list(await asyncio.gather(*(say(model, f"prompt {i}", i) for i in range(20))))

    assert run(work, model) == [f"weights {i}: prompt {i}" for i in range(20)]
    (start,) = vllm.starts()
    assert not runs(start["process"]) and not runs(start["worker"])


def test_chat_scores_and_logprobs_reach_the_server(vllm: Weights) -> None:
    model = vllm.model()

    async def work() -> tuple[str, tuple[float, ...]]:
        chat = await model.generate(Generation((Turn("system", "Be brief."), Turn("user", "Hello")), GREEDY))
        return chat.completions[0].text, (await model.score(Scoring("one two", " three four"))).logprobs

    assert run(work, model) == ("weights 0: Hello", (-0.5, -0.5))


def test_the_key_is_new_at_every_start_and_stands_in_no_command_line_and_no_log(vllm: Weights) -> None:
    keys: list[str] = []
    for _ in range(2):
        model = vllm.model()

        async def work(model: ServedModel = model) -> None:
            await say(model, "hello")
            (pid,) = (start["process"] for start in vllm.starts()[-1:])
            environment = dict(part.partition("=")[::2] for part in proc(pid, "environ").split("\0"))
            keys.append(environment["VLLM_API_KEY"])
            assert keys[-1] not in proc(pid, "cmdline")

        run(work, model)
    assert len(set(keys)) == 2 and min(map(len, keys)) >= 32
    assert len(logs()) == 2 and not any(key in log.read_text() for key in keys for log in logs())
    assert {log.stat().st_mode & 0o777 for log in logs()} == {0o600}
    assert not [name for name in os.environ if name.startswith("SAFER_INSTRUCT_SERVED_KEY")]


def test_models_that_differ_in_their_adapter_only_share_a_server(vllm: Weights) -> None:
    adapters = {"nice": "polite", "short": "curt"}
    base, nice = (vllm.model(adapter=adapter, adapters=adapters) for adapter in (None, "nice"))
    assert base.fingerprint != nice.fingerprint and nice.name == "served:weights+nice"

    async def work() -> list[str]:
        answers = [await say(base, "a"), await say(nice, "b")]
        await base.close()
        return [*answers, await say(nice, "c")]

    assert run(work, nice) == ["weights 0: a", "nice 0: b", "nice 0: c"]
    (start,) = vllm.starts()
    assert "--enable-lora --max-loras 2 --max-lora-rank 32 --lora-modules" in " ".join(start["args"])


def test_a_model_is_usable_again_after_close_and_in_another_loop(vllm: Weights) -> None:
    model = vllm.model()
    for prompt in ("first", "second"):
        assert run(lambda prompt=prompt: say(model, prompt), model) == f"weights 0: {prompt}"  # type: ignore[misc]
    assert len(vllm.starts()) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")  # connections that nobody closed
def test_a_loop_that_ends_without_close_takes_the_server_with_it(vllm: Weights) -> None:
    model = vllm.model()
    asyncio.run(say(model, "hello"))
    wait_until(lambda: not runs(vllm.starts()[0]["process"]))
    assert run(lambda: say(model, "again"), model) == "weights 0: again"
    gc.collect()


def test_a_stubborn_server_is_killed(vllm: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.5)
    model = vllm.model("stubborn")
    run(lambda: say(model, "hello"), model)
    (start,) = vllm.starts()
    assert not runs(start["process"]) and not runs(start["worker"])


# --- starts that fail


def failure(model: ServedModel, error: type[Exception] = AccessError, prompt: str = "hello") -> str:
    """What every call is told, all in flight and the next one."""

    async def work() -> set[str]:
        told = await asyncio.gather(say(model, prompt), say(model, prompt), return_exceptions=True)
        told += await asyncio.gather(say(model, prompt), return_exceptions=True)
        assert {type(exc) for exc in told} == {error}
        return {str(exc) for exc in told}

    (message,) = run(work, model)
    assert "\n" not in message
    return message


def test_a_machine_without_a_gpu_is_recognised(vllm: Weights) -> None:
    message = failure(vllm.model("no-gpu"))
    assert "vLLM finds no GPU" in message and "serve a GGUF file" in message and "exit status 1" in message
    assert str(logs()[0]) in message and "Failed to infer device type" in message
    assert len(vllm.starts()) == 1 and not runs(vllm.starts()[0]["worker"])


def test_flags_that_the_server_does_not_know_are_named(vllm: Weights) -> None:
    model = open_model(ModelConfig(model="served:weights", serve=ServeConfig(args=("--no-such-flag",))), vllm.folder.parent)
    assert isinstance(model, ServedModel)
    message = failure(model)
    assert "does not take what serve.args says" in message and "unrecognized arguments: --no-such-flag" in message


def test_a_missing_program_is_one_clear_line(vllm: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "pip install vllm" in failure(vllm.model(), ModelError)


def test_a_server_that_is_never_ready_is_given_up_and_ended(vllm: Weights) -> None:
    message = failure(vllm.model("slow", start_timeout_s=4.0))  # a second is not always enough for the stand-in to say a word
    assert "was not ready within 4 s" in message and "serve.start_timeout_s" in message and "stand-in: loading" in message
    wait_until(lambda: not runs(vllm.starts()[0]["process"]))


def test_a_slow_start_shows_how_the_log_goes_on(vllm: Weights, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("safer_instruct.models.serving.server._NEWS_EVERY_S", 0.3)
    with caplog.at_level(logging.WARNING, "safer_instruct.served"):
        failure(vllm.model("slow", start_timeout_s=4.0))
    assert "the vllm server of 'weights' is loading" in caplog.text and "stand-in: loading" in caplog.text


def test_a_port_that_was_taken_meanwhile_is_replaced_by_another(vllm: Weights) -> None:
    model = vllm.model("port-taken")
    assert run(lambda: say(model, "hello"), model) == "weights 0: hello"
    ports = [start["args"][start["args"].index("--port") + 1] for start in vllm.starts()]
    assert len(ports) == 2 and ports[0] != ports[1]


def test_a_port_of_ones_own_that_is_taken_is_an_error(vllm: Weights) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"port {port} is taken" in failure(vllm.model(port=port))
    model = vllm.model(port=port)
    assert run(lambda: say(model, "hello"), model) == "weights 0: hello"


def test_a_cancelled_start_leaves_nothing(vllm: Weights) -> None:
    model = vllm.model("slow")

    async def work() -> None:
        asked = asyncio.create_task(say(model, "hello"))
        await asyncio.to_thread(wait_until, lambda: bool(vllm.starts()))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    run(work, model)
    assert len(vllm.starts()) == 1 and not runs(vllm.starts()[0]["process"]) and not runs(vllm.starts()[0]["worker"])


# --- crashes


def test_calls_in_flight_when_the_server_crashes_are_answered_by_the_next_one(vllm: Weights, caplog: pytest.LogCaptureFixture) -> None:
    model = vllm.model()
    prompts = [f"prompt {i}" for i in range(10)] + ["crash once"]

    async def work() -> list[str]:
        return list(await asyncio.gather(*(say(model, prompt) for prompt in prompts)))

    assert run(work, model) == [f"weights 0: {prompt}" for prompt in prompts]
    first, _ = vllm.starts()
    assert not runs(first["worker"])
    assert "exit status 7" in caplog.text and "a request was too much for me" in caplog.text and "(1 of 3)" in caplog.text


def test_a_server_that_crashes_again_and_again_is_given_up(vllm: Weights) -> None:
    message = failure(vllm.model(), prompt="crash")
    assert "ended (exit status 7;" in message and "started again 3 times within 10 minutes" in message
    assert str(logs()[0]) in message and "a request was too much for me" in message
    assert len(vllm.starts()) == 4 and len(logs()) == 1


def test_a_restart_that_fails_is_tried_again_and_its_log_shows_no_key(vllm: Weights) -> None:
    message = failure(vllm.model("broken"), prompt="crash")
    assert "did not start (exit status 1" in message and "the secret is [key]" in message and len(vllm.starts()) == 4


def test_a_server_that_is_not_healthy_any_more_is_replaced(vllm: Weights) -> None:
    model = vllm.model()

    async def work() -> str:
        server = Server.join(model._spec)
        first = await server.ready()
        assert not await server.to_blame(first)
        await say(model, "sick")
        assert await server.to_blame(first) and await server.ready() is not first
        await server.leave()
        return await say(model, "well")

    assert run(work, model) == "weights 0: well"
    assert len(vllm.starts()) == 2


def test_no_server_survives_a_kill_of_this_process(vllm: Weights) -> None:
    child = start_child(f"ModelConfig(model='served:{vllm.folder}')")
    (start,) = vllm.starts()
    assert runs(start["process"]) and runs(start["worker"])
    child.kill()
    child.wait()
    wait_until(lambda: not runs(start["process"]) and not runs(start["worker"]))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_the_server_does_not_survive_a_kill_of_its_guard_either(vllm: Weights) -> None:
    model = vllm.model()

    async def work() -> str:
        await say(model, "hello")
        (start,) = vllm.starts()
        guard = int(proc(start["process"], "stat").rpartition(")")[2].split()[1])
        os.kill(guard, signal.SIGKILL)
        wait_until(lambda: not runs(start["process"]))
        return await say(model, "again")

    assert run(work, model) == "weights 0: again"


def start_child(config: str) -> subprocess.Popen[str]:
    """A process that has got an answer of the model, and then does nothing."""
    code = f"""
import asyncio, sys
from pathlib import Path
from safer_instruct.config import ModelConfig, ServeConfig
from safer_instruct.models import open_model
from safer_instruct.models.protocol import Generation, Sampling
async def main():
    await open_model({config}, Path()).generate(Generation("hello", Sampling(max_tokens=2)))
    print("answered", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    with child.stdout:
        assert child.stdout.readline() == "answered\n"
    return child


# --- in a run


def test_a_resumed_run_whose_calls_are_in_the_ledger_starts_nothing(vllm: Weights) -> None:
    folder = vllm.folder.parent
    texts = [f"We lost your {thing}, and frankly, you should have looked after the {thing} yourself." for thing in ("lamp", "parcel", "kettle", "ticket")]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "run.yaml").write_text(
        "domain: civility\nsource: {path: texts.jsonl}\nfilter: {prompt: null, near_duplicate: null, consistency: null}\n"
        "models: {inducer: 'served:weights', expert: {model: 'served:weights', adapter: polite}, scorer: 'scripted:'}\n"
    )
    first = pipeline.run(load_config(folder / "run.yaml"), folder / "out")
    starts = vllm.starts()
    again = pipeline.run(load_config(folder / "run.yaml"), folder / "out")
    assert first.summary["calls"] == again.summary["calls"] > 0 and again.summary["timing"]["calls_from_ledger"] == again.summary["calls"]
    assert len(starts) == 2 and vllm.starts() == starts and not any(runs(start["process"]) for start in starts)
    assert first.summary["models"] == {"inducer": "served:weights", "expert": "served:weights+polite", "scorer": "scripted:"}


# --- llama.cpp's real server


def test_llama_answers_chats_and_raw_prompts_many_at_once_the_same_again_and_after_a_kill(gguf: str) -> None:
    model = llama(gguf)
    chat = (Turn("user", "Say something about the number 3."),)
    drawn = Sampling(max_tokens=4, temperature=0.9, n=6)

    async def work() -> None:
        raw = (await model.generate(Generation("The capital of France is", GREEDY))).completions[0]
        assert raw.text.startswith(" Paris") and raw.logprob is not None and raw.logprob < 0 and not raw.finished
        assert "number" in (await model.generate(Generation(chat, Sampling(max_tokens=6, temperature=0.0)))).completions[0].text
        once, again = [await model.generate(Generation("My umbrella", drawn, seed=5)) for _ in range(2)]
        assert [c.text for c in once.completions] == [c.text for c in again.completions]
        assert len(once.completions) == 6 and len({c.text for c in once.completions}) > 1  # more than there are slots
        answers = await asyncio.gather(*(say(model, f"The number {i} is", i) for i in range(6)))
        assert all(answers)
        with pytest.raises(RequestError, match="context"):
            await say(model, "word " * 300)
        assert refused_without_key(logs()[-1])
        calls = [asyncio.create_task(say(model, f"The number {i} is", i, Sampling(max_tokens=16, temperature=0.8))) for i in range(4)]
        await asyncio.sleep(0.1)
        os.kill(server_pid(), signal.SIGKILL)
        assert all(await asyncio.gather(*calls))

    run(work, model)
    assert not runs(server_pid()) and logs()[-1].read_text("utf-8").count("guard: process") == 4  # two lives: is, ended


def refused_without_key(log: Path) -> bool:
    port = re.findall(r"--port (\d+)", log.read_text("utf-8"))[-1]
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models")
    with refused.value:
        return refused.value.code == 401


def test_llama_does_not_survive_a_kill_of_this_process(gguf: str) -> None:
    child = start_child(f"ModelConfig(model='served:{gguf}', serve=ServeConfig(slots=1, context=256, args=('--threads', 1)))")
    pid = server_pid()
    assert runs(pid)
    child.kill()
    child.wait()
    wait_until(lambda: not runs(pid))


def test_llama_says_when_the_file_is_damaged(gguf: str, tmp_path: Path) -> None:
    (tmp_path / "half.gguf").write_bytes(Path(gguf).read_bytes()[:3_000_000])
    message = failure(llama(str(tmp_path / "half.gguf")))
    assert "cannot read these weights" in message and str(logs()[0]) in message and "failed to load model" in message


def test_llama_cannot_score_and_says_so_without_a_start(gguf: str) -> None:
    model = llama(gguf)
    with pytest.raises(AccessError, match=r"cannot score; leave models\.scorer \(for 'value' --model\) at its default"):
        run(lambda: model.score(Scoring("a", "b")), model)
    assert not logs()


def test_without_llama_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some.gguf").write_bytes(b"GGUF weights")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, find=importlib.util.find_spec: None if name == "xllamacpp" else find(name))
    message = failure(llama(str(tmp_path / "some.gguf")), MissingExtraError)
    assert "pip install 'safer-instruct[serve]'" in message and "llama-server" in message
