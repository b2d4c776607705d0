"""Finds the session that a prompt continues, or begins one."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core.identity import Identity
from holdfast.core.lineage import Found, Lineage, LineageReason, Prompt
from holdfast.core.session import Session, SessionTable
from holdfast.predict.session_speed import SpeedFactor
from holdfast.runtime.client_commands import ClientCommands
from holdfast.runtime.context import RuntimeContext
from holdfast.runtime.reservations import Reservations
from holdfast.runtime.session_priorities import SessionPriorities
from holdfast.runtime.turn_ends import TurnEnds

__all__ = ["SessionFinder"]


class SessionFinder:
    """Finds or begins the session of a prompt; a session that is found ends its pause.

    A call that its client makes beside a session is a stream of its own.

    Args:
        sessions: All sessions.
        lineage: Finds the session that a prompt continues.
        context: The runtime's books.
        turn_ends: Knows what sessions wait for.
        commands: Knows what clients said about them.
        reservations: Learns from returns.
        priorities: Rescores sessions.
    """

    def __init__(
        self,
        sessions: SessionTable,
        lineage: Lineage,
        context: RuntimeContext,
        turn_ends: TurnEnds,
        commands: ClientCommands,
        reservations: Reservations,
        priorities: SessionPriorities,
    ) -> None:
        self._sessions = sessions
        self._lineage = lineage
        self._context = context
        self._turn_ends = turn_ends
        self._commands = commands
        self._reservations = reservations
        self._priorities = priorities

    def find_or_begin(self, prompt: Prompt, identity: Identity) -> tuple[Session, LineageReason]:
        """The session of a prompt, and how it was found or why it is new. Mutates."""
        session, because = self._find(prompt, identity)
        if session is None:
            session = self._begin(prompt.hashes, identity)
            self._lineage.turn_arrived(session, prompt, because)
            return session, because
        self._lineage.turn_arrived(session, prompt, because)
        self._reservations.returned(session, prompt.hashes, self._context.tier)
        self._turn_ends.resumed(session)
        self._commands.returned(session)
        session.passed = ()
        session.identity = identity
        session.has_parent |= identity.has_parent
        self._turn_ends.families.turn_arrived(session)
        return session, because

    def _find(self, prompt: Prompt, identity: Identity) -> Found:
        if identity.is_side_call:
            return Found(None, "side_call")
        return self._lineage.find(prompt, identity.group)

    def _begin(self, hashes: Sequence[bytes], identity: Identity) -> Session:
        node, depth = self._context.tree.match(hashes)
        forked = list(node.tails) if depth < node.end else []
        session = self._sessions.add(identity.group)
        session.speed = SpeedFactor()
        session.first_blocks = len(hashes)
        session.began_s = self._context.now_s
        session.identity = identity
        session.has_parent = identity.has_parent
        session.is_side_call = identity.is_side_call
        self._turn_ends.families.turn_arrived(session)
        if not session.is_side_call:
            self._note_moved_on(session, forked)
        return session

    def _note_moved_on(self, session: Session, forked: Sequence[Session]) -> None:
        """Note the sessions that a new one seems to replace: forks, and streams of its id."""
        families = self._turn_ends.families
        passed: list[Session] = []
        for other in (*forked, *self._sessions.siblings(session)):
            is_left = other.state.is_paused and not other.has_moved_on
            is_left &= other.group == session.group  # by its id it is another stream
            if is_left and not families.are_related(session, other):
                other.has_moved_on = True
                passed.append(other)
                self._priorities.mark(other)
        session.passed = passed
