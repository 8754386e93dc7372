"""The documentation site, built by `make docs`: Sphinx and MyST over the same Markdown that one reads on GitHub.

Pages keep their names and their relative links, so nothing here is written for the site alone. The navigation is docs/index.md: its
headings are the captions, its bullets the pages, in that order. A page that stands nowhere in it is an error, as is every broken link.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "Safer-Instruct"
author = "The Safer-Instruct contributors"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "bench/README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
exclude_patterns = [".*", "src", "tests", "runs", "site", "examples", "deploy", "tools", "build", "dist"]
myst_heading_anchors = 4  # as GitHub makes them
html_theme = "furo"
html_title = project
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
suppress_warnings = ["myst.header"]  # reference pages begin with a comment
_BULLET = re.compile(r"^- \[([^\]]+)\]\(([\w./-]+\.md)\)")
_FOLDER = re.compile(r"\[([^\]]+)\]\((\.\.?/[\w./-]+)\)")


def setup(app: Sphinx) -> None:
    """Sphinx calls it."""
    app.connect("source-read", _with_navigation)
    app.connect("source-read", _without_folders)
    app.connect("build-finished", _front_door)


def _with_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """The sidebar, from the headings and bullets of the index."""
    if name != root_doc:
        return
    captions: dict[str, list[str]] = {}
    caption = ""
    for line in source[0].splitlines():
        if line.startswith("## "):
            caption = line.removeprefix("## ")
        elif bullet := _BULLET.match(line):
            captions.setdefault(caption, []).append(f"{bullet[1]} <{bullet[2].removesuffix('.md')}>")
    for title, pages in captions.items():
        source[0] += "\n".join(["\n```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```\n"])


def _without_folders(app: Sphinx, name: str, source: list[str]) -> None:
    """A link to a folder has nothing to lead to on the site: only its text stays. A file that there is not remains an error."""
    here = (ROOT / name).parent
    source[0] = _FOLDER.sub(lambda link: f"{link[1]}" if (here / link[2]).is_dir() else link[0], source[0])


def _front_door(app: Sphinx, failed: Exception | None) -> None:
    """The site's address without a page leads to the index."""
    if failed is None:
        leads = '<meta http-equiv="refresh" content="0; url=docs/index.html">'
        Path(app.outdir, "index.html").write_text(f'<!doctype html><meta charset="utf-8">{leads}<title>{project}</title>\n', "utf-8")
