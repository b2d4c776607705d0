"""Continuum: a time to live for the KV cache of sessions at a tool."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState
from holdfast.core.turn import Admission, Budget, Turn
from holdfast.policies.base import (
    Policy,
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
_ENDED = (SessionState.CLOSED, SessionState.SUPERSEDED)


class Continuum(Policy):
    """A finished turn's KV is pinned for the time to live that pays most.

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
        differs="eta is 1, the paper's cold value; delays are averaged over the last 100 turns, "
        "as its window is unpublished; pins give way when nothing else can run.",
    )
    orders_requests = True
    rescore_interval_steps = 1

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._pinned_until_s: dict[Session, float] = self.per_session()
        self._all: deque[float] = deque(maxlen=_MAX_SAMPLES)
        self._by_tool: dict[str, deque[float]] = {}
        self._delays_s: deque[float] = deque(maxlen=_NUM_DELAYS)
        self._missed: set[Turn] = set()

    def turn_arrived(self, turn: Turn) -> None:
        """Learn the pause's length, and whether the pin was still alive."""
        session = turn.session
        if session.gap is not None and session.num_turns > 1:
            gap_s = self.context.now_s - session.paused_at_s
            self._all.append(gap_s)
            tool = session.gap.tool or session.gap.kind
            self._by_tool.setdefault(tool, deque(maxlen=_MAX_SAMPLES)).append(gap_s)
        if self._pinned_until_s.pop(session, -math.inf) < self.context.now_s:
            self._missed.add(turn)

    def turn_started(self, turn: Turn) -> None:
        """Learn the queueing delay of a turn without a live pin."""
        if turn in self._missed:
            self._missed.discard(turn)
            self._delays_s.append(self.context.now_s - turn.arrived_s)

    def turn_ended(self, turn: Turn) -> None:
        """A turn that was given up while it waited has no delay."""
        self._missed.discard(turn)

    def pause_known(self, session: Session) -> None:
        """Set the pin; humans get none."""
        if session.state is SessionState.HUMAN_AWAY:
            self._pinned_until_s.pop(session, None)
            return
        self._pinned_until_s[session] = session.paused_at_s + self._time_to_live_s(session)

    def score(self, session: Session) -> float:
        """1 while the pin is alive or the session in the engine, else 0."""
        if session.state in _ENDED:
            return 0.0
        is_pinned = self._pinned_until_s.get(session, -math.inf) >= self.context.now_s
        return 1.0 if is_pinned or session.state.is_busy else 0.0

    def priority(self, node: Node[Any]) -> Priority:
        """Pinned last; the rest least recently used."""
        is_pinned = any(user.rate > 0 and not user.state.is_busy for user in users_of(node))
        return (PriorityClass.PINNED if is_pinned else PriorityClass.LIVE), 0.0

    def retains(self, session: Session) -> bool:
        """While the pin is alive."""
        return self.score(session) > 0

    def decide(self, waiting: Sequence[Turn], room: Budget) -> Admission:
        """Offer by the program's first arrival, as far as the pins leave room."""
        decision = Admission()
        expired = [s for s in room.places() if self.score(s) <= 0]
        decision.releases += expired
        room.blocks += sum(room.freed_by(session) for session in expired)
        order = sorted(waiting, key=lambda t: (t.priority, t.session.number, t.sequence))
        decision.offer_while_room(order, room)
        return decision

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
