"""The file that names a gateway's policies and their settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from holdfast.config import read_toml
from holdfast.core.tenants import Fairness
from holdfast.errors import ConfigError, PolicyError
from holdfast.policies.registry import (
    ENGINE_POLICIES,
    REQUEST_POLICIES,
    ROUTING_POLICIES,
    check_deployable,
    decided_by,
    policy_text,
)
from holdfast.policies.requests import RequestPolicy
from holdfast.policies.routing import RoutingPolicy

__all__ = ["GatewayPolicies", "read_policies"]


_FAIRNESS: Final = "fairness"


class _FairnessTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `fairness`; see `Fairness`."""

    by: Literal["tenants", "sessions", "off"] = "tenants"
    weights: dict[str, Annotated[float, msgspec.Meta(gt=0)]] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GatewayPolicies:
    """What decides in a gateway besides its defaults.

    Attributes:
        requests: What may change about requests, asked in this order.
        routing: Chooses engines; None takes the gateway's own.
        admission: Name of the policy that admits turns to engines; None takes the gateway's own.
        fairness: How tenants share these engines; None is the default of `Fairness`.
    """

    requests: tuple[RequestPolicy, ...] = ()
    routing: RoutingPolicy | None = None
    admission: str | None = None
    fairness: Fairness | None = None


def read_policies(path: Path) -> GatewayPolicies:
    """Build the policies of a TOML file: a table each, by name, with its settings.

    Request policies are asked in the order of the file; there is one routing and one
    admission policy at most. The table `fairness` has the fields of `Fairness`.

    Raises:
        ConfigError: The file cannot be read or is no TOML, a table names no such policy, or a
            setting is wrong.
    """
    content = read_toml(path)
    try:
        return _built(content)
    except PolicyError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from error


def _built(content: dict[str, Any]) -> GatewayPolicies:
    requests: list[RequestPolicy] = []
    routing: list[RoutingPolicy] = []
    admission: list[str] = []
    fairness: Fairness | None = None
    for name, values in content.items():
        if not isinstance(values, dict):
            raise PolicyError(f"{name!r} must be a table, the settings of a policy")
        if name == _FAIRNESS:
            fairness = _fairness(values)
            continue
        if name in REQUEST_POLICIES:
            requests.append(REQUEST_POLICIES.build(name, values))
        elif name in ROUTING_POLICIES:
            routing.append(ROUTING_POLICIES.build(name, values))
        else:
            admission.append(_admission(name, values))
    _check_one([policy.spec.name for policy in routing], "choose engines")
    _check_one(admission, "admit turns")
    return GatewayPolicies(
        tuple(requests), next(iter(routing), None), next(iter(admission), None), fairness
    )


def _admission(name: str, values: dict[str, Any]) -> str:
    """The name of an admission policy with its settings."""
    try:
        text = policy_text(name, values)
        check_deployable(text)
        if "admission" in decided_by(text):
            return text
    except PolicyError as error:
        if not str(error).startswith("unknown policy"):
            raise
        known = [*REQUEST_POLICIES.names(), *ROUTING_POLICIES.names(), *ENGINE_POLICIES.names()]
        raise PolicyError(str(error), hint=f"known policies: {', '.join(known)}") from error
    raise PolicyError(
        f"policy {name!r} does not decide admission, so it has nothing to do in a gateway",
        hint="an engine runs it: HOLDFAST_POLICY=" + text,
    )


def _fairness(values: dict[str, Any]) -> Fairness:
    try:
        found = msgspec.convert(values, _FairnessTable)
    except msgspec.ValidationError as error:
        raise PolicyError(f"{_FAIRNESS}: {error}") from error
    return Fairness(by=found.by, weights=found.weights)


def _check_one(names: list[str], what: str) -> None:
    if len(names) > 1:
        raise PolicyError(f"{names[0]!r} and {names[1]!r} both {what}", hint="keep one")
