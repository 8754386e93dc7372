"""What all tests share: property tests look for wrong answers, not for slow machines."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
