"""A real browser for tests: Debian's Chromium, driven by Playwright. Without either the tests are skipped, with the command that helps."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from browsing import serious_findings

INSTALL = "apt-get install -y chromium"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A started browser (`playwright.sync_api.Browser`); as long as it lives an event loop runs in this thread, so no longer than a module."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip(f"no Chromium: {INSTALL}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])  # root has no sandbox; pages are our own
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and everything that it should not do.

    Attributes:
        page: Playwright's page.
        complaints: Console warnings and errors, uncaught exceptions, dialogs.
        requests: Addresses asked for, data and blob URLs left out.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def serious(self) -> list[str]:
        """See `serious_findings`."""
        return serious_findings(self.page)


@pytest.fixture
def watched(chromium: Any) -> Iterator[Watched]:
    """A fresh page of 1280 by 900 that is watched."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    found = Watched(context.new_page())
    page = found.page
    page.on("console", lambda message: found.complaints.append(f"{message.type}: {message.text}") if message.type in ("warning", "error") else None)
    page.on("pageerror", lambda error: found.complaints.append(f"exception: {error}"))
    page.on("dialog", lambda dialog: (found.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: None if request.url.startswith(("data:", "blob:")) else found.requests.append(request.url))
    yield found
    context.close()


@pytest.fixture
def new_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Makes pages, each with a browser profile of its own; the test fails for a console error or a request elsewhere."""
    contexts, complaints = [], []

    def make(**options: Any) -> Any:
        context = chromium.new_context(viewport={"width": 1280, "height": 860}, bypass_csp=False, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("response", lambda answer: complaints.append(f"{answer.status} from {answer.url}") if answer.status >= 400 else None)
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: complaints.append(f"request to {request.url}") if _is_elsewhere(request.url) else None)
        return page

    make.complaints = complaints  # type: ignore[attr-defined]
    yield make
    for context in contexts:
        context.close()
    assert complaints == []


def _is_elsewhere(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob", "about", "file") and parts.hostname not in ("127.0.0.1", "localhost")
