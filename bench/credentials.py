"""Secrets against labels, beside detect-secrets where it is installed.

    python bench/credentials.py [--errors]       pip install detect-secrets    for the comparison

The keys are made up here, in the shape of real ones, by a seeded generator.
"""

from __future__ import annotations

import base64
import random
import string
import sys
import time
from collections.abc import Callable

from safer_instruct.detect.secrets import find_secrets

RNG = random.Random(3)


def key(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(RNG.choice(alphabet) for _ in range(length))


def jwt() -> str:
    return ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"1234567890","n":1}', RNG.randbytes(32))
    )


UPPER = string.ascii_uppercase + string.digits
SECRET = [
    *(f"My key is {prefix}{key(16, UPPER)}, why does it fail?" for prefix in ("AKIA", "ASIA")),
    f"git clone with ghp_{key(36)}",
    f"token: gho_{key(36)}",
    f"glpat-{key(20)} does not work",
    "xoxb-" + f"{key(12, string.digits)}-{key(12, string.digits)}-{key(24)}",
    f"AIza{key(35)}",
    f"export OPENAI_API_KEY=sk-proj-{key(48)}",
    f"use sk-ant-{key(40)} here",
    f"sk_live_{key(24)}",
    f"HF_TOKEN=hf_{key(34)}",
    f"//registry/:_authToken=npm_{key(36)}",
    f"SG.{key(22)}.{key(43)}",
    f"Authorization: Bearer {key(40)}",
    f"cookie: {jwt()}",
    "-----BEGIN RSA PRIVATE KEY-----\n" + key(64),
    "-----BEGIN OPENSSH PRIVATE KEY-----\n" + key(64),
    "-----BEGIN PRIVATE KEY-----",
    f'password = "{key(12)}7x"',
    f"DB_PASSWORD={key(14)}9q",
    f"api_key: '{key(32, string.hexdigits)}4f'",
    f'{{"client_secret": "{key(30)}1z"}}',
    f"postgres://shop:{key(10)}8k@db.internal:5432/shop",
    f"aws_secret_access_key = {key(40)}",
]
PLAIN = [
    "What is a JWT, and why does it start with eyJ?",
    'api_key = "your-api-key"',
    "password: hunter",
    "Set password=<your password> in the file.",
    "token = os.environ['TOKEN']",
    "My password is wrong, what do I do?",
    "The secret: cook it slowly.",
    "The key to success: patience, patience.",
    "secret_key = config.get('secret_key')",
    "Replace sk-xxxxxxxxxxxxxxxxxxxxxxxx with your key.",
    "Explain AKIAIOSFODNN7EXAMPLE in the manual.",
    "-----BEGIN PUBLIC KEY-----",
    "sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "commit 3f2504e04f8911d39a0c0305e82c3301",
    "uuid 123e4567-e89b-12d3-a456-426614174000",
    "http://user:password@example.com is bad style",
    "https://example.com/a?token=abc",
    "def login(password: str, token: Optional[str] = None): ...",
    "risk-averse sk-learn users",
    "Write a story about a secret key and a token of love.",
    "Base64 of hello is aGVsbG8=",
    "pwd prints the folder; passwd: changes a password.",
    "password=********",
    "What does API key mean?",
]


def main() -> None:
    print(f"{len(SECRET)} texts with a secret, {len(PLAIN)} without\n{'':<16} precision  recall  us/text")
    report("ours", lambda text: bool(find_secrets(text)))
    try:
        from detect_secrets.core.scan import scan_line
        from detect_secrets.settings import default_settings
    except ImportError:
        return
    with default_settings():
        report("detect-secrets", lambda text: any(True for line in text.splitlines() for _ in scan_line(line)))


def report(name: str, find: Callable[[str], bool]) -> None:
    start = time.process_time()
    found, false = [find(text) for text in SECRET], [find(text) for text in PLAIN]
    took = (time.process_time() - start) / (len(SECRET) + len(PLAIN)) * 1e6
    print(f"{name:<16} {sum(found) / max(1, sum(found) + sum(false)):9.3f}  {sum(found) / len(SECRET):6.3f}  {took:7.1f}")
    if "--errors" in sys.argv:
        for texts, hits, wanted in ((SECRET, found, True), (PLAIN, false, False)):
            for text, hit in zip(texts, hits, strict=True):
                if hit != wanted:
                    print("   ", "found" if hit else "missed", repr(text))


if __name__ == "__main__":
    main()
