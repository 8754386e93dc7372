"""Stands in for the program `vllm` where there is no GPU: takes its command line, and serves what a client needs of it.

It answers with the model's name, the seed and the prompt. What it shall do amiss is said by `--amiss` and by prompts:

    --amiss no-gpu      ends as vLLM does on a machine without a GPU
    --amiss slow        is not ready for an hour
    --amiss port-taken  finds its port taken at the first start
    --amiss stubborn    takes no notice of SIGTERM
    --amiss broken      ends with an error at every start but the first
    'crash'             in a prompt ends it; 'crash once' only in its first life
    'sick'              in a prompt: from then on it is not healthy

Every start adds a line to `.starts` in the model folder: its process, that of its worker, and its arguments.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    args: argparse.Namespace
    life = 0
    healthy = True

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200 if self.healthy else 503, {})
        elif self.allowed():
            names = [self.args.served_model_name, *(module.partition("=")[0] for module in self.args.lora_modules)]
            self.answer(200, {"data": [{"id": name} for name in names]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        prompt = body.get("prompt") or body["messages"][-1]["content"]
        if "crash" in prompt and ("once" not in prompt or self.life == 1):
            print("stand-in: a request was too much for me", flush=True)
            os._exit(7)
        if "sick" in prompt:
            type(self).healthy = False
        text = f"{body['model']} {body.get('seed')}: {prompt[-60:]}"
        said = {"message": {"content": text}} if "messages" in body else {"text": text}
        choices: list[dict[str, Any]] = [{"index": i, "finish_reason": "stop", **said} for i in range(body.get("n", 1))]
        if body.get("echo"):
            words = re.findall(r"\s*\S+", prompt)
            offsets = [len("".join(words[:i])) for i in range(len(words))]
            choices[0] = {"text": prompt, "logprobs": {"tokens": words, "token_logprobs": [None, *[-0.5] * (len(words) - 1)], "text_offset": offsets}}
        self.answer(200, {"choices": choices, "usage": {"prompt_tokens": len(prompt.split()), "completion_tokens": 1}})

    def allowed(self) -> bool:
        if self.headers["Authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}":
            return True
        self.answer(401, {"error": "Unauthorized"})
        return False

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--lora-modules", nargs="+", default=[])
    parser.add_argument("--amiss", default="")
    for flag in ("--generation-config", "--max-loras", "--max-lora-rank", "--max-model-len", "--tensor-parallel-size", "--max-num-seqs"):
        parser.add_argument(flag)
    for flag in ("--enable-lora", "--disable-uvicorn-access-log"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args()
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    with (args.model / ".starts").open("a+", encoding="utf-8") as file:
        file.write(json.dumps({"process": os.getpid(), "worker": worker.pid, "args": sys.argv[1:]}) + "\n")
        file.seek(0)
        Handler.args, Handler.life = args, len(file.readlines())
    if args.amiss == "no-gpu":
        raise RuntimeError("Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`")
    if args.amiss == "port-taken" and Handler.life == 1:
        raise OSError(98, "Address already in use")
    if args.amiss == "broken" and Handler.life > 1:
        raise RuntimeError(f"the secret is {os.environ['VLLM_API_KEY']}")
    if args.amiss == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = Server((args.host, args.port), Handler, bind_and_activate=False)
    server.server_bind()
    print("stand-in: loading", flush=True)
    time.sleep(3600 if args.amiss == "slow" else 0.2)
    server.server_activate()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
