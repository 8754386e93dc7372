"""Contrast twins: harmless instructions that look like ones of the set, so that it teaches the boundary and not refusal.

Over-refusal of harmless prompts that look unsafe is what XSTest measures (Röttger et al. 2024), whose contrast prompts go the
other way round; contrast sets as such: Gardner et al. 2020. Here each twin carries a pair whose chosen response helps and whose
rejected one declines for no reason.
"""
