"""What differs between two trees of settings, in the words of a config."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from safer_instruct.oneline import one_line, shortened

_ABSENT = object()
_DIGEST = re.compile(r"[0-9a-f]{16,}")
_MOST = 60  # characters of a value that are shown
_FEW = 6  # of many differences


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each setting that is another, by its dotted path: `induce.candidates: 4, now 8`; of digests only that the content is another.

    Args:
        was: The part of a `run.yaml` that decides; what stands in its section `config` is told without that word.
        now: The same of another run.

    Returns:
        In the order of `now`; empty where the two are equal, down to the order of their keys.
    """
    found = list(_differing("", was, now))
    settings = [path.removeprefix("config.") for path, _ in found if path.startswith("config.")]
    return [said for path, said in found if not _follows(path, settings)]


def moved(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What to say of models that count as others because they are at another address; empty where there are none.

    Args:
        was: Role -> identity of its model, of a run.
        now: The same of another run.
    """
    roles = [role for role in now if _is_elsewhere(was.get(role, ""), now[role])]
    if not roles:
        return ""
    named = ", ".join(f"models.{role}" for role in roles)
    its, counts = ("their", "count as others") if len(roles) > 1 else ("its", "counts as another model")
    return f". At another address {named} {counts}, unless 'revision' was set when the run began: all {its} calls are made again"


def _is_elsewhere(was: str, now: str) -> bool:
    """Whether two identities are of models of one name, of which the first was known by its address and not by a `revision`."""
    name, known_by_address, _ = was.partition("@")
    return bool(known_by_address) and was != now and now.partition("@")[0].partition("#")[0] == name


def few(changes: Sequence[str]) -> str:
    """The first differences, and how many more there are."""
    return "; ".join(changes[:_FEW]) + (f"; and {len(changes) - _FEW} more" if len(changes) > _FEW else "")


def _follows(path: str, settings: list[str]) -> bool:
    """Whether the identity of a model is another because its settings are."""
    return path.startswith("models.") and any(f"{setting}.".startswith(f"{path}.") for setting in settings)


def _differing(path: str, was: Any, now: Any) -> Iterator[tuple[str, str]]:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in (*now, *(key for key in was if key not in now)):
            yield from _differing(f"{path}.{key}" if path else str(key), was.get(key, _ABSENT), now.get(key, _ABSENT))
        if list(was) != list(now) and set(was) == set(now):
            yield path, f"'{path or 'run.yaml'}' has its keys in another order"
    elif was != now:
        name = path.removeprefix("config.")
        if all(isinstance(value, str) and _DIGEST.fullmatch(value) for value in (was, now)):
            yield path, f"the content of '{name.removesuffix('_sha256')}' is another"
        else:
            yield path, f"{one_line(name)}: {_shown(was)}, now {_shown(now)}"


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "not there"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str)
    return shortened(one_line(text), _MOST)
