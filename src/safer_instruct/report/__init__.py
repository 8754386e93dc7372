"""The report on a finished run: one HTML file that needs nothing else, and one of Markdown."""

from __future__ import annotations

from safer_instruct.report.build import write_report

__all__ = ["write_report"]
