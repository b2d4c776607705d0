"""ThunderAgent: programs paused and resumed against the cache's capacity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar

from msgspec import Meta

from holdfast.core.events import Event, IntervalPassed, TurnArrived, TurnEnded, TurnStarted
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget
from holdfast.policies.base import AdmissionPolicy, PolicyContext, PolicySettings, PolicySpec

__all__ = ["ThunderAgent", "ThunderAgentSettings"]


class ThunderAgentSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `ThunderAgent`: its repository's defaults, with decay.

    Attributes:
        period_s: Time between balances (s, > 0).
        buffer_tokens: What an active program counts beside its context (tokens, >= 0).
        acting_weight: Weight of the contexts of programs at a tool (0 to 1).
        acting_half_life_s: Half-life of these contexts where paused programs are resumed (s, > 0);
            inf for none, which is the repository's router without `--use-acting-token-decay`.
        idle_lease_s: Time at a tool after which a program is paused though it fits (s, > 0); the
            repository has none.
        capacity_share: Share of the KV cache that active programs may fill (> 0).
        force_resume_s: Time after which a turn of a paused program starts anyhow (s, > 0).
    """

    period_s: Annotated[float, Meta(gt=0)] = 5.0
    buffer_tokens: Annotated[int, Meta(ge=0)] = 100
    acting_weight: Annotated[float, Meta(ge=0, le=1)] = 1.0
    acting_half_life_s: Annotated[float, Meta(gt=0)] = 1.0
    idle_lease_s: Annotated[float, Meta(gt=0)] = math.inf
    capacity_share: Annotated[float, Meta(gt=0)] = 1.0
    force_resume_s: Annotated[float, Meta(gt=0)] = 1800.0


class ThunderAgent(AdmissionPolicy):
    """Runs only as many programs as the cache can hold, like a proxy in front of it.

    Active programs use their contexts, less what running ones share, and a buffer each. A new
    program is active at once if none is paused and it fits. Every five seconds paused programs are
    resumed that fit, those with a waiting turn first, then new ones, then those at a tool, the
    smallest first; contexts at a tool count less by the second. Then, at full weight, programs at
    a tool are paused, the smallest first, until the rest fits; if it does not, every running
    program is paused when its turn ends. Turns of paused programs wait, at most half an hour. The
    order of turns is that of their release, the largest first, and eviction is vLLM's.

    Source: ThunderAgent, arXiv 2602.13692, and its repository's router with
    `--use-acting-token-decay`.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="thunderagent",
        summary="Pauses programs every 5 s so that their contexts fit the cache, and resumes those "
        "that fit, the smallest first.",
        source="ThunderAgent, arXiv 2602.13692; github.com/ThunderAgent-org/ThunderAgent",
        differs="Runs inside the engine with exact token counts, an answer's when it ends; a "
        "program is a session, and leaves the books when Holdfast takes it to have ended; while "
        "nothing runs the first waiting turn starts, where the router waits for its next period.",
        settings=ThunderAgentSettings,
    )
    settings: ThunderAgentSettings

    def __init__(self, context: PolicyContext, settings: ThunderAgentSettings) -> None:
        super().__init__(context, settings)
        self.interval_s = settings.period_s
        self._programs: dict[Session, None] = context.per_session()
        self._paused: dict[Session, None] = context.per_session()
        self._marked: dict[Session, None] = context.per_session()
        self._waiting: dict[Session, Turn] = context.per_session()
        self._released: dict[Session, tuple[float, int]] = context.per_session()
        self._shared_tokens = 0

    def observe(self, event: Event) -> None:
        """Follow programs; balance them every period. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._arrive(turn)
            case TurnStarted(turn=turn):
                self._waiting.pop(turn.session, None)
                self._paused.pop(turn.session, None)
            case TurnEnded(turn=turn):
                self._waiting.pop(turn.session, None)
                if turn.session in self._marked:
                    del self._marked[turn.session]
                    self._paused[turn.session] = None
            case IntervalPassed(time_s=time_s):
                self._balance(time_s)

    def admit(self, waiting: Sequence[Turn], budget: Budget) -> Admission:
        """Admit turns of active programs in order of arrival or release. Pure."""
        del budget
        active = [turn for turn in waiting if turn.session not in self._paused]
        paused = [turn for turn in waiting if turn.session in self._paused]
        return Admission(sorted(active, key=self._sent), lacking=paused)

    def holds(self, session: Session) -> bool:
        """While its program is paused."""
        return session in self._paused

    def _sent(self, turn: Turn) -> tuple[float, int]:
        """When and at which place a proxy sends a turn on."""
        return max((turn.arrived_s, 0), self._released.get(turn.session, (0.0, 0)))

    def _arrive(self, turn: Turn) -> None:
        session = turn.session
        self._waiting[session] = turn
        if session in self._programs:
            return
        needed = self._needed(session)
        if any(_is_alive(s) for s in self._paused) or needed > self._space_tokens():
            self._paused[session] = None
        self._programs[session] = None

    def _balance(self, now_s: float) -> None:
        for session in [s for s in self._programs if not _is_alive(s)]:
            for books in (self._programs, self._paused, self._marked):
                books.pop(session, None)
        for session in self._active():
            if (
                not session.state.is_busy
                and now_s - session.paused_at_s > self.settings.idle_lease_s
            ):
                self._paused[session] = None
        self._shared_tokens = self._shared(s for s in self._active() if s not in self._waiting)
        self._resume(now_s)
        self._pause()

    def _resume(self, now_s: float) -> None:
        """Resume paused programs that fit, and those whose turn has waited for too long."""
        space = self._space_tokens(decays=True)
        resumed = []
        for session in sorted(self._paused, key=self._resume_order):
            turn = self._waiting.get(session)
            is_overdue = turn and now_s - turn.arrived_s >= self.settings.force_resume_s
            if is_overdue or self._needed(session) <= space:
                resumed.append(session)
                space -= self._needed(session)
        for number, session in enumerate(sorted(resumed, key=self._tokens, reverse=True)):
            del self._paused[session]
            self._released[session] = (now_s, number)

    def _pause(self) -> None:
        """Pause programs at a tool until the rest fits, or mark all that run."""
        space = self._space_tokens()
        acting = [s for s in self._active() if not s.state.is_busy]
        for session in sorted(acting, key=self._tokens):
            if space >= 0:
                return
            self._paused[session] = None
            space += self.settings.acting_weight * self._tokens(session)
            space += self.settings.buffer_tokens
        if space < 0:
            self._marked.update(dict.fromkeys(self._active()))

    def _resume_order(self, session: Session) -> tuple[bool, bool, int]:
        is_new = session.num_turns == 1
        return session not in self._waiting and not is_new, is_new, self._tokens(session)

    def _active(self) -> list[Session]:
        return [s for s in self._programs if s not in self._paused and _is_alive(s)]

    def _space_tokens(self, *, decays: bool = False) -> float:
        """What is left of the capacity (tokens; below 0 if programs use more)."""
        used = float(-self._shared_tokens)
        for session in self._active():
            used += self.settings.buffer_tokens
            used += self._tokens(session) * self._weight(session, decays=decays)
        capacity = self.context.capacity_blocks * self.context.block_tokens
        return self.settings.capacity_share * capacity - used

    def _weight(self, session: Session, *, decays: bool) -> float:
        half_life_s = self.settings.acting_half_life_s
        if session.state.is_busy:
            return 1.0
        if not decays or half_life_s == math.inf:
            return self.settings.acting_weight
        return math.exp2((session.paused_at_s - self.context.now_s) / half_life_s)

    def _tokens(self, session: Session) -> int:
        return session.tail.end * self.context.block_tokens

    def _needed(self, session: Session) -> int:
        return self._tokens(session) + self.settings.buffer_tokens

    def _shared(self, programs: Iterable[Session]) -> int:
        """Tokens that several of the running programs have in common."""
        running = [s for s in programs if s.state.is_busy]
        nodes = {node for session in running for node in session.tail.path()}
        num_blocks = sum(s.tail.end for s in running) - sum(n.end - n.start for n in nodes)
        return num_blocks * self.context.block_tokens


def _is_alive(session: Session) -> bool:
    return session.state.is_busy or session.state.is_paused
