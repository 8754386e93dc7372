"""A dataset folder on its way to the Hugging Face hub: private unless said otherwise, and gated before the first byte is there."""

from __future__ import annotations

import re
from pathlib import Path

from safer_instruct.errors import ConfigError, HubError
from safer_instruct.extras import require
from safer_instruct.oneline import one_line

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def check_repository(name: str) -> str:
    """`name`, if it can be one of a repository.

    Raises:
        ConfigError: It is not of the form ORG/NAME.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no repository; write ORG/NAME")
    return name


def push_folder(folder: Path, repository: str, *, public: bool = False, gated: str | None = None) -> str:
    """Upload `folder` as a dataset repository, made where it is not there; the token is the one of `hf auth login` or HF_TOKEN.

    Args:
        folder: What `--format datasets` wrote.
        repository: ORG/NAME.
        public: Whether everybody may see it; a public repository is never filled without.
        gated: Ask readers for their agreement first: `auto` lets them in then, with `manual` the owner does.

    Returns:
        Its address.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        ConfigError: The repository is public already and `public` was not said.
        HubError: The hub refuses, or cannot be reached.
    """
    hub, http = (require(module, extra="hub", purpose="--push") for module in ("huggingface_hub", "httpx2"))
    api, name = hub.HfApi(), check_repository(repository)
    try:
        url = api.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
        if not public and not api.repo_info(name, repo_type="dataset").private:
            raise ConfigError(f"{name} is public already; say --public to publish there, or choose another name")
        if gated:
            api.update_repo_settings(name, repo_type="dataset", gated=gated)
        api.upload_folder(repo_id=name, repo_type="dataset", folder_path=folder, commit_message="Export by Safer-Instruct")
    except (hub.errors.HfHubHTTPError, hub.errors.LocalTokenNotFoundError) as exc:
        raise HubError(f"the hub refused {name}: {one_line(str(exc))}; check the token (hf auth login) and its right to write there") from exc
    except http.TransportError as exc:
        raise HubError(f"the hub cannot be reached: {one_line(str(exc))}; {folder} holds the export, give the same command again later") from exc
    return str(url)
