"""ThunderAgent: programs paused and resumed against the cache's capacity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from holdfast.core.session import Session
from holdfast.core.turn import Admission, Budget, Turn
from holdfast.policies.base import Policy, PolicyContext, PolicySpec

__all__ = ["ThunderAgent"]

_PERIOD_S = 5.0
_ACTIVE_TOKENS = 100
_FORCE_RESUME_S = 1800.0


class ThunderAgent(Policy):
    """A proxy that lets only so many programs through as the cache can hold.

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
        differs="Runs inside the engine with exact token counts; a program at rest longer than all "
        "others' gaps still counts, as no program tells that it has ended except by its last turn.",
    )
    orders_requests = True

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._programs: dict[Session, None] = self.per_session()
        self._paused_s: dict[Session, float] = self.per_session()
        self._checked_s = float("-inf")

    def turn_arrived(self, turn: Turn) -> None:
        """A new program is let through if it fits beside the others."""
        if turn.session in self._programs:
            return
        self._programs[turn.session] = None
        if self._used_tokens() > self._capacity_tokens and len(self._programs) > 1:
            self._paused_s[turn.session] = self.context.now_s

    def decide(self, waiting: Sequence[Turn], room: Budget) -> Admission:
        """Offer what is not paused, in order of arrival."""
        if room.now_s - self._checked_s >= _PERIOD_S:
            self._checked_s = room.now_s
            self._balance({turn.session for turn in waiting})
        offers = [turn for turn in waiting if turn.session not in self._paused_s]
        if not offers and not room.num_running:
            first = waiting[0]
            self._paused_s.pop(first.session, None)
            offers = [first]
        return Admission(offers=offers)

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
