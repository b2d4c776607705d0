"""The file that names a gateway's policies and their settings."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import ConfigError, PolicyError
from holdfast.policies.registry import REQUEST_POLICIES, ROUTING_POLICIES
from holdfast.policies.requests import RequestPolicy
from holdfast.policies.routing import RoutingPolicy
from holdfast.small_file import read_small_text

__all__ = ["GatewayPolicies", "read_policies"]


@dataclass(frozen=True, slots=True)
class GatewayPolicies:
    """What decides in a gateway besides its defaults.

    Attributes:
        requests: What may change about requests, asked in this order.
        routing: Chooses engines; None takes the gateway's own.
    """

    requests: tuple[RequestPolicy, ...] = ()
    routing: RoutingPolicy | None = None


def read_policies(path: Path) -> GatewayPolicies:
    """Build the policies of a TOML file: a table each, by name, with its settings.

    Request policies are asked in the order of the file; of routing policies there is one at most.

    Raises:
        ConfigError: The file cannot be read or is no TOML, a table names no such policy, or a
            setting is wrong.
    """
    try:
        content = tomllib.loads(read_small_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    try:
        return _built(content)
    except PolicyError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error


def _built(content: dict[str, Any]) -> GatewayPolicies:
    requests: list[RequestPolicy] = []
    routing: RoutingPolicy | None = None
    for name, values in content.items():
        if not isinstance(values, dict):
            raise PolicyError(f"{name!r} must be a table, the settings of a policy")
        if name in REQUEST_POLICIES:
            requests.append(REQUEST_POLICIES.build(name, values))
        elif name not in ROUTING_POLICIES:
            known = ", ".join([*REQUEST_POLICIES.names(), *ROUTING_POLICIES.names()])
            raise PolicyError(f"unknown policy {name!r}", hint=f"a gateway's policies: {known}")
        elif routing is not None:
            first = routing.spec.name
            raise PolicyError(f"{first!r} and {name!r} both choose engines", hint="keep one")
        else:
            routing = ROUTING_POLICIES.build(name, values)
    return GatewayPolicies(tuple(requests), routing)
