"""Where on this machine what belongs to an address is kept."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from safer_instruct.models.store import cache_dir
from safer_instruct.storage.address import STORES, Address


def work_folder(address: Address) -> Path:
    """The working directory of runs at that address, below the user's state folder, unless `--work` names another."""
    own = os.environ.get("SAFER_INSTRUCT_STATE")
    state = Path(own) if own else Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "safer-instruct"
    return state.expanduser() / "runs" / _name(address)


def copy_folder(address: Address) -> Path:
    """Where copies of what stands at that address are kept for those who read it."""
    return cache_dir() / "storage" / _name(address)


def _name(address: Address) -> str:
    place = f"{STORES.get(address.scheme, address.scheme)}://{address.bucket}/{address.key} {os.environ.get('AWS_ENDPOINT_URL', '')}"
    last = re.sub(r"[^A-Za-z0-9._-]", "_", address.key.rpartition("/")[2] or address.bucket)
    return f"{last[:60]}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
