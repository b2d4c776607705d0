"""llm-d's port of ThunderAgent: a gate that takes space from idle sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from msgspec import Meta

from holdfast.core.events import Event, IntervalPassed, TurnArrived, TurnEnded, TurnStarted
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget
from holdfast.policies.base import AdmissionPolicy, PolicyContext, PolicySettings, PolicySpec

__all__ = ["LlmdThunderAgent", "LlmdThunderAgentSettings"]


class LlmdThunderAgentSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `LlmdThunderAgent`, as its author measured it.

    Attributes:
        util_threshold: Share of the KV cache that admitted sessions may fill (> 0).
        idle_lease_s: Time for which an idle session keeps its space (s, >= 0).
        starvation_s: Time after which a turn starts though it does not fit (s, > 0); the plugin's
            own default is 30 s.
        eviction_ttl_s: Time after which an idle session is new again (s, > 0).
        sweep_s: Time between looks for such sessions (s, > 0).
    """

    util_threshold: Annotated[float, Meta(gt=0)] = 1.0
    idle_lease_s: Annotated[float, Meta(ge=0)] = 30.0
    starvation_s: Annotated[float, Meta(gt=0)] = 1800.0
    eviction_ttl_s: Annotated[float, Meta(gt=0)] = 3600.0
    sweep_s: Annotated[float, Meta(gt=0)] = 10.0


class LlmdThunderAgent(AdmissionPolicy):
    """Turns of admitted sessions start; paused and new sessions wait until they fit.

    A session fits if the contexts of admitted sessions, without those idle for longer than the
    lease, leave space for it; the longest idle release their space when it starts, and are paused.
    They do so too when an admitted session outgrows the cache. Paused sessions come before new
    ones, the smallest first, and one that does not fit holds up no other. A turn that has waited
    for half an hour starts before all others.

    Source: the `thunder-agent` plugin of llm-d-router, pull request 3076, as measured.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="llm-d-thunderagent",
        summary="Admits sessions whose contexts fit the cache beside those that ran in the last "
        "30 s.",
        source="llm-d-router pull request 3076, after ThunderAgent, arXiv 2602.13692",
        differs="One engine; exact token counts instead of 4 bytes a token; a session leaves the "
        "books when Holdfast takes it to have ended; while nothing runs the first waiting turn "
        "starts; of more than 64 waiting turns the gate sees 64.",
        settings=LlmdThunderAgentSettings,
    )
    settings: LlmdThunderAgentSettings

    def __init__(self, context: PolicyContext, settings: LlmdThunderAgentSettings) -> None:
        super().__init__(context, settings)
        self.interval_s = settings.sweep_s
        self._admitted: dict[Session, None] = context.per_session()
        self._paused: dict[Session, None] = context.per_session()
        self._waiting: dict[Session, Turn] = context.per_session()

    def observe(self, event: Event) -> None:
        """Follow sessions; a turn that starts takes its space from idle ones. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._waiting[turn.session] = turn
            case TurnStarted(time_s=time_s, turn=turn):
                self._waiting.pop(turn.session, None)
                self._paused.pop(turn.session, None)
                self._admitted[turn.session] = None
                self._reclaim(time_s)
            case TurnEnded(turn=turn):
                self._waiting.pop(turn.session, None)
            case IntervalPassed(time_s=time_s):
                self._sweep(time_s)

    def admit(self, waiting: Sequence[Turn], budget: Budget) -> Admission:
        """Admit starving turns, then those of admitted sessions, then what fits. Pure."""
        now_s = budget.now_s
        space = self._space_tokens() + sum(map(self._tokens, self._reclaimable(now_s)))
        admitted: list[Turn] = []
        lacking: list[Turn] = []
        for turn in sorted(waiting, key=lambda t: self._order(t, now_s)):
            if turn.session not in self._admitted:
                if not self._starves(turn, now_s) and self._needed(turn.session) > space:
                    lacking.append(turn)
                    continue
                space -= self._tokens(turn.session)
            admitted.append(turn)
        return Admission(admitted, lacking=lacking)

    def holds(self, session: Session) -> bool:
        """Unless it is admitted, its turn may have to wait."""
        return session not in self._admitted

    def _order(self, turn: Turn, now_s: float) -> tuple[int, int, int]:
        if self._starves(turn, now_s):
            return 0, 0, turn.sequence
        session = turn.session
        rank = 1 if session in self._admitted else 2 if session in self._paused else 3
        return rank, self._tokens(session), turn.sequence

    def _starves(self, turn: Turn, now_s: float) -> bool:
        return now_s - turn.arrived_s >= self.settings.starvation_s

    def _reclaim(self, now_s: float) -> None:
        """Pause idle sessions, the longest idle first, until the rest fits."""
        space = self._space_tokens()
        for session in self._reclaimable(now_s):
            if space >= 0:
                return
            del self._admitted[session]
            self._paused[session] = None
            space += self._tokens(session)

    def _reclaimable(self, now_s: float) -> list[Session]:
        """Admitted sessions idle for longer than the lease, the longest first."""
        lease_s = self.settings.idle_lease_s
        idle = [s for s in self._admitted if s.state.is_paused and now_s - s.paused_at_s >= lease_s]
        return sorted(idle, key=lambda s: s.paused_at_s)

    def _sweep(self, now_s: float) -> None:
        """Forget sessions that have ended or are idle past the time to live."""
        ttl_s = self.settings.eviction_ttl_s
        for books in (self._admitted, self._paused):
            for session in list(books):
                is_stale = not session.state.is_busy and now_s - session.paused_at_s > ttl_s
                if is_stale or session.state.is_ended:
                    del books[session]

    @property
    def _ceiling_tokens(self) -> float:
        capacity = self.context.capacity_blocks * self.context.block_tokens
        return self.settings.util_threshold * capacity

    def _space_tokens(self) -> float:
        """What admitted sessions leave (tokens; below 0 if they outgrow the cache)."""
        used = sum(self._tokens(s) for s in self._admitted if not s.state.is_ended)
        return self._ceiling_tokens - used

    def _needed(self, session: Session) -> float:
        """Space that a session needs (tokens): one larger than the cache needs all of it."""
        return min(self._tokens(session), self._ceiling_tokens)

    def _tokens(self, session: Session) -> int:
        return session.tail.end * self.context.block_tokens
