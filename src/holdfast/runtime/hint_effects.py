"""Carries out the hints of requests, and notes the outcome of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from holdfast.core.events import Event, SessionClosed, SessionForgotten, TurnArrived
from holdfast.core.hints import CacheCommand, HintNote, HintOutcome, Hints
from holdfast.core.identity import Identity
from holdfast.core.own_order import put_into_own_order
from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.core.tenants import Tenants
from holdfast.core.turn import Turn
from holdfast.predict.hint_trust import HintTrust
from holdfast.runtime.context import RuntimeContext
from holdfast.runtime.retention import Retention
from holdfast.runtime.session_blocks import SessionBlocks
from holdfast.runtime.session_priorities import SessionPriorities

__all__ = ["HintEffects"]

_MAX_NOTES: Final = 4096
_MAX_TOLD: Final = 4096
_CHECKED_AT_ONCE: Final = 4
_FAR_LONGER: Final = 8.0


class HintEffects:
    """Changes order, retention, evictions and prefetches, within bounds.

    Args:
        table: All sessions.
        context: The runtime's books.
        blocks: Which path each session has.
        priorities: Rescores sessions.
        tenants: Knows which tenants have turns in the engine.

    Attributes:
        retention: Promises to retain sessions' blocks.
    """

    def __init__(
        self,
        table: SessionTable,
        context: RuntimeContext,
        blocks: SessionBlocks,
        priorities: SessionPriorities,
        tenants: Tenants,
    ) -> None:
        self._context = context
        self._table = table
        self._blocks = blocks
        self._priorities = priorities
        self.retention = Retention(lambda: context.capacity_blocks, tenants.active)
        priorities.retention = self.retention
        self._trust = HintTrust()
        self._told: dict[Session, float] = {}  # expected gaps of pauses (s), oldest first
        self._notes: deque[tuple[Session, HintNote]] = deque(maxlen=_MAX_NOTES)

    def observe(self, event: Event) -> None:
        """End what holds for a pause when it ends. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._compare(turn.session)
                self._forget(turn.session)
            case SessionClosed(session=session) | SessionForgotten(session=session):
                self._told.pop(session, None)
                self._forget(session)

    def step(self) -> None:
        """End promises whose time is over. Mutates."""
        for session, is_early in self.retention.step(self._context.now_s):
            self._priorities.mark(session)
            if is_early:
                self._note(session, "retain_s", "lapsed", reason="more tenants share the cache")

    def released(self, sessions: Sequence[Session]) -> None:
        """Take in that admission takes the reservations of sessions for a turn. Mutates."""
        for session in sessions:
            if self.retention.drop(session):
                self._priorities.mark(session)
                self._note(session, "retain_s", "lapsed", reason="a turn was due")

    def arrived(self, turn: Turn, hints: Hints, turns: Iterable[Turn]) -> None:
        """Carry out what holds from a request's arrival on. Mutates.

        Args:
            turn: Its turn.
            hints: Its hints.
            turns: All turns in the engine.
        """
        session, tenant = turn.session, turn.tenant
        session.own_priority = hints.priority or 0
        tenant.has_own_order |= bool(session.own_priority)
        if tenant.has_own_order:
            own = (t for t in turns if t.tenant is tenant and t is not turn and not t.was_running)
            put_into_own_order(turn, [t for t in own if t.session.state is SessionState.WAITING])
        for command in hints.commands:
            if command.session_id is not None:
                self._command(session, command)

    def believed_gap_s(self, session: Session, told_s: float | None) -> float | None:
        """The client's hint on the pause that begins (s), if trusted. Mutates."""
        self._check_told()
        if told_s is None:
            return None
        if len(self._told) < _MAX_TOLD:
            self._told[session] = told_s
        if self._trust.trusts(session.tenant):
            return told_s
        reason = "the tenant's hints were worse than predictions"
        self._note(session, "expected_gap_s", "distrusted", f"{told_s:g} s", reason)
        return None

    def ended(self, session: Session, hints: Hints) -> None:
        """Carry out what holds for the pause after a turn. Mutates."""
        if not session.state.is_paused:
            return
        if hints.retain_s:
            self._retain(session, hints.retain_s)
        for command in hints.commands:
            if command.session_id is None:
                self._apply(session, command)

    def take_notes(self) -> Iterator[tuple[Session, HintNote]]:
        """Outcomes of hints since the last call, with their sessions. Mutates."""
        while self._notes:
            yield self._notes.popleft()

    def clear(self) -> None:
        """Forget all sessions; what was learned of tenants stays. Mutates."""
        self.retention.clear()
        self._context.asked.clear()
        self._told.clear()

    def _command(self, sender: Session, command: CacheCommand) -> None:
        """Carry out a command about sessions of the sender's tenant."""
        group = Identity(session_id=command.session_id, tenant=sender.tenant).group
        named = [] if group is None else list(self._table.of_group(group))
        paused = [session for session in named if session.state.is_paused]
        if not paused:
            reason = "it has a turn in the engine" if named else "there is no such session"
            asked = f"{command.action} another session"
            self._note(sender, "commands", "missing", asked, reason)
        for session in paused:
            self._apply(session, command)

    def _apply(self, session: Session, command: CacheCommand) -> None:
        if command.action == "retain":
            self._retain(session, command.retain_s)
        elif command.action == "evict":
            self.retention.evict_first(session)
            self._blocks.release(session)
            self._priorities.mark(session)
            self._note(session, "commands", "applied", "evict", f"{session.tail.end} blocks")
        elif session.tail.end > self.retention.share_blocks():
            self._note(session, "commands", "refused", "prefetch", "larger than the tenant's share")
        elif self._context.asked.ask(session):
            self._note(session, "commands", "applied", "prefetch", f"{session.tail.end} blocks")
        else:
            self._note(session, "commands", "refused", "prefetch", "the tenant waits for others")

    def _retain(self, session: Session, retain_s: float) -> None:
        """Promise to retain a paused session's blocks, if the tenant's share has space."""
        asked = f"{retain_s:g} s for {session.tail.end} blocks"
        is_granted, lapsed = self.retention.grant(session, self._context.now_s + retain_s)
        if not is_granted:
            share = f"the tenant's share is {self.retention.share_blocks()} blocks"
            self._note(session, "retain_s", "refused", asked, share)
            return
        for one in lapsed:
            self._priorities.mark(one)
            self._note(one, "retain_s", "lapsed", reason="the tenant's share was needed")
        if session in self.retention:
            self._note(session, "retain_s", "granted", asked)
            self._blocks.reserve(session)
            self._priorities.mark(session)

    def _compare(self, session: Session) -> None:
        """Compare a session's hint on its pause with the pause that ends."""
        told_s = self._told.pop(session, None)
        if told_s is not None:
            self._learn(session, told_s)

    def _check_told(self) -> None:
        """Compare hints on pauses that go on for far longer, a few at a time."""
        for _ in range(min(_CHECKED_AT_ONCE, len(self._told))):
            session = next(iter(self._told))
            told_s = self._told.pop(session)
            away_s = self._context.now_s - session.paused_at_s
            if away_s > _FAR_LONGER * max(told_s, 1.0):
                self._learn(session, told_s)
            else:
                self._told[session] = told_s

    def _learn(self, session: Session, told_s: float) -> None:
        away_s = self._context.now_s - session.paused_at_s
        predicted_s = self._context.returns.residual_quantile_s(
            session.gap, 0.0, 0.5, scale_s=told_s, speed=session.speed
        )
        self._trust.observe(session.tenant, told_s, predicted_s, away_s)

    def _forget(self, session: Session) -> None:
        self.retention.drop(session)
        self._context.asked.drop(session)

    def _note(
        self,
        session: Session,
        field: str,
        outcome: HintOutcome,
        asked: str = "",
        reason: str = "",
    ) -> None:
        self._notes.append((session, HintNote(field, outcome, asked, reason)))
