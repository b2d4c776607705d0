"""Simulated runs that find how many sessions fit, seed by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from holdfast.core.capacity import Capacity
from holdfast.core.results import RunResult
from holdfast.sim.capacity import FITS_SHARE, HALF_SHARE, search, span_of
from holdfast.sim.plan import RunPlan

__all__ = ["CapacityRuns", "kept_share"]

_UNCOVERED: Final = 0.1


@dataclass(slots=True)
class CapacityRuns:
    """Runs a plan at several loads.

    Attributes:
        plan: Policy, cache, window and sessions; its load and seed are replaced.
        worker: Turns a plan into a result.
        on_run: Called after each run.
        results: All results so far.
    """

    plan: RunPlan
    worker: Callable[[RunPlan], RunResult]
    on_run: Callable[[RunResult], None]
    results: list[RunResult] = field(default_factory=list)

    def capacity(
        self, setup: str, seeds: Iterable[int], guess: float, most: int, num_developers: int | None
    ) -> Capacity:
        """Search with each seed. Mutates `results`.

        Args:
            setup: Name of the set-up.
            seeds: The seeds; each runs other sessions.
            guess: Sessions at once to begin with.
            most: Most sessions at once to run.
            num_developers: As in `CapacityPlan`.
        """
        fits: list[float | None] = []
        cliffs: list[float | None] = []
        curve: list[tuple[float, float]] = []
        searched = 1
        for seed in seeds:
            seen, found = search(
                lambda load, seed=seed: kept_share(self._run(load, seed)),  # type: ignore[misc]
                guess,
                most,
                (HALF_SHARE, FITS_SHARE),
            )
            cliffs.append(found[0])
            fits.append(found[1])
            searched = max(searched, *seen)
            curve += seen.items()
        span = span_of(fits, most)
        uncovered = any((run.uncovered_share or 0.0) > _UNCOVERED for run in self.results)
        engines = Capacity.engines_for(num_developers, span, searched)
        cliff = span_of(cliffs, most)
        curve.sort()
        return Capacity(setup, "simulated", span, cliff, searched, engines, uncovered, curve)

    def _run(self, num_sessions: int, seed: int) -> RunResult:
        options = replace(self.plan.options, concurrency=num_sessions)
        result = self.worker(replace(self.plan, seed=seed, options=options))
        self.results.append(result)
        self.on_run(result)
        return result


def kept_share(result: RunResult) -> float:
    """Tokens that hit ÷ tokens that an infinite cache would hit; 1 without any. Pure."""
    hits = (result.token_hit_ratio or 0.0) * result.prompt_tokens
    possible = hits + (result.recomputed_tokens or 0)
    return hits / possible if possible else 1.0
