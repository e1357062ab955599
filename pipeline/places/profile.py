"""Access to S3 by a profile of ~/.aws: its name in the environment in, keys, region and server out, in memory alone.

What the environment says itself goes first, as with AWS's own tools; a machine's role comes last. (Format:
"Configuration and credential file settings" of the AWS CLI.)
"""

from __future__ import annotations

from collections.abc import Mapping
from configparser import Error, RawConfigParser
from pathlib import Path

from rsup.models.base.errors import ArgumentError

DEFAULT = "default"
KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_BY_OTHERS = ("sso_session", "sso_start_url", "role_arn", "credential_process", "web_identity_token_file")
"""What a profile has in the place of keys when some program, or another profile, has to be asked for them."""


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Keys, `region` and `endpoint_url` of the profile in use, as far as it has them and the environment has not.

    Raises ArgumentError for a profile that AWS_PROFILE names and that is not there, has no keys of its own, or stands
    in a file that cannot be read. No sentence holds what a file says.
    """
    named = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE")
    profile = named or DEFAULT
    home = Path(environment.get("HOME") or Path.home()) / ".aws"
    config = _section(environment.get("AWS_CONFIG_FILE") or home / "config", profile, f"profile {profile}", named)
    secrets = _section(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials", profile, profile, named)
    has_keys = bool(environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY"))
    if config is None and secrets is None:
        if named and not has_keys:
            raise ArgumentError(
                f"AWS_PROFILE: there is no profile {profile!r} in ~/.aws: correct the name, or set AWS_ACCESS_KEY_ID "
                "and AWS_SECRET_ACCESS_KEY"
            )
        return {}
    said = (config or {}) | (secrets or {})
    found = {} if has_keys else {key: said[key] for key in KEYS if said.get(key)}
    if named and not has_keys and not {*KEYS[:2]} <= found.keys():
        others = next((name for name in _BY_OTHERS if name in said), None)
        why = f"gets its keys by {others}" if others else "has no keys"
        raise ArgumentError(
            f'AWS_PROFILE: profile {profile!r} {why}: put them into the environment, as `eval "$(aws configure '
            f'export-credentials --profile {profile} --format env)"` does'
        )
    if not (environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")) and said.get("region"):
        found["region"] = said["region"]
    if said.get("endpoint_url"):
        found["endpoint_url"] = said["endpoint_url"]
    return found


def _section(path: str | Path, profile: str, name: str, named: str | None) -> dict[str, str] | None:
    """The settings of a profile in one of the two files; None where it is not there."""
    parser = RawConfigParser()
    try:
        with open(Path(path).expanduser(), encoding="utf-8") as file:
            parser.read_file(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, Error, UnicodeDecodeError) as error:
        if named is None:  # nobody asked for it
            return None
        raise ArgumentError(f"AWS_PROFILE: {path} cannot be read ({type(error).__name__}): mend it") from None
    section = DEFAULT if profile == DEFAULT and parser.has_section(DEFAULT) else name
    return dict(parser[section]) if parser.has_section(section) else None
