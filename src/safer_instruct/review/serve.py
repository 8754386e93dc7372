"""The server process: a socket on the loopback, an address per annotator, and a browser."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from safer_instruct import rundir
from safer_instruct.domain import Domain, load_domain, shipped_domains
from safer_instruct.errors import ConfigError, RunDirectoryError
from safer_instruct.extras import require
from safer_instruct.review.desk import Plan
from safer_instruct.review.desks import Desks
from safer_instruct.review.index import ensure_index
from safer_instruct.review.store import Store
from safer_instruct.settings.review import ReviewConfig

PORT = 8737


def plan_review(path: Path, domain: str | None = None, *, blind: bool = False, overlap: float = 0.1, seed: int = 0) -> Plan:
    """What readers of the run in `path` are asked: by `domain`, or the domain that the run was made with.

    A run does not remember where its domain file stood: it is looked for in this folder and in the run directory. Where
    it is not found, the questions are the default ones.

    Raises:
        ConfigError: `domain` is given and there is none such.
    """
    found = load_domain(domain) if domain else _domain_of(path)
    guidelines = {name: {"definition": c.definition, "guideline": c.guideline} for name, c in found.categories.items()} if found else {}
    return Plan(found.review if found else ReviewConfig(), guidelines, blind, overlap, seed)


def serve_review(
    path: Path, plan: Plan, names: Sequence[str], *, port: int | None, opened: Callable[[str, str], None], report: Callable[[int, int], None], browser: bool
) -> None:
    """Serve the page until the process is interrupted.

    Args:
        path: The run directory; while its run is not finished, the page shows how far it is.
        plan: From `plan_review`.
        names: The annotators.
        port: To listen on; None for the usual one, or any other where that is taken.
        opened: Told each annotator's name and address, once the server answers.
        report: Told how far the index is while it is made.
        browser: Whether to open the first address in one.

    Raises:
        MissingExtraError: The extra `review` is not installed.
        RunDirectoryError: There is no such run, or the port is taken.
    """
    uvicorn = require("uvicorn", extra="review", purpose="the review app")
    require("starlette", extra="review", purpose="the review app")
    from safer_instruct.review.app import make_app
    from safer_instruct.review.guard import Doors

    if not path.is_dir():
        raise RunDirectoryError(f"{path} is no folder; give the directory of a run")
    finished = (path / rundir.SUMMARY).is_file()
    if finished:
        ensure_index(path, report)
    listener = _listen(port)
    bound = int(listener.getsockname()[1])
    store = Store(path)
    desks = Desks(path, plan)
    try:
        if finished:
            desks.now()
        doors = Doors(store)
        app = make_app(path, desks, doors, bound)
        addresses = [(name, f"http://127.0.0.1:{bound}/enter?token={doors.token_for(name)}") for name in names]
        for name, address in addresses:
            opened(name, address)
        if browser:
            webbrowser.open(addresses[0][1])
        settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=3)
        uvicorn.Server(settings).run(sockets=[listener])
    finally:
        desks.close()
        store.close()


def _listen(port: int | None) -> socket.socket:
    """A socket that listens on the loopback; connections made from now on wait until they are answered."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", PORT if port is None else port))
    except OSError as exc:
        if port is not None:
            listener.close()
            raise RunDirectoryError(f"port {port} cannot be listened on ({exc.strerror}); choose another --port") from exc
        listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def _domain_of(path: Path) -> Domain | None:
    try:
        recorded = yaml.safe_load((path / rundir.RUN).read_text(encoding="utf-8"))
        name = recorded["config"]["domain"]
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return None
    if name in shipped_domains():
        return load_domain(name)
    for folder in (Path(), path):
        if (folder / str(name)).is_file():
            try:
                return load_domain(str(name), folder)
            except ConfigError:
                return None
    return None
