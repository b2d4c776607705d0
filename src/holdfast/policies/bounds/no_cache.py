"""No reuse at all: the floor."""

from __future__ import annotations

from typing import ClassVar

from holdfast.policies.base import Policy, PolicySpec

__all__ = ["Stateless"]


class Stateless(Policy):
    """Stock vLLM with its prefix cache switched off: every prompt is computed from its start."""

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="stateless",
        summary="vLLM without a prefix cache: the floor.",
        source="vLLM's --no-enable-prefix-caching",
        has_prefix_cache=False,
    )
