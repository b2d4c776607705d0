"""The file that names a gateway's request policies and their settings."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from holdfast.errors import ConfigError, PolicyError
from holdfast.policies.registry import build_request_policy
from holdfast.policies.requests import RequestPolicy
from holdfast.small_file import read_small_text

__all__ = ["read_policies"]


def read_policies(path: Path) -> tuple[RequestPolicy, ...]:
    """Build the policies of a TOML file: a table each, by name, with its settings.

    They are asked in the order of the file.

    Raises:
        ConfigError: The file cannot be read or is no TOML, a table names no request policy, or a
            setting is wrong.
    """
    try:
        content = tomllib.loads(read_small_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    return tuple(_built(path, content))


def _built(path: Path, content: dict[str, object]) -> Iterator[RequestPolicy]:
    for name, values in content.items():
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {name!r} must be a table, the settings of a policy")
        try:
            yield build_request_policy(name, values)
        except PolicyError as error:
            raise ConfigError(f"{path}: {error}", hint=error.hint) from error
