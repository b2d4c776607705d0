"""Stock vLLM."""

from __future__ import annotations

from typing import ClassVar

from holdfast.policies.base import Policy, PolicySpec

__all__ = ["VllmDefault"]


class VllmDefault(Policy):
    """First come, first served; blocks that were used least recently go first.

    Hosts that have the engine's own scheduler run that one, untouched, under this name.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="vllm-default",
        summary="vLLM's own scheduler, untouched: least recently used blocks go first, first come "
        "first served.",
        source="Kwon et al., SOSP 2023 (arXiv 2309.06180)",
    )
