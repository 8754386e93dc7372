"""What browser tests ask of a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

AXE = Path(__file__).parent / "browser" / "vendor" / "axe.min.js"


def serious_findings(page: Any) -> list[str]:
    """Findings of axe on the page as it stands that are serious or critical, as rule and elements.

    Run by the debugger, past the page's own policy, which lets no script of ours in.
    """
    script = f"{AXE.read_text('utf-8')};axe.run(document,{{resultTypes:['violations']}})"
    debugger = page.context.new_cdp_session(page)
    found = debugger.send("Runtime.evaluate", {"expression": script, "awaitPromise": True, "returnByValue": True})
    violations = found["result"]["value"]["violations"]
    return [f"{v['id']}: {[node['html'][:150] for node in v['nodes'][:3]]}" for v in violations if v["impact"] in ("serious", "critical")]
