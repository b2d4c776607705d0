"""The simulator's interface to an engine: submit requests, plan a step, end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast.core.commands import Command
from holdfast.core.results import Counters

__all__ = ["SimEngine", "SimOutcome", "SimRequest", "SimStep"]


@dataclass(frozen=True, slots=True)
class SimRequest:
    """One request to the engine.

    Attributes:
        request_id: Unique in a run.
        block_keys: One key for each leading full block that others may share; equal keys mean
            equal prefixes up to that block. All other blocks are the request's own.
        prompt_tokens: Length of the prompt, >= 1.
        output_tokens: Exact length of the answer, >= 1.
        hints: The hints of `vllm_xargs`.
        session_id: Explicit session id, or None.
        stream: Its session, for routers that go by the client; the engine does not see it.
    """

    request_id: str
    block_keys: Sequence[bytes]
    prompt_tokens: int
    output_tokens: int
    hints: dict[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    stream: str = ""


@dataclass(frozen=True, slots=True)
class SimStep:
    """A planned engine step, or several equal steps that only decode.

    Attributes:
        work: For each running request: new tokens and tokens of context.
        decodes: The same for requests that decode one token in each of `repeats` steps, with their
            mean context.
        repeats: Number of engine steps in this one, >= 1.
        cached_tokens: For each admitted request: prompt tokens in the cache or loaded from a lower
            tier.
        loaded_tokens: For each admitted request: those of them that were loaded.
        stall_s: Wait for copies before the step starts (s).
    """

    work: Sequence[tuple[int, int]]
    decodes: Sequence[tuple[int, int]]
    repeats: int
    cached_tokens: dict[str, int]
    loaded_tokens: dict[str, int] = field(default_factory=dict)
    stall_s: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether no request runs in the step."""
        return not self.work and not self.decodes


@dataclass(frozen=True, slots=True)
class SimOutcome:
    """The outcome of a step.

    Attributes:
        started: Requests that produced their first token.
        finished: Requests whose answer is complete.
        num_output_tokens: Tokens of answers produced (count).
        lost: Requests whose answer broke off with their engine; they are sent again.
    """

    started: Sequence[str]
    finished: Sequence[str]
    num_output_tokens: int = 0
    lost: Sequence[str] = ()


class SimEngine(Protocol):
    """An engine without a worker: it makes real decisions and computes no tokens."""

    def command(self, command: Command) -> None:
        """Take in what an application says outside of requests. Mutates the engine."""

    def submit(self, request: SimRequest) -> None:
        """Queue a request. Mutates the engine."""

    def plan_step(self, most_repeats: int = 1) -> SimStep:
        """Plan a step, which may have no work. Mutates the engine.

        Args:
            most_repeats: Maximum number of steps in one, if each only decodes one more token for
                the same requests.
        """

    def end_step(self) -> SimOutcome:
        """End the planned step. Mutates the engine."""

    def counters(self) -> Counters:
        """Counters since the engine was built. Pure."""
