"""Filters: one small file each. To write one of your own, subclass `Filter` (docs/filters.md)."""

from safer_instruct.example import Example
from safer_instruct.filters.protocol import Filter, Finding

__all__ = ["Example", "Filter", "Finding"]
