"""Policies by name, set and joined as in `saga:max_ttl_s=60+working-set`.

Built-in ones are listed here; others register a policy class under the entry point group
`holdfast.policies`, or for a gateway's under `holdfast.request_policies` or
`holdfast.routing_policies`, or for the MCP proxy's under `holdfast.call_policies`, and are found by
its name. Modules are imported when a policy is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from holdfast.core.events import Event
from holdfast.errors import PolicyError
from holdfast.policies.base import (
    AdmissionPolicy,
    EvictionPolicy,
    Need,
    Policy,
    PolicyContext,
    PolicySettings,
    PolicySpec,
    PrefetchPolicy,
)
from holdfast.policies.calls import CallPolicy
from holdfast.policies.engine_modes import ENGINE_MODES
from holdfast.policies.family import SETTING, Family
from holdfast.policies.requests import RequestPolicy
from holdfast.policies.routing import RoutingPolicy
from holdfast.policies.spec import convert_settings, read_settings

__all__ = [
    "CALL_ENTRY_POINT_GROUP",
    "CALL_POLICIES",
    "ENGINE_POLICIES",
    "ENTRY_POINT_GROUP",
    "REQUEST_ENTRY_POINT_GROUP",
    "REQUEST_POLICIES",
    "ROUTING_ENTRY_POINT_GROUP",
    "ROUTING_POLICIES",
    "PolicySet",
    "build_policies",
    "build_request_policy",
    "check_deployable",
    "decided_by",
    "policy_class",
    "policy_names",
    "policy_spec",
    "policy_specs",
    "policy_text",
    "request_policy_class",
    "request_policy_names",
    "request_policy_specs",
]

ENTRY_POINT_GROUP: Final = "holdfast.policies"
REQUEST_ENTRY_POINT_GROUP: Final = "holdfast.request_policies"
ROUTING_ENTRY_POINT_GROUP: Final = "holdfast.routing_policies"
CALL_ENTRY_POINT_GROUP: Final = "holdfast.call_policies"

_JOINT: Final = "+"
_OURS: Final = "holdfast.policies.ours"
_PUBLISHED: Final = "holdfast.policies.published"
_BOUNDS: Final = "holdfast.policies.bounds"
_ROUTING: Final = "holdfast.policies.routers"
_BUILT_IN: Final[dict[str, str]] = {
    "holdfast": f"{_OURS}.holdfast:Holdfast",
    "return-rate": f"{_OURS}.return_rate_eviction:ReturnRateEviction",
    "working-set": f"{_OURS}.working_set_admission:WorkingSetAdmission",
    "recurring-agents": f"{_OURS}.recurring_agents_prefetch:RecurringAgentsPrefetch",
    "clairvoyant": f"{_BOUNDS}.clairvoyant:Clairvoyant",
    "shortest-remaining": f"{_BOUNDS}.shortest_remaining:ShortestRemaining",
    "true-reservations": f"{_BOUNDS}.true_reservations:TrueReservations",
    "clairvoyant-prefetch": f"{_BOUNDS}.clairvoyant_prefetch:ClairvoyantPrefetch",
    "autellix": f"{_PUBLISHED}.autellix:Autellix",
    "cachesage": f"{_PUBLISHED}.cachesage:CacheSage",
    "cachewise": f"{_PUBLISHED}.cachewise:CacheWise",
    "cachewise-oracle": f"{_BOUNDS}.cachewise_oracle:CacheWiseOracle",
    "continuum": f"{_PUBLISHED}.continuum:Continuum",
    "infercept": f"{_PUBLISHED}.infercept:InferCept",
    "kvflow": f"{_PUBLISHED}.kvflow:KVFlow",
    "llm-d-thunderagent": f"{_PUBLISHED}.llm_d_thunderagent:LlmdThunderAgent",
    "marconi": f"{_PUBLISHED}.marconi:Marconi",
    "saga": f"{_PUBLISHED}.saga:Saga",
    "thunderagent": f"{_PUBLISHED}.thunderagent:ThunderAgent",
}
_REQUESTS: Final[dict[str, str]] = {
    "canonical-prompt": f"{_OURS}.canonical_prompt:CanonicalPrompt",
    "tenant-quotas": f"{_OURS}.tenant_quotas:TenantQuotas",
    "tool-rules": f"{_OURS}.tool_rules:ToolRules",
    "warm-ups": f"{_OURS}.warm_ups:WarmUps",
}
_ROUTERS: Final[dict[str, str]] = {
    "kv-routing": f"{_ROUTING}.kv_routing:KvRouting",
    "round-robin": f"{_ROUTING}.round_robin:RoundRobin",
    "sticky": f"{_ROUTING}.sticky:Sticky",
    "prefix": f"{_ROUTING}.prefix_aware:PrefixAware",
}
_CALLS: Final[dict[str, str]] = {
    "result-memory": f"{_OURS}.result_memory:ResultMemory",
    "speculation": f"{_OURS}.speculation:Speculation",
}
ENGINE_POLICIES: Final = Family(Policy, ENTRY_POINT_GROUP, _BUILT_IN, tuple(ENGINE_MODES))
REQUEST_POLICIES: Final = Family(RequestPolicy, REQUEST_ENTRY_POINT_GROUP, _REQUESTS)
ROUTING_POLICIES: Final = Family(RoutingPolicy, ROUTING_ENTRY_POINT_GROUP, _ROUTERS)
CALL_POLICIES: Final = Family(CallPolicy, CALL_ENTRY_POINT_GROUP, _CALLS)


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The policies that decide together; one object may be several of them.

    Attributes:
        eviction: Orders what is evicted.
        admission: Decides which turns start.
        prefetch: Names what to prefetch.
    """

    eviction: EvictionPolicy
    admission: AdmissionPolicy
    prefetch: PrefetchPolicy

    @property
    def orders_requests(self) -> bool:
        """Whether admission decides; else the engine's own queue does."""
        return type(self.admission).admit is not AdmissionPolicy.admit

    def observe(self, event: Event) -> None:
        """Show an event to each policy once. Mutates the policies."""
        policies: tuple[Policy, ...] = (self.eviction, self.admission, self.prefetch)
        for policy in dict.fromkeys(policies):
            policy.observe(event)


def policy_names() -> tuple[str, ...]:
    """Names of all engine modes and policies, built-in ones first."""
    return ENGINE_POLICIES.names()


def policy_specs() -> Iterator[PolicySpec]:
    """What is known about each mode and policy; of a broken one, its error."""
    for name in policy_names():
        try:
            yield policy_spec(name)
        except PolicyError as error:
            yield PolicySpec(name, summary=f"cannot be used: {error}", source="")


def decided_by(name: str) -> tuple[str, ...]:
    """What a name decides: eviction, admission, prefetch; nothing in a mode. Pure.

    Raises:
        PolicyError: A part is unknown, or is no policy.
    """
    if name in ENGINE_MODES:
        return ()
    contracts = {
        "eviction": EvictionPolicy,
        "admission": AdmissionPolicy,
        "prefetch": PrefetchPolicy,
    }
    kinds = [part.kind for part in _parts(name)]
    return tuple(
        what for what, found in contracts.items() if any(issubclass(k, found) for k in kinds)
    )


def policy_spec(name: str) -> PolicySpec:
    """What is known about an engine mode, a policy or a product of policies.

    Raises:
        PolicyError: A part of the name is unknown, or is no policy, or has no such setting.
    """
    if name in ENGINE_MODES:
        return ENGINE_MODES[name].spec
    specs = [part.kind.spec for part in _parts(name)]
    if len(specs) == 1:
        return specs[0] if specs[0].name == name else replace(specs[0], name=name)
    return PolicySpec(
        name=name,
        summary=f"Of {', then of '.join(spec.name for spec in specs)} what each decides.",
        source="; ".join(spec.source for spec in specs),
        differs=" ".join(spec.differs for spec in specs if spec.differs),
        needs=frozenset().union(*(spec.needs for spec in specs)),
    )


def policy_class(name: str) -> type[Policy]:
    """The class of a policy, whose name has no settings.

    Raises:
        PolicyError: Nothing is registered as `name`, or what is registered cannot be loaded, is no
            policy, or has another name.
    """
    return ENGINE_POLICIES.kind(name)


def policy_text(name: str, values: Mapping[str, object]) -> str:
    """The name of a policy, or product of policies, with settings. Pure.

    Args:
        name: The policy; it may have settings of its own.
        values: Its settings, decoded; there are none where the name has some, or is a product.

    Raises:
        PolicyError: It is unknown, has no such setting, or a value is of the wrong type or range.
    """
    if values:
        convert_settings(name, policy_class(name).spec.settings, values)
    return SETTING.join([name, *(f"{key}={value}" for key, value in values.items())])


def request_policy_names() -> tuple[str, ...]:
    """Names of all request policies, built-in ones first."""
    return REQUEST_POLICIES.names()


def request_policy_class(name: str) -> type[RequestPolicy]:
    """The class of a request policy.

    Raises:
        PolicyError: As for `policy_class`.
    """
    return REQUEST_POLICIES.kind(name)


def request_policy_specs() -> Iterator[PolicySpec]:
    """What is known about each request policy; of a broken one, its error."""
    return REQUEST_POLICIES.specs()


def build_request_policy(name: str, values: Mapping[str, object]) -> RequestPolicy:
    """Build a request policy for a gateway; see `Family.build`."""
    return REQUEST_POLICIES.build(name, values)


def check_deployable(name: str) -> None:
    """Make sure that an engine can run a policy on live requests. Pure.

    Raises:
        PolicyError: It is unknown, knows the future, or is a way to run the engine without us.
    """
    if Need.FUTURE in policy_spec(name).needs:
        raise PolicyError(
            f"policy {name!r} knows the future, which only the simulator does",
            hint="it is a bound to compare with: holdfast simulate --policies " + name,
        )
    if name in ENGINE_MODES and not ENGINE_MODES[name].has_prefix_cache:
        raise PolicyError(
            f"policy {name!r} keeps no KV blocks, so there is nothing to decide",
            hint="vLLM alone does that with --no-enable-prefix-caching",
        )


def build_policies(name: str, context: PolicyContext) -> PolicySet:
    """Build the policies of a name for a host.

    In a product each part decides what it can, and a later part decides instead of an earlier one.
    What no part decides is vLLM's.

    Raises:
        PolicyError: A part is unknown, has no such setting, or asks for the future of a host that
            has none.
    """
    if context.oracle is None:
        check_deployable(name)
    parts = [] if name in ENGINE_MODES else [part.build(context) for part in _parts(name)]
    return PolicySet(
        _last(parts, EvictionPolicy) or EvictionPolicy(context),
        _last(parts, AdmissionPolicy) or AdmissionPolicy(context),
        _last(parts, PrefetchPolicy) or PrefetchPolicy(context),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """A policy of a product, with its settings."""

    kind: type[Policy]
    settings: PolicySettings | None

    def build(self, context: PolicyContext) -> Policy:
        if self.settings is None:
            return self.kind(context)
        return self.kind(context, self.settings)


def _parts(name: str) -> list[_Part]:
    parts = [part.split(SETTING) for part in name.split(_JOINT)]
    for policy, *_ in parts:
        if policy in ENGINE_MODES:
            raise PolicyError(
                f"{policy!r} in {name!r} is vLLM's own scheduler, which no policy can join and "
                "which has no settings",
                hint=f"name {policy!r} alone, or policies joined by {_JOINT!r}",
            )
    kinds = [policy_class(policy) for policy, *_ in parts]
    return [
        _Part(kind, read_settings(policy, kind.spec.settings, pairs))
        for kind, (policy, *pairs) in zip(kinds, parts, strict=True)
    ]


def _last(parts: Sequence[Policy], kind: type[Any]) -> Any:
    """The last of the policies that decides a kind of thing; None where none does."""
    return next((part for part in reversed(parts) if isinstance(part, kind)), None)
