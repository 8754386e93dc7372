"""What browser tests ask of a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

AXE = Path(__file__).parent / "browser" / "vendor" / "axe.min.js"


def serious_findings(page: Any) -> list[str]:
    """What axe finds on the page as it stands, of serious or critical impact. Run by the debugger: the page's own policy stays."""
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("() => axe.run()")["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found if v["impact"] in ("serious", "critical")]
