"""How far a program can be kept apart on this machine: by Linux namespaces, which util-linux's `unshare` makes without root."""

from __future__ import annotations

from dataclasses import dataclass

_NETWORK = ("--user", "--map-root-user", "--net", "--ipc")
_PROCESSES = ("--pid", "--fork", "--kill-child", "--mount", "--mount-proc")


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a program is kept from.

    Attributes:
        prefix: Command that the program's own is appended to.
        network: No network, not even this machine's own services.
        files: Nothing can be written outside of the temporary directory, and no other process is seen.
    """

    prefix: tuple[str, ...] = ()
    network: bool = False
    files: bool = False

    @property
    def note(self) -> str:
        """What is lacking, and what to do about it; empty where nothing is."""
        if self.files:
            return ""
        lacks = ["can write wherever you can", "can read the environment of your other processes, API keys included"]
        lacks = lacks if self.network else ["HAVE THE NETWORK", *lacks]
        return (
            f"verifier programs are not fully sandboxed here: they {', '.join(lacks)}. Time, memory and output are limited all the same. "
            "Allow user namespaces (Linux, util-linux), or use only programs that execute nothing of what they check"
        )


FULL = Isolation(("unshare", *_NETWORK, *_PROCESSES, "--"), True, True)
NETWORK_ONLY = Isolation(("unshare", *_NETWORK, "--"), True, False)
