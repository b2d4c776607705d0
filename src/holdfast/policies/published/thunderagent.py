"""ThunderAgent: programs paused and resumed against the cache's capacity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from holdfast.core.events import Event, TurnArrived
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget
from holdfast.policies.base import AdmissionPolicy, PolicyContext, PolicySpec

__all__ = ["ThunderAgent"]

_PERIOD_S = 5.0
_ACTIVE_TOKENS = 100
_FORCE_RESUME_S = 1800.0


class ThunderAgent(AdmissionPolicy):
    """Runs only as many programs as the cache can hold, like a proxy in front of it.

    Every five seconds: while the tokens of programs that are not paused exceed the capacity, pause
    programs, those at a tool first, the smallest first; then resume the largest that fit. Requests
    of paused programs wait, at most half an hour. Order and eviction are vLLM's.

    Source: ThunderAgent, arXiv 2602.13692 and its repository: used = reasoning + acting + 100 an
    active program, smallest paused first, best fit decreasing, 30 min force resume.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="thunderagent",
        summary="Pauses programs every 5 s so that their contexts fit the cache; resumes best fit "
        "decreasing.",
        source="ThunderAgent, arXiv 2602.13692",
        differs="Runs inside the engine with exact token counts, in which a shared prefix counts "
        "for each program; tokens do not decay; all programs with a waiting request resume before "
        "others; a program at rest longer than all others' gaps still counts, as no program tells "
        "that it has ended except by its last turn.",
    )

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._programs: dict[Session, None] = context.per_session()
        self._paused_s: dict[Session, float] = context.per_session()
        self._checked_s = float("-inf")

    def observe(self, event: Event) -> None:
        """Pause a new program that does not fit beside the others. Mutates."""
        match event:
            case TurnArrived(time_s=time_s, turn=turn) if turn.session not in self._programs:
                self._programs[turn.session] = None
                if self._used_tokens() > self._capacity_tokens and len(self._programs) > 1:
                    self._paused_s[turn.session] = time_s

    def admit(self, waiting: Sequence[Turn], budget: Budget) -> Admission:
        """Admit unpaused turns in order of arrival. Mutates which programs are paused."""
        if budget.now_s - self._checked_s >= _PERIOD_S:
            self._checked_s = budget.now_s
            self._balance({turn.session for turn in waiting})
        admitted = [turn for turn in waiting if turn.session not in self._paused_s]
        if waiting and not admitted and not budget.num_running:
            first = waiting[0]
            self._paused_s.pop(first.session, None)
            admitted = [first]
        return Admission(admitted)

    @property
    def _capacity_tokens(self) -> int:
        return self.context.capacity_blocks * self.context.block_tokens

    def _tokens(self, session: Session) -> int:
        return session.tail.end * self.context.block_tokens + _ACTIVE_TOKENS

    def _used_tokens(self) -> int:
        return sum(self._tokens(s) for s in self._programs if s not in self._paused_s)

    def _balance(self, waiting: set[Session]) -> None:
        for session in [s for s in self._programs if not _is_alive(s)]:
            del self._programs[session]
            self._paused_s.pop(session, None)
        used = self._used_tokens()
        if used > self._capacity_tokens:
            active = [s for s in self._programs if s not in self._paused_s]
            active.sort(key=lambda s: (s.state.is_busy, self._tokens(s)))
            for session in active[:-1]:
                if used <= self._capacity_tokens:
                    break
                self._paused_s[session] = self.context.now_s
                used -= self._tokens(session)
        paused = sorted(self._paused_s, key=lambda s: (s in waiting, self._tokens(s)), reverse=True)
        for session in paused:
            is_overdue = self.context.now_s - self._paused_s[session] > _FORCE_RESUME_S
            if is_overdue or used + self._tokens(session) <= self._capacity_tokens:
                del self._paused_s[session]
                used += self._tokens(session)


def _is_alive(session: Session) -> bool:
    return session.state.is_busy or session.state.is_paused
