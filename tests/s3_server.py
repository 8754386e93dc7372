"""A real S3 server on the loopback: moto's, in a process of its own.

with serve_s3() as server:
    server.create_bucket("lab")
    with server.in_environment(): ...
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PATIENCE_S = 240.0
KEY, SECRET = "AKIATESTONLYLOOPBACK", "loopback-secret-never-to-be-seen"


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What leads any S3 client there; nothing of the machine's own profile does."""
        none = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
        keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": self.url, "AWS_REGION": "us-east-1"}
        return {**none, **keys, "AWS_MAX_ATTEMPTS": "3"}

    def create_bucket(self, name: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=PATIENCE_S).close()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Know no keys at all."""
        self._ask_for_keys("0")
        try:
            yield
        finally:
            self._ask_for_keys("inf")

    def _ask_for_keys(self, after: str) -> None:
        asked = urllib.request.Request(f"{self.url}/moto-api/reset-auth", data=after.encode(), headers={"Content-Type": "text/plain"}, method="POST")
        urllib.request.urlopen(asked, timeout=PATIENCE_S).close()


@contextmanager
def serve_s3() -> Iterator[S3Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = S3Server(f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + PATIENCE_S
    try:
        while True:
            try:
                urllib.request.urlopen(f"{server.url}/moto-api/data.json", timeout=PATIENCE_S).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "the S3 server did not start"
                time.sleep(0.05)
        yield server
    finally:
        process.kill()
        process.wait()
