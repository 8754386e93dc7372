"""docs/architecture.svg, and the table in docs/architecture.md: drawn from the imports."""

from __future__ import annotations

import textwrap
from html import escape

from rooms import LAYERS, Room, direct, module_imports, room_imports

FLOW = (
    ("file", "a row, a page, a document", ""),
    ("read", "SourceText, or a BadRow with the reason", "sources.read_source"),
    ("collect", "Example: text, category; mended, once", "collect.entering"),
    ("induce", "candidates: what may have asked for it", "stages.induce.induce"),
    ("filter", "prompt: the likeliest that passes", "stages.filter.choose"),
    ("respond", "drafts, as the guideline asks", "stages.respond.respond"),
    ("verify", "chosen, margin; or dropped with reasons", "stages.verify.answer"),
    ("write", "pairs.jsonl, examples.parquet, the card", "pipeline.write_out"),
    ("export", "the format that a trainer reads", "export.writing.export_pairs"),
    ("train", "an adapter by SFT, then DPO", "training.run.train_preferences"),
    ("evaluate", "more harmless than before? how surely?", "evaluation.run.evaluate"),
)
"""The way of one text: step, what it is then, and the function that does it. What is said of a room is said in rooms.py."""
_WIDTH, _LEFT, _BAND, _BOX, _GAP = 1360, 128, 140, 98, 14
_FLOW_TOP = len(LAYERS) * _BAND + 96
_STYLE = """
text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2933}
.title{font-size:20px;font-weight:600}.layer{font-size:14px;font-weight:600;fill:#486581}.room{font-size:15px;font-weight:600}
.what{font-size:12px;fill:#334e68}.files{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:10px;fill:#627d98}
.box{fill:#ffffff;stroke:#829ab1;stroke-width:1.2}.edge{fill:none;stroke:#d9822b;stroke-width:1.6;marker-end:url(#tip)}
.step{fill:#e3f8ff;stroke:#2bb0ed;stroke-width:1.2}.way{fill:none;stroke:#2bb0ed;stroke-width:2;marker-end:url(#way)}
"""


def picture() -> str:
    """The SVG: layers from the top down, rooms in them, an arrow for every import that no other one implies; below, the way of one text.

    Raises:
        ValueError: The imports do not fit the rooms.
    """
    places = {room.name: _place(level, at, len(rooms)) for level, (_, rooms) in enumerate(LAYERS) for at, room in enumerate(rooms)}
    parts = [_head(), '<text class="title" x="24" y="34">Rooms: each imports only from below, and from its neighbours without a circle</text>']
    for level, (title, _) in enumerate(LAYERS):
        top = 52 + level * _BAND
        fill = "#f0f4f8" if level % 2 else "#f7fafc"
        parts.append(f'<rect x="12" y="{top}" width="{_WIDTH - 24}" height="{_BAND}" fill="{fill}"/>')
        parts += _lines(textwrap.wrap(title, 14), "layer", 24, top + 62, 18)
    parts += [_edge(places, name, target) for name, targets in direct(room_imports(module_imports())).items() for target in targets]
    for _, rooms in LAYERS:
        parts += [piece for room in rooms for piece in _box(room, *places[room.name])]
    return "\n".join([*parts, *_way(), "</svg>"]) + "\n"


def table() -> str:
    """Every room with what it holds, its purpose, and what it imports from."""
    imports = room_imports(module_imports())
    needs = direct(imports)
    lines = ["| Layer | Room | Holds | Purpose | Imports from |", "|---|---|---|---|---|"]
    for title, rooms in LAYERS:
        for room in rooms:
            holds = ", ".join(f"`{held if held.endswith('/') else f'{held}.py'}`" for held in room.holds)
            what = room.what.replace("|", "\\|")
            lines.append(f"| {title} | **{room.name}** | {holds} | {what} | {', '.join(needs[room.name]) or 'nothing'} |")
    return "\n".join(lines)


def _place(level: int, at: int, count: int) -> tuple[float, float, float]:
    """Left, top and width of a box."""
    width = min(380.0, (_WIDTH - _LEFT - 24 - _GAP * (count - 1)) / count)
    margin = (_WIDTH - _LEFT - 24 - count * width - _GAP * (count - 1)) / 2
    return _LEFT + margin + at * (width + _GAP), 52 + level * _BAND + (_BAND - _BOX) / 2, width


def _box(room: Room, x: float, y: float, width: float) -> list[str]:
    holds = [held if held.endswith("/") else f"{held}.py" for held in room.holds]
    files = textwrap.wrap(" ".join(holds), int((width - 16) / 6.2), break_on_hyphens=False)
    if len(files) > 2:
        files = [files[0], textwrap.shorten(" ".join(files[1:]), int((width - 16) / 6.2), placeholder=" ...")]
    what = textwrap.wrap(room.what, int((width - 16) / 6.6))
    return [
        f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BOX}" rx="6"/>',
        *_lines([room.name], "room", x + 10, y + 22, 0),
        *_lines(what, "what", x + 10, y + 41, 15),
        *_lines(files, "files", x + 10, y + _BOX - 10 - 13 * (len(files) - 1), 13),
    ]


def _edge(places: dict[str, tuple[float, float, float]], name: str, target: str) -> str:
    """From the lower edge of a box to the upper one of another; among neighbours from side to side, or in an arc above."""
    (x, y, width), (to_x, to_y, to_width) = places[name], places[target]
    middle, to_middle = x + width / 2, to_x + to_width / 2
    if y == to_y:
        right = to_x > x
        if abs(to_x - x) <= max(width, to_width) + _GAP + 1:
            start, end = (x + width, to_x) if right else (x, to_x + to_width)
            path = f"M{start:.1f} {y + _BOX / 2:.1f} L{end:.1f} {y + _BOX / 2:.1f}"
        else:
            path = f"M{middle:.1f} {y:.1f} C{middle:.1f} {y - 24:.1f} {to_middle:.1f} {y - 24:.1f} {to_middle:.1f} {y - 1:.1f}"
    else:
        lean = max(-0.32, min(0.32, (to_middle - middle) / _WIDTH))  # arrows of one box leave and arrive side by side
        start, end = middle + lean * width, to_middle - lean * to_width
        bend = (to_y - y - _BOX) / 2
        path = f"M{start:.1f} {y + _BOX:.1f} C{start:.1f} {y + _BOX + bend:.1f} {end:.1f} {to_y - bend:.1f} {end:.1f} {to_y - 1:.1f}"
    return f'<path class="edge" d="{path}"><title>{escape(name)} imports from {escape(target)}</title></path>'


def _way() -> list[str]:
    """The steps in two rows."""
    parts = [f'<text class="title" x="24" y="{_FLOW_TOP}">The way of one text</text>']
    in_row = (len(FLOW) + 1) // 2
    width, height = (_WIDTH - 48 - 26 * (in_row - 1)) / in_row, 92
    for number, (step, becomes, function) in enumerate(FLOW):
        x, y = 24 + (number % in_row) * (width + 26), _FLOW_TOP + 18 + (number // in_row) * (height + 26)
        parts.append(f'<rect class="step" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="6"/>')
        parts += _lines([f"{number}. {step}" if number else step], "room", x + 10, y + 22, 0)
        parts += _lines(textwrap.wrap(becomes, int((width - 16) / 6.6)), "what", x + 10, y + 41, 15)
        parts += _lines([function], "files", x + 10, y + height - 10, 0)
        if number % in_row:
            parts.append(f'<path class="way" d="M{x - 26:.1f} {y + height / 2:.1f} L{x - 2:.1f} {y + height / 2:.1f}"/>')
    return parts


def _lines(lines: list[str], style: str, x: float, y: float, step: float) -> list[str]:
    return [f'<text class="{style}" x="{x:.1f}" y="{y + step * i:.1f}">{escape(line)}</text>' for i, line in enumerate(lines)]


def _head() -> str:
    height = _FLOW_TOP + 18 + 2 * (92 + 26)
    size = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    tips = "".join(
        f'<marker id="{name}" {size}><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>' for name, colour in (("tip", "#d9822b"), ("way", "#2bb0ed"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Rooms of the package, and the way of one text">\n'
        f"<style>{_STYLE}</style><defs>{tips}</defs>\n"
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    )
