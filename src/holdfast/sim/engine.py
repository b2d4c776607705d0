"""What the simulator needs of an engine: take requests, plan a step, end it when its time is up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast.core.results import Counters

__all__ = ["SimEngine", "SimOutcome", "SimRequest", "SimStep"]


@dataclass(frozen=True, slots=True)
class SimRequest:
    """One request to the engine.

    Attributes:
        request_id: Unique in a run.
        block_keys: One key for each full block of the prompt that others may share; equal keys
            mean equal prefixes up to there. Blocks beyond them are the request's own.
        prompt_tokens: Length of the prompt, >= 1.
        output_tokens: Exact length of the answer, >= 1.
        hints: What `vllm_xargs` would carry.
        session_id: Explicit session, or None.
    """

    request_id: str
    block_keys: Sequence[bytes]
    prompt_tokens: int
    output_tokens: int
    hints: dict[str, Any] = field(default_factory=dict)
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class SimStep:
    """One engine step that was planned, or several that only decode.

    Attributes:
        work: For each request that ran: tokens computed, and tokens of it computed before.
        decodes: The same for requests that decoded one token in each of `repeats` steps, with
            their mean context.
        repeats: Engine steps that this one stands for, >= 1.
        cached_tokens: For each request that was let in: prompt tokens found in the cache, or
            brought back from a lower tier.
        stall_s: Time that the step waits for copies before it begins (s).
    """

    work: Sequence[tuple[int, int]]
    decodes: Sequence[tuple[int, int]]
    repeats: int
    cached_tokens: dict[str, int]
    stall_s: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs in it."""
        return not self.work and not self.decodes


@dataclass(frozen=True, slots=True)
class SimOutcome:
    """What a step brought about.

    Attributes:
        started: Requests that produced their first token.
        finished: Requests whose answer is complete.
    """

    started: Sequence[str]
    finished: Sequence[str]


class SimEngine(Protocol):
    """An engine without a worker: decisions are real, tokens are not computed."""

    def submit(self, request: SimRequest) -> None:
        """Take in a request. Mutates the engine."""

    def plan_step(self, most_repeats: int = 1) -> SimStep:
        """Plan a step, which may have no work. Mutates the engine.

        Args:
            most_repeats: Steps that may be taken at once where each would only decode one token
                more for the same requests.
        """

    def end_step(self) -> SimOutcome:
        """The time of the planned step is over. Mutates the engine."""

    def counters(self) -> Counters:
        """What was counted since the engine was built. Pure."""
