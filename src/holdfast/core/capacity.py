"""How many sessions fit an engine: the records of a plan.

The keys of `CapacityPlan` are a published contract.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

__all__ = ["SCHEMA", "Capacity", "CapacityPlan", "Method", "ObservedEngine", "Span"]

SCHEMA = "holdfast.plan/1"

Method = Literal["estimate", "simulated"]


class Span(msgspec.Struct, frozen=True):
    """A number of sessions and its uncertainty.

    Attributes:
        median: Over resampled sessions or over seeds.
        low: The lowest of them; of an estimate the 5th percentile.
        high: The highest of them; of an estimate the 95th percentile.
    """

    median: float
    low: float
    high: float


class Capacity(msgspec.Struct, frozen=True):
    """What one set-up holds.

    Attributes:
        setup: Name of the set-up.
        method: How it was found.
        fits: Most sessions at once that keep 95 % of what an infinite cache hits; None if the
            search ended before they lost it.
        cliff: Sessions at once that lose half of what an infinite cache hits; None likewise.
        searched_to: Most sessions that were looked at (count).
        engines: Engines for the developers that were asked about; None without.
        uncovered: Whether a load of this size is outside what the profile was fitted to.
        curve: Sessions at once, and the share that they keep of what an infinite cache hits.
    """

    setup: str
    method: Method
    fits: Span | None
    cliff: Span | None
    searched_to: int
    engines: int | None = None
    uncovered: bool = False
    curve: list[tuple[float, float]] = []

    @staticmethod
    def engines_for(num_developers: int | None, fits: Span | None, searched_to: int) -> int | None:
        """Engines for so many sessions at once, each with at most those that fit. Pure."""
        if num_developers is None:
            return None
        most = math.floor(fits.median) if fits is not None else searched_to
        return math.ceil(num_developers / max(most, 1))


class ObservedEngine(msgspec.Struct, frozen=True):
    """What a running engine was seen to do.

    Attributes:
        url: Its address.
        policy: Name of its policy.
        num_live: Sessions that run, wait or pause (count).
        num_turns: Turns that the plan goes by (count).
        observed_s: Time for which it was watched (s); 0 for one look.
        hit_ratio: Cached ÷ prompt tokens of those turns.
        possible_hit_ratio: The same with an infinite cache.
    """

    url: str
    policy: str
    num_live: int
    num_turns: int
    observed_s: float
    hit_ratio: float | None
    possible_hit_ratio: float | None


class CapacityPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `holdfast plan`.

    Attributes:
        sentence: It in one sentence.
        profile: Name of the cost profile.
        kv_tokens: Size of the KV cache.
        host_tokens: Size of the host tier; 0 for none.
        num_developers: Sessions at once that engines are wanted for; None for none.
        num_sessions: Sessions of the traces that fit the cache alone.
        num_outgrown: Those that do not, left out.
        mean_prompt_tokens: Mean length of a prompt.
        best_hit_ratio: Hits of an infinite cache.
        rule: Sessions at which sessions x mean prompt reach 0.75 and 0.87 of the KV cache.
        capacities: The set-ups, stock vLLM first.
        warnings: What makes the figures less certain.
        manifest: Inputs and versions.
        source: "traces", "study" or "engine".
        observed: The engine, if the plan is from one.
    """

    sentence: str
    profile: str
    kv_tokens: int
    host_tokens: int
    num_developers: int | None
    num_sessions: int
    num_outgrown: int
    mean_prompt_tokens: float
    best_hit_ratio: float
    rule: tuple[float, float]
    capacities: list[Capacity]
    warnings: list[str]
    manifest: dict[str, Any]
    source: str = "traces"
    observed: ObservedEngine | None = None
    schema: str = SCHEMA
