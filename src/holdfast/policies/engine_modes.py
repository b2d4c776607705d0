"""Engine modes: ways to run vLLM's own scheduler, named like policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from holdfast.policies.base import Need, PolicySpec

__all__ = ["ENGINE_MODES", "STOCK", "EngineMode"]


@dataclass(frozen=True, slots=True)
class EngineMode:
    """Stock vLLM with one setting of its prefix cache.

    Attributes:
        spec: Name, summary and source.
        has_prefix_cache: Whether the engine keeps KV blocks between requests.
        has_infinite_cache: Whether it never evicts any; only a simulator can.
    """

    spec: PolicySpec
    has_prefix_cache: bool = True
    has_infinite_cache: bool = False


STOCK: Final = EngineMode(
    PolicySpec(
        name="vllm-default",
        summary="vLLM's own scheduler, untouched: least recently used blocks go first, first come "
        "first served.",
        source="Kwon et al., SOSP 2023 (arXiv 2309.06180)",
    )
)

_NO_CACHE: Final = EngineMode(
    PolicySpec(
        name="stateless",
        summary="vLLM without a prefix cache: the floor.",
        source="vLLM's --no-enable-prefix-caching",
    ),
    has_prefix_cache=False,
)

_INFINITE_CACHE: Final = EngineMode(
    PolicySpec(
        name="all-kept",
        summary="vLLM with a cache that never runs full: what no policy can beat.",
        source="the relaxation of the capacity constraint",
        needs=frozenset({Need.FUTURE}),
    ),
    has_infinite_cache=True,
)

ENGINE_MODES: Final = {mode.spec.name: mode for mode in (STOCK, _NO_CACHE, _INFINITE_CACHE)}
