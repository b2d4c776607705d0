"""The policies that can be named, and where each comes from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["POLICIES", "PolicySpec"]


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """One policy.

    Attributes:
        name: As the command line and results call it.
        summary: What it does, one sentence.
        source: Where the idea comes from.
    """

    name: str
    summary: str
    source: str


POLICIES: dict[str, PolicySpec] = {
    spec.name: spec
    for spec in (
        PolicySpec(
            "vllm-default",
            "vLLM's own scheduler, untouched: least recently used blocks go first, first come "
            "first served.",
            "Kwon et al., SOSP 2023 (arXiv 2309.06180)",
        ),
        PolicySpec(
            "holdfast",
            "Evicts by the expected return of the sessions behind each run of blocks; lets in what "
            "fits beside the sessions that hold a place, with a bound on being passed over.",
            "Belady 1966; Denning 1968; CacheWise (arXiv 2606.16824)",
        ),
    )
}
