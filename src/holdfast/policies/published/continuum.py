"""Continuum: a time to live for the KV cache of sessions at a tool."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from holdfast.cache.prefix_tree import Node
from holdfast.core.events import (
    Event,
    PauseExplained,
    SessionClosed,
    TurnArrived,
    TurnEnded,
    TurnStarted,
)
from holdfast.core.session import Session, SessionState
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget, admit_while_they_fit
from holdfast.policies.base import (
    AdmissionPolicy,
    EvictionPolicy,
    PolicyContext,
    PolicySettings,
    PolicySpec,
    Priority,
    PriorityClass,
    users_of,
)

__all__ = ["Continuum", "ContinuumSettings"]

_MAX_SAMPLES = 2_000


class ContinuumSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `Continuum`.

    Attributes:
        min_samples: Durations before a tool's own, or all, are used (count, >= 1). The paper's K.
        delay_window: Queueing delays that are averaged (count, >= 1). Ours: unpublished.
        cold_eta: Eta until ended programs tell it (0 to 1). The paper's.
        fixed_ttl_s: A time to live in place of the estimate (s, >= 0); None for the estimate. The
            public fork has 2.
    """

    min_samples: Annotated[int, Meta(ge=1)] = 100
    delay_window: Annotated[int, Meta(ge=1)] = 100
    cold_eta: Annotated[float, Meta(ge=0, le=1)] = 1.0
    fixed_ttl_s: Annotated[float, Meta(ge=0)] | None = None


class Continuum(EvictionPolicy, AdmissionPolicy):
    """Pins a finished turn's KV for the time to live of the largest expected benefit.

    tau = argmax P(tool <= tau) * B - tau over the durations seen, where B is the mean queueing
    delay of later turns that found no live pin, times eta, plus the time to recompute the context,
    or to load it. Eta is minus the correlation of the turns that a program has begun and those to
    come, over programs that have ended. Requests of the program that arrived first go first; pinned
    blocks are not given to others.

    Source: Continuum, arXiv 2511.02230: eq. 2, 100 samples before a tool's own durations count,
    exponential cold start, eta, program-level first come first served.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="continuum",
        summary="Pins a paused session's KV for a time to live that maximises its expected "
        "benefit; programs first come, first served.",
        source="Continuum, arXiv 2511.02230",
        differs="Delays are averaged over the last 100, as the paper's window is unpublished; the "
        "time to recompute is the engine's own, not a quadratic fit; eta takes all turns of ended "
        "programs; pins are released when nothing else can run.",
        settings=ContinuumSettings,
    )
    rescore_interval_steps = 1
    settings: ContinuumSettings

    def __init__(self, context: PolicyContext, settings: ContinuumSettings) -> None:
        super().__init__(context, settings)
        self._pinned_until_s: dict[Session, float] = context.per_session()
        self._all: deque[float] = deque(maxlen=_MAX_SAMPLES)
        self._by_tool: dict[str, deque[float]] = {}
        self._delays_s: deque[float] = deque(maxlen=settings.delay_window)
        self._missed: set[Turn] = set()
        self._turns_left = _Correlation()

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
            case SessionClosed(session=session):
                for number in range(1, session.num_turns + 1):
                    self._turns_left.add(number, session.num_turns - number)

    def _learn_pause(self, turn: Turn) -> None:
        """Learn the pause's length, and whether the pin was still alive."""
        session = turn.session
        if session.gap is not None and session.num_turns > 1:
            gap_s = self.context.now_s - session.paused_at_s
            self._all.append(gap_s)
            tool = session.gap.tool or session.gap.kind
            self._by_tool.setdefault(tool, deque(maxlen=_MAX_SAMPLES)).append(gap_s)
        has_pin = self._pinned_until_s.pop(session, -math.inf) >= self.context.now_s
        if not has_pin and session.num_turns > 1:
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

    @property
    def _eta(self) -> float:
        """Minus the correlation of turns begun and turns to come, 0 to 1."""
        value = self._turns_left.value
        return self.settings.cold_eta if value is None else min(max(-value, 0.0), 1.0)

    def _benefit_s(self, session: Session) -> float:
        """What a live pin saves: queueing, and computing or loading the context (s)."""
        delay_s = sum(self._delays_s) / len(self._delays_s) if self._delays_s else 0.0
        restore_s = self.context.restore_s(session.tail.end)
        if self.context.tier.num_stored(session.prompt_tail.hashes[-1:], 0, 1):
            restore_s = min(restore_s, self.context.tier.load_s(session.tail.end))
        return delay_s * self._eta + restore_s

    def _time_to_live_s(self, session: Session) -> float:
        if self.settings.fixed_ttl_s is not None:
            return self.settings.fixed_ttl_s
        benefit_s = self._benefit_s(session)
        own = self._by_tool.get(session.gap.tool or session.gap.kind, ())
        samples = own if len(own) >= self.settings.min_samples else self._all
        if len(samples) < self.settings.min_samples:
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


class _Correlation:
    """Pearson's correlation of pairs, as they come."""

    def __init__(self) -> None:
        self._num = self._x = self._y = self._xx = self._yy = self._xy = 0

    def add(self, x: int, y: int) -> None:
        """Take in a pair. Mutates."""
        self._num += 1
        self._x += x
        self._y += y
        self._xx += x * x
        self._yy += y * y
        self._xy += x * y

    @property
    def value(self) -> float | None:
        """The correlation, -1 to 1; None while either side has been the same throughout."""
        spread_x = self._num * self._xx - self._x * self._x
        spread_y = self._num * self._yy - self._y * self._y
        if not spread_x or not spread_y:
            return None
        return (self._num * self._xy - self._x * self._y) / math.sqrt(spread_x * spread_y)
