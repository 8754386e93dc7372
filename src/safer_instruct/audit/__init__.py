"""Pair audit: what is wrong with a set of preference pairs, ours or anybody's, and what to do about it."""

from safer_instruct.audit.columns import Columns
from safer_instruct.audit.finding import Finding, Level
from safer_instruct.audit.reading import PairSet, read_set
from safer_instruct.audit.run import audit_set

__all__ = ["Columns", "Finding", "Level", "PairSet", "audit_set", "read_set"]
