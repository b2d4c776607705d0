"""The policies that can be named.

Built-in ones are listed here; others register a `Policy` subclass under the entry point group
`holdfast.policies` and are found by its name. Modules are imported when a policy is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from holdfast.errors import PolicyError
from holdfast.policies.base import Need, Policy, PolicyContext, PolicySpec

__all__ = [
    "ENTRY_POINT_GROUP",
    "build_policy",
    "check_deployable",
    "policy_class",
    "policy_names",
    "policy_specs",
]

ENTRY_POINT_GROUP: Final = "holdfast.policies"

_PUBLISHED = "holdfast.policies.published"
_BOUNDS = "holdfast.policies.bounds"
_BUILT_IN: Final[dict[str, str]] = {
    "vllm-default": f"{_PUBLISHED}.vllm_default:VllmDefault",
    "stateless": "holdfast.policies.bounds.no_cache:Stateless",
    "all-kept": "holdfast.policies.bounds.infinite_cache:AllKept",
    "holdfast": "holdfast.policies.ours.holdfast:Holdfast",
    "clairvoyant": "holdfast.policies.bounds.clairvoyant:Clairvoyant",
    "clairvoyant-prefetch": "holdfast.policies.bounds.clairvoyant_prefetch:ClairvoyantPrefetch",
    "autellix": f"{_PUBLISHED}.autellix:Autellix",
    "cachesage": f"{_PUBLISHED}.cachesage:CacheSage",
    "cachewise": f"{_PUBLISHED}.cachewise:CacheWise",
    "cachewise-oracle": f"{_BOUNDS}.cachewise_oracle:CacheWiseOracle",
    "continuum": f"{_PUBLISHED}.continuum:Continuum",
    "infercept": f"{_PUBLISHED}.infercept:InferCept",
    "kvflow": f"{_PUBLISHED}.kvflow:KVFlow",
    "marconi": f"{_PUBLISHED}.marconi:Marconi",
    "saga": f"{_PUBLISHED}.saga:Saga",
    "thunderagent": f"{_PUBLISHED}.thunderagent:ThunderAgent",
}


def policy_names() -> tuple[str, ...]:
    """Names of all policies, built-in ones first."""
    others = entry_points(group=ENTRY_POINT_GROUP).names - _BUILT_IN.keys()
    return (*_BUILT_IN, *sorted(others))


def policy_specs() -> Iterator[PolicySpec]:
    """What is known about each policy."""
    for name in policy_names():
        yield policy_class(name).spec


def policy_class(name: str) -> type[Policy]:
    """The class of a policy.

    Raises:
        PolicyError: Nobody registered `name`, or what is registered is no policy.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found: Any = getattr(import_module(module), attribute)
    else:
        registered = entry_points(group=ENTRY_POINT_GROUP, name=name)
        if not registered:
            raise PolicyError(
                f"unknown policy {name!r}", hint=f"known policies: {', '.join(policy_names())}"
            )
        found = next(iter(registered)).load()
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise PolicyError(f"policy {name!r} is {found!r}, not a subclass of holdfast's Policy")
    return found


def check_deployable(name: str) -> None:
    """Make sure that an engine can run a policy on live requests. Pure.

    Raises:
        PolicyError: It is unknown, knows the future, or is a way to run the engine without us.
    """
    spec = policy_class(name).spec
    if Need.FUTURE in spec.needs:
        raise PolicyError(
            f"policy {name!r} knows the future, which only the simulator does",
            hint="it is a bound to compare with: holdfast simulate --policies " + name,
        )
    if not spec.has_prefix_cache:
        raise PolicyError(
            f"policy {name!r} keeps no KV blocks, so there is nothing to decide",
            hint="vLLM alone does that with --no-enable-prefix-caching",
        )


def build_policy(name: str, context: PolicyContext) -> Policy:
    """Build a policy for a host.

    Raises:
        PolicyError: It is unknown, or asks for the future of a host that has none.
    """
    found = policy_class(name)
    if context.oracle is None:
        check_deployable(name)
    return found(context)
