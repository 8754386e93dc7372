"""Addresses and answers of the review app (Starlette). All it says is JSON or one of the page's own files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from safer_instruct import progress, rundir
from safer_instruct.errors import RunDirectoryError
from safer_instruct.review.desk import Change, Desk, Stale, UnusableCorrection
from safer_instruct.review.desks import Desks
from safer_instruct.review.guard import Doors, Guard, cookie_name
from safer_instruct.review.queue import Filters
from safer_instruct.review.store import SESSION_S

_STATIC = Path(str(resources.files("safer_instruct.review") / "static"))
_STATES = ("open", "accept", "reject", "skip", "done", "any")
_MADE = "of-run"  # the header in which the page says of which run it is
Handler = Callable[[Request], Awaitable[Response]]


def make_app(path: Path, desks: Desks, doors: Doors, port: int) -> Guard:
    """The app for the run in `path`, guarded.

    Args:
        path: The run directory.
        desks: Of its run; while that is not finished, only the page about the run has something to show.
        doors: Who may come in.
        port: That it will listen on, for the host check.
    """
    routes = [
        Route("/enter", _entry(doors, port)),
        Route("/", _page),
        Route("/favicon.ico", _icon),  # browsers ask for it before they have read the page that names another
        Mount("/static", StaticFiles(directory=_STATIC)),
        Route("/api/live", _live(path)),
        *_desk_routes(desks),
    ]
    answers: dict[Any, Any] = {ValidationError: _invalid, UnusableCorrection: _unusable, Stale: _stale, RunDirectoryError: _unreadable}
    return Guard(Starlette(routes=routes, exception_handlers=answers), doors, port)


def _desk_routes(desks: Desks) -> list[Route]:
    async def about(request: Request) -> Response:
        try:
            return await _answer(desks, request, lambda desk: desk.about(*request.scope["annotator"]))
        except RunDirectoryError:
            if (desks.path / rundir.SUMMARY).is_file():
                raise
            return JSONResponse({"annotator": request.scope["annotator"][1], "unfinished": True})

    async def step(request: Request) -> Response:
        query = request.query_params
        after, back = query.get("after"), query.get("back") == "1"
        return await _answer(desks, request, lambda desk: desk.step(_number(request), _filters(request), after, back=back))

    async def listed(request: Request) -> Response:
        return await _answer(desks, request, lambda desk: desk.listed(_number(request), _filters(request), request.query_params.get("after")))

    async def item(request: Request) -> Response:
        return await _answer(desks, request, lambda desk: desk.item(_number(request), request.query_params.get("id", "")))

    async def say(request: Request) -> Response:
        change = Change.model_validate_json(await request.body())
        return await _answer(desks, request, lambda desk: desk.say(_number(request), request.query_params.get("id", ""), change))

    async def undo(request: Request) -> Response:
        change = Change.model_validate_json(await request.body())
        return await _answer(desks, request, lambda desk: desk.undo(_number(request), change.key))

    async def agreement(request: Request) -> Response:
        return await _answer(desks, request, lambda desk: desk.agreement())

    return [
        Route("/api/about", about),
        Route("/api/step", step),
        Route("/api/list", listed),
        Route("/api/item", item),
        Route("/api/label", say, methods=["POST"]),
        Route("/api/undo", undo, methods=["POST"]),
        Route("/api/agreement", agreement),
    ]


async def _answer(desks: Desks, request: Request, work: Callable[[Desk], Any]) -> Response:
    """What `work` gives at the desk of the run as it stands, made in a thread: it reads files and waits for the disk."""

    def at_desk() -> Any:
        desk = desks.now()
        if request.headers.get(_MADE, desk.made) != desk.made:
            raise Stale
        return work(desk)

    found = await run_in_threadpool(at_desk)
    return JSONResponse({"error": "the run has no such example"}, 404) if found is None else JSONResponse(found)


def _entry(doors: Doors, port: int) -> Handler:
    async def enter(request: Request) -> Response:
        secret = doors.enter(request.query_params.get("token", ""))
        if secret is None:
            return PlainTextResponse("this address was used already, or never was one: start 'safer-instruct review' again for a new one", 403)
        # A page that goes on by itself, no redirect: a strict cookie is not sent where another program's link led here.
        page = '<!doctype html><title>Opening the review</title><meta http-equiv="refresh" content="0;url=/">'
        response = Response(page, media_type="text/html")
        response.set_cookie(cookie_name(port), secret, max_age=int(SESSION_S), httponly=True, samesite="strict", path="/")
        return response

    return enter


async def _icon(_: Request) -> Response:
    return FileResponse(_STATIC / "icon.svg", media_type="image/svg+xml")


async def _page(request: Request) -> Response:
    return Response((_STATIC / "index.html").read_bytes(), media_type="text/html")


def _live(path: Path) -> Handler:
    async def live(request: Request) -> Response:
        summary = rundir.read_summary(path) if (path / rundir.SUMMARY).is_file() else None
        return JSONResponse({"progress": progress.read_progress(path), "summary": summary})

    return live


async def _invalid(request: Request, exc: Exception) -> Response:
    errors = exc.errors(include_input=False, include_url=False) if isinstance(exc, ValidationError) else []
    said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors[:3])
    return JSONResponse({"error": said}, 422)


async def _unusable(request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": str(exc)}, 422)


async def _stale(request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": "the run was made again since this page was opened: reload it"}, 409)


async def _unreadable(request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": f"nothing can be read or decided here for now: {exc}"}, 409)


def _number(request: Request) -> int:
    number: int = request.scope["annotator"][0]
    return number


def _filters(request: Request) -> Filters:
    query = request.query_params
    state: Any = query.get("state", "open")
    return Filters(query.get("category", ""), query.get("outcome", "pair"), state if state in _STATES else "open", query.get("search", "")[:200])
