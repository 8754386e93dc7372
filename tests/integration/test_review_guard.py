"""Who gets an answer from the review server: asked by a bare client, over a real socket."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from reviewing import Server, write_run

from safer_instruct.review.store import read_labels

pytest.importorskip("starlette", reason="needs the extra review")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(write_run(tmp_path / "run", [("Where is it?", "I will look.", "Look yourself.")]), "ada")
    yield started
    started.kill()


def ask(server: Server, path: str, *, method: str = "GET", body: str | None = None, **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers.get("set-cookie", "").partition(";")[0]
    finally:
        connection.close()


def enter(server: Server, name: str = "ada") -> str:
    return ask(server, "/enter?" + server.addresses[name].partition("?")[2])[2]


@pytest.mark.parametrize("path", ["/", "/api/about", "/api/step", "/api/list", "/api/live", "/api/agreement", "/static/main.js"])
def test_nothing_is_said_without_a_session(server: Server, path: str) -> None:
    assert ask(server, path)[0] == 401
    assert ask(server, path, cookie=f"safer-instruct-{server.port}=guessed")[0] == 401


def test_an_address_opens_once(server: Server) -> None:
    cookie = enter(server)
    assert ask(server, "/api/about", cookie=cookie)[0] == 200
    assert ask(server, "/enter?" + server.addresses["ada"].partition("?")[2])[0] == 403
    assert ask(server, "/enter?token=guessed")[0] == 403


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1", "127.0.0.1:1", "localhost.example.org:80", ""])
def test_another_host_is_refused(server: Server, host: str) -> None:
    assert ask(server, "/api/about", cookie=enter(server), host=host)[0] == 421


def test_only_this_origin_may_change_anything(server: Server, tmp_path: Path) -> None:
    cookie, here = enter(server), f"http://127.0.0.1:{server.port}"
    item = json.loads(ask(server, "/api/step", cookie=cookie)[1])["item"]
    body = json.dumps({"key": "k" * 16, "digest": item["digest"], "decision": "accept"})

    def say(**headers: str) -> int:
        return ask(server, f"/api/label?id={item['id']}", method="POST", body=body, cookie=cookie, **headers)[0]

    assert say(content_type="application/json") == 403
    assert say(content_type="application/json", origin="http://example.org") == 403
    assert say(content_type="application/json", origin="null") == 403
    assert say(content_type="application/json", origin=here, sec_fetch_site="cross-site") == 403
    assert say(content_type="text/plain", origin=here) == 415
    assert list(read_labels(tmp_path / "run")) == []
    assert say(content_type="application/json", origin=here) == 200
    assert [label.decision for _, _, label in read_labels(tmp_path / "run")] == ["accept"]


def test_a_page_that_was_opened_for_another_annotator_is_refused_and_stores_nothing(tmp_path: Path) -> None:
    server = Server(write_run(tmp_path / "run", [("Where is it?", "I will look.", "Look yourself.")]), "ada", "zo\u00eb")
    try:
        cookie, here = enter(server, "zo\u00eb"), f"http://127.0.0.1:{server.port}"
        item = json.loads(ask(server, "/api/step", cookie=cookie)[1])["item"]
        body = json.dumps({"key": "k" * 16, "digest": item["digest"], "decision": "accept"})

        def say(reader: str) -> tuple[int, str]:
            headers = {"content_type": "application/json", "origin": here, "cookie": cookie, "reads_as": quote(reader)}
            return ask(server, f"/api/label?id={item['id']}", method="POST", body=body, **headers)[:2]

        status, said = say("ada")
        assert status == 409 and said.startswith("this browser reads as zo\u00eb now, and this page was opened for ada, so nothing is stored from it")
        assert ask(server, "/api/step", cookie=cookie, reads_as="ada")[0] == 409
        assert list(read_labels(tmp_path / "run")) == []
        assert say("zo\u00eb")[0] == 200
        assert [name for name, _, _ in read_labels(tmp_path / "run")] == ["zo\u00eb"]
    finally:
        server.kill()


def test_a_run_that_was_made_again_is_read_anew_and_a_page_of_the_earlier_one_is_refused(server: Server, tmp_path: Path) -> None:
    cookie, here, run = enter(server), f"http://127.0.0.1:{server.port}", tmp_path / "run"
    about, item = (json.loads(ask(server, f"/api/{of}", cookie=cookie)[1]) for of in ("about", "step"))
    write_run(run, [("Where is it?", "I will look at once.", "Look yourself."), ("When?", "Today.", "Whenever.")])
    assert json.loads(ask(server, "/api/list", cookie=cookie)[1])["total"] == 2
    body = json.dumps({"key": "k" * 16, "digest": item["item"]["digest"], "decision": "accept"})
    headers = {"content_type": "application/json", "origin": here, "cookie": cookie}
    again = (409, '{"error":"the run was made again since this page was opened: reload it"}')
    assert ask(server, "/api/label?id=x000", method="POST", body=body, **headers)[:2] == again
    assert ask(server, "/api/step", cookie=cookie, of_run=about["made"])[:2] == again
    now = json.loads(ask(server, "/api/about", cookie=cookie)[1])
    assert now["made"] != about["made"] and [facet["count"] for facet in now["facets"]] == [2]
    (run / "summary.json").unlink()
    status, said, _ = ask(server, "/api/step", cookie=cookie)
    assert status == 409 and "nothing can be read or decided here for now" in said and "holds no finished run" in said
    assert json.loads(ask(server, "/api/about", cookie=cookie)[1]) == {"annotator": "ada", "unfinished": True}
    assert list(read_labels(run)) == []


@pytest.mark.parametrize("blank", ["", "   ", "\n\t", "\u200b \u00a0"])
@pytest.mark.parametrize("side", ["prompt", "chosen", "rejected"])
def test_a_correction_that_leaves_nothing_to_read_is_refused(server: Server, tmp_path: Path, side: str, blank: str) -> None:
    cookie, here = enter(server), f"http://127.0.0.1:{server.port}"
    item = json.loads(ask(server, "/api/step", cookie=cookie)[1])["item"]
    texts = {"prompt": "Where is it?", "chosen": "I will look at once.", "rejected": "Look yourself."}
    body = {"digest": item["digest"], "decision": "accept", "edit": texts | {side: blank}}
    headers = {"content_type": "application/json", "origin": here, "cookie": cookie}
    status, said, _ = ask(server, f"/api/label?id={item['id']}", method="POST", body=json.dumps({"key": "blank click", **body}), **headers)
    refused = f"the corrected {side} text has nothing to read in it, so nothing is stored: write one, or reject the pair"
    assert (status, json.loads(said)) == (422, {"error": refused}) and list(read_labels(tmp_path / "run")) == []
    body["edit"] = texts | {"rejected": f"{texts['chosen']} "}
    status, said, _ = ask(server, f"/api/label?id={item['id']}", method="POST", body=json.dumps({"key": "same click", **body}), **headers)
    assert status == 422 and "both sides are the same text" in json.loads(said)["error"] and list(read_labels(tmp_path / "run")) == []
    body["edit"] = texts
    assert ask(server, f"/api/label?id={item['id']}", method="POST", body=json.dumps({"key": "other click", **body}), **headers)[0] == 200
    assert [label.edit for _, _, label in read_labels(tmp_path / "run")] == [{"chosen": "I will look at once."}]
