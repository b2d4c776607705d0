"""Measures sub-agents: number per turn, size, and waits of their parents."""

from __future__ import annotations

from array import array
from collections import Counter

import msgspec

from holdfast.workload.study.distribution import Distribution, distribution_of
from holdfast.workload.study.steps import SteppedSession

__all__ = ["FanOut", "FanOutMeter"]


class FanOut(msgspec.Struct, frozen=True):
    """Sub-agents.

    Attributes:
        num_subagents: Number of sub-agents.
        num_by_agent: Number by type; "" where unknown.
        num_each: Sub-agents of each session without a parent.
        num_per_call: Parallel sub-agents of each turn that called any.
        num_turns_each: Turns of each sub-agent.
        first_prompt_tokens: First prompt of each sub-agent.
        peak_prompt_tokens: Largest prompt of each sub-agent.
        parent_gap_s: Gap of the parent after each turn that called any.
    """

    num_subagents: int
    num_by_agent: dict[str, int]
    num_each: Distribution
    num_per_call: Distribution
    num_turns_each: Distribution
    first_prompt_tokens: Distribution
    peak_prompt_tokens: Distribution
    parent_gap_s: Distribution


class FanOutMeter:
    """Accumulates families of sessions."""

    def __init__(self) -> None:
        self._num_by_agent: Counter[str] = Counter()
        self._num_each = array("d")
        self._num_per_call = array("d")
        self._num_turns = array("d")
        self._first = array("d")
        self._peak = array("d")
        self._parent_gap_s = array("d")

    def add(self, family: tuple[SteppedSession, ...]) -> None:
        """Add a family, its main agent first."""
        called = family[1:] if family[0].parent is None else family
        if family[0].parent is None:
            self._num_each.append(len(called))
        for session in called:
            prompts = [step.turn.prompt_tokens for step in session.steps]
            self._num_by_agent[session.agent] += 1
            self._num_turns.append(len(prompts))
            self._first.append(prompts[0])
            self._peak.append(max(prompts))
        self._add_calls(family)

    def _add_calls(self, family: tuple[SteppedSession, ...]) -> None:
        calls = Counter((session.parent, session.parent_turn) for session in family)
        steps_of = {session.index: session.steps for session in family}
        for (parent, turn_index), num_called in calls.items():
            if parent not in steps_of or turn_index is None:
                continue
            self._num_per_call.append(num_called)
            steps = steps_of[parent]
            if turn_index + 1 < len(steps):
                self._parent_gap_s.append(steps[turn_index + 1].turn.gap_s)

    def result(self) -> FanOut:
        """The result for the families added so far."""
        return FanOut(
            num_subagents=sum(self._num_by_agent.values()),
            num_by_agent=dict(self._num_by_agent.most_common()),
            num_each=distribution_of(self._num_each),
            num_per_call=distribution_of(self._num_per_call),
            num_turns_each=distribution_of(self._num_turns),
            first_prompt_tokens=distribution_of(self._first),
            peak_prompt_tokens=distribution_of(self._peak),
            parent_gap_s=distribution_of(self._parent_gap_s),
        )
