"""Tests that take minutes where the embedded model computes in float32, which is where the processor adds int8 up wrongly."""

from __future__ import annotations

import os

import pytest

from safer_instruct.models.arithmetic import arithmetic

needs_a_quick_processor = pytest.mark.skipif(
    arithmetic() != "int8" and not os.environ.get("SAFER_INSTRUCT_ALL_TESTS"), reason="takes minutes without AVX-512 VNNI; SAFER_INSTRUCT_ALL_TESTS=1 runs it"
)
