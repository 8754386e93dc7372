"""Keys and region from `~/.aws`, where the environment names none: obstore reads the environment, roles and instance metadata itself."""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import Any

from safer_instruct.errors import StorageError

_IN_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_TOLD_ELSEWHERE = ("sso_session", "sso_start_url", "role_arn", "credential_process")


def profile_settings() -> dict[str, Any]:
    """What the profile says: keys, region, endpoint; empty where the environment holds credentials or there is no profile.

    Raises:
        StorageError: The profile that AWS_PROFILE names is not there, or needs a tool to get its keys.
    """
    named = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    if not named and any(os.environ.get(name) for name in _IN_ENVIRONMENT):
        return {}
    profile = named or "default"
    said = {**_section("AWS_CONFIG_FILE", "config", profile), **_section("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile)}
    if named and not said:
        raise StorageError(f"AWS_PROFILE names the profile '{named}', which stands neither in ~/.aws/credentials nor in ~/.aws/config")
    if "aws_access_key_id" not in said and any(name in said for name in _TOLD_ELSEWHERE):
        raise StorageError(
            f"the AWS profile '{profile}' gets its keys from another tool (SSO, a role or a process); bring them into the environment with: "
            f'eval "$(aws configure export-credentials --profile {profile} --format env)"'
        )
    names = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key", "aws_session_token": "session_token"}
    settings = {ours: said[theirs] for theirs, ours in names.items() if theirs in said}
    if "region" in said and not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        settings["region"] = said["region"]
    if "endpoint_url" in said and not (os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_S3")):
        settings["endpoint"] = said["endpoint_url"]
    return settings


def _section(variable: str, file: str, profile: str) -> dict[str, str]:
    path = Path(os.environ.get(variable) or Path.home() / ".aws" / file).expanduser()
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as exc:
        raise StorageError(f"{path} cannot be read as an AWS {file} file (line {getattr(exc, 'lineno', '?')})") from None  # the error quotes the line
    for name in (profile, f"profile {profile}"):
        if parser.has_section(name):
            return dict(parser.items(name))
    return {}
