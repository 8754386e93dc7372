"""Export: what leaves a finished run, in the formats of those who read it."""

from __future__ import annotations

from safer_instruct.export.registry import FORMATS
from safer_instruct.export.rows import Options
from safer_instruct.export.splits import parse_splits
from safer_instruct.export.writing import Exported, export_pairs

__all__ = ["FORMATS", "Exported", "Options", "export_pairs", "parse_splits"]
