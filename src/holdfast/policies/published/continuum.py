"""Continuum: a time to live for the KV cache of sessions at a tool."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

from holdfast.cache.prefix_tree import Node
from holdfast.core.events import Event, PauseExplained, TurnArrived, TurnEnded, TurnStarted
from holdfast.core.session import Session, SessionState
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget, admit_while_they_fit
from holdfast.policies.base import (
    AdmissionPolicy,
    EvictionPolicy,
    PolicyContext,
    PolicySpec,
    Priority,
    PriorityClass,
    users_of,
)

__all__ = ["Continuum"]

_MIN_SAMPLES = 100
_MAX_SAMPLES = 2_000
_NUM_DELAYS = 100


class Continuum(EvictionPolicy, AdmissionPolicy):
    """Pins a finished turn's KV for the time to live of the largest expected benefit.

    tau = argmax P(tool <= tau) * B - tau over the durations seen, where B is the mean queueing
    delay of turns that found no live pin, times eta, plus the time to recompute the context.
    Requests of the program that arrived first go first; pinned blocks are not given to others.

    Source: Continuum, arXiv 2511.02230: eq. 2, 100 samples before a tool's own durations count,
    exponential cold start, program-level first come first served.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="continuum",
        summary="Pins a paused session's KV for a time to live that maximises its expected "
        "benefit; programs first come, first served.",
        source="Continuum, arXiv 2511.02230",
        differs="eta is 1, the paper's cold value; delays are averaged over the last 100 turns "
        "without a live pin, first turns among them, as its window is unpublished; B counts "
        "recomputation even where a lower tier stores a copy; no program announces its last turn; "
        "pins are released when nothing else can run.",
    )
    rescore_interval_steps = 1

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._pinned_until_s: dict[Session, float] = context.per_session()
        self._all: deque[float] = deque(maxlen=_MAX_SAMPLES)
        self._by_tool: dict[str, deque[float]] = {}
        self._delays_s: deque[float] = deque(maxlen=_NUM_DELAYS)
        self._missed: set[Turn] = set()

    def observe(self, event: Event) -> None:
        """Learn pauses and queueing delays, set pins. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._learn_pause(turn)
            case TurnStarted(time_s=time_s, turn=turn) if turn in self._missed:
                self._missed.discard(turn)
                self._delays_s.append(time_s - turn.arrived_s)
            case TurnEnded(turn=turn):
                self._missed.discard(turn)  # an aborted turn has no delay
            case PauseExplained(session=session):
                self._pin(session)

    def _learn_pause(self, turn: Turn) -> None:
        """Learn the pause's length, and whether the pin was still alive."""
        session = turn.session
        if session.gap is not None and session.num_turns > 1:
            gap_s = self.context.now_s - session.paused_at_s
            self._all.append(gap_s)
            tool = session.gap.tool or session.gap.kind
            self._by_tool.setdefault(tool, deque(maxlen=_MAX_SAMPLES)).append(gap_s)
        if self._pinned_until_s.pop(session, -math.inf) < self.context.now_s:
            self._missed.add(turn)

    def _pin(self, session: Session) -> None:
        """Set the pin; a session whose human is away gets none."""
        if session.state is SessionState.HUMAN_AWAY:
            self._pinned_until_s.pop(session, None)
            return
        self._pinned_until_s[session] = session.paused_at_s + self._time_to_live_s(session)

    def session_priority(self, session: Session) -> float:
        """1 while the pin is alive or the session in the engine, else 0."""
        if session.state.is_ended:
            return 0.0
        is_pinned = self._pinned_until_s.get(session, -math.inf) >= self.context.now_s
        return 1.0 if is_pinned or session.state.is_busy else 0.0

    def priority(self, node: Node[Any]) -> Priority:
        """Pinned last; the rest least recently used."""
        is_pinned = any(
            user.retention_priority > 0 and not user.state.is_busy for user in users_of(node)
        )
        return (PriorityClass.PINNED if is_pinned else PriorityClass.LIVE), 0.0

    def retains(self, session: Session) -> bool:
        """While the pin is alive."""
        return self.session_priority(session) > 0

    def admit(self, waiting: Sequence[Turn], budget: Budget) -> Admission:
        """Admit by the program's first arrival, as far as pins leave blocks."""
        expired = [s for s in budget.reservations() if self.session_priority(s) <= 0]
        order = sorted(waiting, key=lambda t: (t.priority, t.session.number, t.sequence))
        return admit_while_they_fit(order, budget, expired)

    def _time_to_live_s(self, session: Session) -> float:
        delay_s = sum(self._delays_s) / len(self._delays_s) if self._delays_s else 0.0
        benefit_s = delay_s + self.context.restore_s(session.tail.end)
        own = self._by_tool.get(session.gap.tool or session.gap.kind, ())
        samples = own if len(own) >= _MIN_SAMPLES else self._all
        if len(samples) < _MIN_SAMPLES:
            return math.log(benefit_s) if benefit_s > 1.0 else 0.0
        ordered = sorted(samples)
        best_s, best_value_s = 0.0, 0.0
        for tau_s in ordered:
            if tau_s > benefit_s:
                break
            share = bisect.bisect_right(ordered, tau_s) / len(ordered)
            if share * benefit_s - tau_s > best_value_s:
                best_s, best_value_s = tau_s, share * benefit_s - tau_s
        return best_s
