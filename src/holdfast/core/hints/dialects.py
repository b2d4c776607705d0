"""The dialects of hints as data: keys, where they are, what they are for.

`docs/hints.md` has an example of each. A key that nothing acts on is in no table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from holdfast.core.hints.objects import (
    read_actions,
    read_cache_control,
    read_curve,
    read_directives,
    read_edits,
    read_evict_flag,
    read_next_tool,
    read_prefetch_flag,
    read_session_control,
)
from holdfast.core.hints.readers import (
    read_change,
    read_flag,
    read_identity,
    read_importance,
    read_milliseconds,
    read_priority,
    read_ratio,
    read_retention,
    read_reversed_priority,
    read_seconds,
    read_tokens,
    read_ttl,
    read_turn_end,
)

__all__ = ["DIALECTS", "Dialect", "HintField", "Key", "Source"]

Source = Literal["vllm_xargs", "kv_transfer_params", "body", "kv_hints"]
"""Where a request has hints; `body` are the top-level fields that the middleware copies."""

HintField = Literal[
    "session_id",
    "parent_session_id",
    "agent_id",
    "workflow_id",
    "turn_end",
    "is_final",
    "wants_warm_ups",
    "expected_gap_s",
    "retain_s",
    "lease_until_s",
    "priority",
    "fixed_prefix_tokens",
    "elsewhere_ratio",
    "prompt_change",
    "commands",
]
"""Attributes of `Hints`; `lease_until_s`, since 1970, becomes `retain_s`."""

Key = tuple[str, HintField, Callable[[Any], object]]
"""A key, the field that it is for, and its reader; a dot leads into a nested object.

A reader may give a dict instead, with values for several fields.
"""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One schema of hints.

    Attributes:
        name: Whose it is, with the version or proposal that has it.
        sources: Where it may be, in order of precedence.
        under: Key of the object there that contains its keys; "" for the source itself.
        keys: Its keys. Of several for one field the first that is present counts.
    """

    name: str
    sources: tuple[Source, ...]
    under: str
    keys: tuple[Key, ...]


_OWN_KEYS: Final[tuple[Key, ...]] = (
    ("session_id", "session_id", read_identity),
    ("parent_session_id", "parent_session_id", read_identity),
    ("agent_id", "agent_id", read_identity),
    ("workflow_id", "workflow_id", read_identity),
    ("turn_end", "turn_end", read_turn_end),
    ("final", "is_final", read_flag),
    ("warm_up", "wants_warm_ups", read_flag),
    ("expected_gap_s", "expected_gap_s", read_seconds),
    ("retain_s", "retain_s", read_seconds),
    ("priority", "priority", read_priority),
    ("fixed_prefix_tokens", "fixed_prefix_tokens", read_tokens),
    ("elsewhere_ratio", "elsewhere_ratio", read_ratio),
    ("prompt_change", "prompt_change", read_change),
    ("evict", "commands", read_evict_flag),
    ("prefetch", "commands", read_prefetch_flag),
)

_OURS: Final = (
    # Flat, because `vllm_xargs` does not nest; with the engine's own `session_id`.
    Dialect(
        "Holdfast",
        ("vllm_xargs",),
        "",
        (
            *((f"holdfast_{key}", field, read) for key, field, read in _OWN_KEYS),
            ("session_id", "session_id", read_identity),
        ),
    ),
    Dialect("Holdfast", ("kv_transfer_params",), "holdfast", _OWN_KEYS),
)

_PROPOSED: Final = (
    # An object, or JSON text where `vllm_xargs` is checked by the engine.
    Dialect(
        "vLLM router, proposal 285",
        ("vllm_xargs",),
        "agentic_context",
        (
            ("program_id", "session_id", read_identity),
            ("parent_program_id", "parent_session_id", read_identity),
            ("agent_role", "agent_id", read_identity),
        ),
    ),
    Dialect(
        "vLLM, proposal 52113; uni-agent",
        ("kv_transfer_params", "body"),
        "agent_hint",
        (
            ("session_id", "session_id", read_identity),
            ("trajectory_id", "session_id", read_identity),
            ("parent_session_id", "parent_session_id", read_identity),
            ("cache_control", "retain_s", read_cache_control),
            ("context_management", "commands", read_edits),
            ("lease_until", "lease_until_s", float),
            ("kv_priority", "priority", read_reversed_priority),
        ),
    ),
    Dialect(
        "SGLang, proposal 24656",
        ("body", "kv_transfer_params"),
        "agent_hints",
        (
            ("session_id", "session_id", read_identity),
            ("parent_session_id", "parent_session_id", read_identity),
            ("agent_id", "agent_id", read_identity),
            ("workflow_id", "workflow_id", read_identity),
            ("cache_ttl_ms", "retain_s", read_milliseconds),
            ("expected_tool_duration_ms", "expected_gap_s", read_milliseconds),
        ),
    ),
    Dialect(
        "vLLM, proposal 38514",
        ("body", "vllm_xargs", "kv_transfer_params"),
        "",
        (
            ("retention_scope", "session_id", read_identity),
            ("retention_directives", "retain_s", read_directives),
        ),
    ),
)

_TRAJECTORY: Final[tuple[Key, ...]] = (
    ("trajectory_id", "session_id", read_identity),
    ("session_id", "session_id", read_identity),
    ("parent_trajectory_id", "parent_session_id", read_identity),
    ("trajectory_final", "is_final", read_flag),
)

_DYNAMO: Final = (
    Dialect("Dynamo 1.5", ("kv_transfer_params",), "agent_context", _TRAJECTORY),
    Dialect(
        "Dynamo 1.6",
        ("body",),
        "nvext",
        (
            *((f"agent_context.{key}", field, read) for key, field, read in _TRAJECTORY),
            ("session_control", "session_id", read_session_control),
            ("cache_control.ttl", "retain_s", read_ttl),
            ("agent_hints.priority", "priority", read_reversed_priority),
            ("agent_hints.iat", "expected_gap_s", read_milliseconds),
            ("agent_hints.speculative_prefill", "commands", read_prefetch_flag),
        ),
    ),
)

_ENVELOPES: Final = (
    Dialect("vLLM 0.32 kv_hints", ("kv_hints",), "", (("", "commands", read_actions),)),
    Dialect(
        "vLLM 0.32 kv_hints",
        ("kv_transfer_params", "body"),
        "",
        (("kv_hints", "commands", read_actions), ("kv_hint", "commands", read_actions)),
    ),
)

_RESEARCH: Final = (
    Dialect(
        "CacheWise",
        ("body", "kv_transfer_params"),
        "cachewise_policy",
        (
            ("scope.session_id", "session_id", read_identity),
            ("scope.idle_session", "commands", read_evict_flag),
            ("hints.next_tool", "turn_end", read_next_tool),
            ("hints.oracle.ground_truth_idle_s", "expected_gap_s", read_seconds),
            ("hints.oracle.total_duration_ms", "expected_gap_s", read_milliseconds),
            ("hints.duration_curve", "expected_gap_s", read_curve),
        ),
    ),
    Dialect(
        "TokenCake",
        ("vllm_xargs", "kv_transfer_params"),
        "tokencake",
        (
            ("lifecycle_id", "session_id", read_identity),
            ("agent_type", "agent_id", read_identity),
            ("importance", "priority", read_importance),
        ),
    ),
    Dialect(
        "ThunderAgent",
        ("body", "vllm_xargs"),
        "",
        (("program_id", "session_id", read_identity),),
    ),
    Dialect(
        "Continuum",
        ("body", "vllm_xargs"),
        "",
        (("job_id", "session_id", read_identity), ("is_last_step", "is_final", read_flag)),
    ),
    Dialect(
        "LMCache, proposal 4456",
        ("kv_transfer_params",),
        "",
        (("lmcache_retention_ttl_sec", "retain_s", read_seconds),),
    ),
)

_HOSTED: Final = (
    # Without a `ttl` it only marks what to cache, which an engine does anyway.
    Dialect("Anthropic", ("body",), "cache_control", (("ttl", "retain_s", read_ttl),)),
    Dialect("OpenAI", ("body",), "", (("prompt_cache_retention", "retain_s", read_retention),)),
)

DIALECTS: Final = (*_OURS, *_PROPOSED, *_DYNAMO, *_ENVELOPES, *_RESEARCH, *_HOSTED)
"""In order of precedence.

All ids come from the first dialect that names a session: ids of different schemas do not belong
together.
"""
