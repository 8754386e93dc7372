"""The document as one HTML file: scripts and styles within, allowed by their hashes and nothing else.

No text of a corpus or a model ever becomes markup: what stands in the page is escaped by the template engine, what the charts draw
travels as JSON, and the page's policy forbids every script but ours, every request, and (where a browser knows trusted types)
turning any string into HTML.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from safer_instruct.report.document import Document, Figure
from safer_instruct.report.markdown import show
from safer_instruct.visible import visible

_SCRIPTS = ("vendor/echarts.min.js", "page.js", "charts.js")


def as_html(document: Document) -> str:
    """The whole page."""
    style = _file("page.css")
    scripts = [_file(name) for name in _SCRIPTS]
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_visible, trim_blocks=True, lstrip_blocks=True)
    environment.filters["show"] = show
    environment.tests["figure"] = lambda part: isinstance(part, Figure)
    return environment.from_string(_file("page.html")).render(
        document=document,
        policy=content_policy(style, scripts),
        style=Markup(style),  # noqa: S704 (our own file)
        scripts=[Markup(script) for script in scripts],  # noqa: S704
        data=Markup(as_script_data({part.id: {"kind": part.kind, **part.data} for s in document.sections for part in s.parts if isinstance(part, Figure)})),  # noqa: S704
        count=sum(isinstance(part, Figure) for section in document.sections for part in section.parts),
    )


def content_policy(style: str, scripts: list[str]) -> str:
    """The Content-Security-Policy: these inline texts, and nothing from anywhere."""
    return (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types default"
    )


def as_script_data(data: Any) -> str:
    """JSON that may stand in a script element: it cannot end the element, and hidden characters are marks."""
    text = json.dumps(_all_visible(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _all_visible(data: Any) -> Any:
    if isinstance(data, str):
        return visible(data)
    if isinstance(data, dict):
        return {visible(key): _all_visible(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_all_visible(value) for value in data]
    return data


def _visible(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _file(name: str) -> str:
    return resources.files("safer_instruct.report").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")
