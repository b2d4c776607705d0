"""The file that names the MCP proxy's policies and their settings."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from holdfast.config import read_toml
from holdfast.errors import ConfigError, PolicyError
from holdfast.mcp_proxy.proxy import PolicyBuilder
from holdfast.policies.calls import CallPolicy
from holdfast.policies.registry import CALL_POLICIES

__all__ = ["PolicyTables", "build_policies", "read_policies"]

PolicyTables = dict[str, dict[str, object]]
"""Settings by policy, in the order in which policies are asked."""


def read_policies(path: Path) -> PolicyBuilder:
    """Check the policies of a TOML file, a table each, and return what builds them.

    Raises:
        ConfigError: The file cannot be read or is no TOML, a table names no such policy, or a
            setting is wrong.
    """
    content = read_toml(path)
    for name, values in content.items():
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {name!r} must be a table, the settings of a policy")
    try:
        build_policies(content)
    except PolicyError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error
    return partial(build_policies, content)


def build_policies(tables: PolicyTables) -> list[CallPolicy]:
    """Build one tenant's policies.

    Raises:
        PolicyError: A policy is unknown, or a setting is wrong.
    """
    return [CALL_POLICIES.build(name, values) for name, values in tables.items()]
