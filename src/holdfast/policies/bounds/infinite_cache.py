"""A cache that never runs full: what no policy can beat."""

from __future__ import annotations

from typing import ClassVar

from holdfast.policies.base import Need, Policy, PolicySpec

__all__ = ["AllKept"]


class AllKept(Policy):
    """Stock vLLM with room for every block of the run: nothing is ever computed twice.

    What is left of LLM time here no choice of victims or places can remove, at this concurrency and
    with first come, first served.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="all-kept",
        summary="vLLM with a cache that never runs full: what no policy can beat.",
        source="the relaxation of the capacity constraint",
        needs=frozenset({Need.FUTURE}),
        has_endless_cache=True,
    )
