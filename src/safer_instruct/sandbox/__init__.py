"""Other people's programs, run where they can do little harm: no network, no keys, bounded time, memory, files and output."""

from safer_instruct.sandbox.isolation import FULL, NETWORK_ONLY, Isolation
from safer_instruct.sandbox.run import Limits, Ran, run_program, strictest_isolation

__all__ = ["FULL", "NETWORK_ONLY", "Isolation", "Limits", "Ran", "run_program", "strictest_isolation"]
