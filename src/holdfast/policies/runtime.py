"""The agent runtime: observes turns, keeps sessions and chains, and answers what to evict and whom to let in.

Knows nothing about vLLM: a host reports turns and blocks and carries out what is decided.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, Protocol

from holdfast.core.chains import ChainTree, Segment
from holdfast.core.sessions import Session, SessionState, SessionTable
from holdfast.policies.admission.working_set import Decision, Room, WaitingTurn, WorkingSet
from holdfast.policies.eviction.worth import LiveWorth
from holdfast.predict.features import GapFeatures
from holdfast.predict.return_time import ReturnTimeModel

__all__ = ["AgentRuntime", "BlockQueue"]

logger = logging.getLogger(__name__)


class BlockQueue(Protocol):
    """The host's free blocks, by run."""

    num_free_blocks: int
    num_held_blocks: int

    def rescore(self, segment: Segment[Any]) -> None:
        """Note that a run's worth may have changed."""

    def redistribute(self, upper: Segment[Any], deeper: Segment[Any]) -> None:
        """Move free blocks after a split."""

    def absorb(self, segment: Segment[Any]) -> None:
        """Join a run to the one before it."""

    def disown(self, segment: Segment[Any]) -> None:
        """Make a run's blocks the first to go."""

    def hold(self, segment: Segment[Any]) -> None:
        """Count a place-holder."""

    def release(self, segment: Segment[Any]) -> None:
        """Uncount a place-holder."""


class AgentRuntime:
    """Sessions, their chains and the decisions about them."""

    def __init__(
        self, returns: ReturnTimeModel, *, max_sessions: int, max_pass_overs: int, patience: float = 1.0
    ) -> None:
        self.tree: ChainTree[Any] = ChainTree()
        self.sessions = SessionTable(self.tree, max_sessions)
        self.returns = returns
        self.worth = LiveWorth(returns)
        self.admission = WorkingSet(max_pass_overs, patience)
        self.restore_s_per_block = 0.0
        self._moved_on = [1.0, 1.0]
        self._now_s = 0.0
        self._queue: BlockQueue | None = None
        self._away: dict[Session, None] = {}
        self._unresolved: deque[tuple[Session, int]] = deque()
        self._round: list[Session] = []

    def attach(self, queue: BlockQueue) -> None:
        """Connect the host's free blocks; once, before any turn."""
        self._queue = queue

    @property
    def queue(self) -> BlockQueue:
        """The host's free blocks."""
        assert self._queue is not None
        return self._queue

    def tick(self, now_s: float) -> None:
        """Set the time of what follows (s, host's monotonic clock)."""
        self._now_s = now_s

    # Observe.

    def turn_arrived(self, hashes: Sequence[bytes], group: str | None) -> Session:
        """A prompt came in: find or make its session and make the prompt its chain."""
        session = self.sessions.find(hashes, group)
        if session is None:
            session = self._new_session(hashes, group)
        else:
            self._resume(session)
        self._retail_prompt(session, hashes)
        session.state = SessionState.WAITING
        session.num_turns += 1
        self.sessions.touch(session)
        return session

    def turn_started(self, session: Session) -> None:
        """The engine took the turn in."""
        session.state = SessionState.RUNNING

    def turn_requeued(self, session: Session) -> None:
        """The engine preempted the turn."""
        session.state = SessionState.WAITING

    def turn_ended(self, session: Session, hashes: Sequence[bytes], gap: Any, *, is_tool: bool) -> None:
        """The answer is complete: its blocks join the chain, the session pauses and keeps its place."""
        self._append_output(session, hashes)
        session.gap = gap
        session.state = SessionState.AT_TOOL if is_tool else SessionState.HUMAN_AWAY
        session.paused_at_s = self._now_s
        session.has_moved_on = False
        self._away[session] = None
        self._unresolved.append((session, session.num_turns))
        self._presume_gone()
        self._rerate(session)
        self._hold(session)
        for surplus in self.sessions.surplus():
            self._forget(surplus)

    def session_closed(self, session: Session) -> None:
        """The session will not return: its blocks go before those of any that may."""
        self._release(session)
        self._away.pop(session, None)
        session.state = SessionState.CLOSED
        session.rate = 0.0
        self._rescore(session)

    # Decide.

    def decide(self, waiting: Sequence[WaitingTurn], blocks: int, slots: int, num_running: int) -> Decision:
        """Whom to let in now; places taken back are already taken when this returns."""
        room = Room(
            blocks=blocks,
            slots=slots,
            num_running=num_running,
            restore_s_per_block=self.restore_s_per_block,
            places=self._places,
            freed_by=self._freed_by,
            away_s=self._away_s,
        )
        decision = self.admission.decide(waiting, room)
        for session in decision.releases:
            self._release(session)
        return decision

    def worth_of(self, segment: Segment[Any]) -> tuple[int, float]:
        """Class and worth of a run's free blocks."""
        for session in self.worth.users(segment):
            away_s = self._now_s - session.paused_at_s
            if away_s > 1.1 * session.rated_after_s:
                self._rerate(session)
        return self.worth.worth(segment, self._now_s)

    def refresh(self, num_sessions: int) -> None:
        """Bring the worth of a few paused sessions up to date; victims pay for it.

        Half of them are those that paused longest ago, whose worth falls fastest; the others take turns.
        """
        stale = list(islice(self._away, num_sessions // 2))
        for _ in range(num_sessions - len(stale)):
            if not self._round:
                self._round = list(self._away)
                if not self._round:
                    break
            stale.append(self._round.pop())
        for session in stale:
            if session not in self._away:
                continue
            if not session.tail.lane.num_blocks and not session.prompt_tail.lane.num_blocks:
                del self._away[session]
            self._rerate(session)
            self._rescore(session)

    # Inside.

    def _new_session(self, hashes: Sequence[bytes], group: str | None) -> Session:
        segment, depth = self.tree.match(hashes)
        if depth < segment.end and segment.parent is not None:
            for owner in segment.tails:
                owner.has_moved_on = owner.state.is_paused
        session = self.sessions.add(group)
        for sibling in self.sessions.siblings(session):
            if sibling is not session and sibling.state.is_paused:
                sibling.has_moved_on = True
        for run in segment.path():
            run.num_starts += 1
        return session

    def _resume(self, session: Session) -> None:
        if session.state.is_paused:
            self.returns.observe(session.gap, self._now_s - session.paused_at_s)
        if session.has_moved_on:
            self._moved_on[0] += 1.0
        self._away.pop(session, None)
        self._release(session)

    def _retail_prompt(self, session: Session, hashes: Sequence[bytes]) -> None:
        """Move the session's end to the end of `hashes`; what it leaves behind alone goes first from now on."""
        old_tail, old_prompt = session.tail, session.prompt_tail
        old_tail.tails.discard(session)
        old_prompt.prompts.discard(session)
        if old_tail is not old_prompt and old_tail.is_attached and not old_tail.is_endpoint:
            if not old_tail.children and self.tree.match(hashes).depth >= old_tail.end:
                self.queue.absorb(old_tail)
        tail, upper = self.tree.insert(hashes)
        if upper is not None:
            (deeper,) = upper.children.values() if len(upper.children) == 1 else (None,)
            deeper = next(iter(upper.children.values())) if deeper is None else deeper
            self.queue.redistribute(upper, self._other_half(upper, hashes))
        session.tail = session.prompt_tail = tail
        session.prompt_blocks = len(hashes)
        if tail.parent is not None:
            tail.tails.add(session)
            tail.prompts.add(session)
        self._leave(old_tail)

    def _other_half(self, upper: Segment[Any], hashes: Sequence[bytes]) -> Segment[Any]:
        following = hashes[upper.end] if len(hashes) > upper.end else None
        for key, child in upper.children.items():
            if key != following:
                return child
        raise AssertionError("a split run has a deeper half")

    def _leave(self, segment: Segment[Any]) -> None:
        """Disown what only a departed session used."""
        while (
            segment.parent is not None
            and segment.is_attached
            and not segment.children
            and not segment.is_endpoint
        ):
            parent = segment.parent
            self.queue.disown(segment)
            segment = parent

    def _append_output(self, session: Session, hashes: Sequence[bytes]) -> None:
        if len(hashes) <= session.prompt_blocks or session.tail.parent is None:
            return
        session.tail.tails.discard(session)
        tail, upper = self.tree.insert(hashes)
        if upper is not None:
            self.queue.redistribute(upper, self._other_half(upper, hashes))
        tail.tails.add(session)
        session.tail = tail

    def _presume_gone(self) -> None:
        """Learn from pauses that outlast nearly all others: such sessions do not return."""
        for _ in range(min(4, len(self._unresolved))):
            session, turn = self._unresolved.popleft()
            if session.num_turns != turn or not session.state.is_paused:
                continue
            elapsed_s = self._now_s - session.paused_at_s
            if elapsed_s > self.returns.residual_quantile_s(session.gap, 0.0, 0.98, scale_s=1e9):
                self.returns.observe(session.gap, elapsed_s, censored=True)
            else:
                self._unresolved.append((session, turn))

    def _hold(self, session: Session) -> None:
        if not session.is_held and session.tail.parent is not None:
            session.is_held = True
            for run in session.tail.path():
                self.queue.hold(run)

    def _release(self, session: Session) -> None:
        if session.is_held:
            session.is_held = False
            for run in session.tail.path():
                self.queue.release(run)

    def _rerate(self, session: Session) -> None:
        restore_s = self.restore_s_per_block * max(session.tail.end, 1)
        session.rated_after_s = self._now_s - session.paused_at_s
        share = self._moved_on[0] / (self._moved_on[0] + self._moved_on[1])
        session.rate = self.worth.rate(session, self._now_s, restore_s, share)

    def _rescore(self, session: Session) -> None:
        self.queue.rescore(session.tail)
        if session.prompt_tail is not session.tail:
            self.queue.rescore(session.prompt_tail)

    def _places(self) -> list[Session]:
        held = [s for s in self.sessions if s.is_held]
        for session in held:
            self._rerate(session)
        held.sort(key=lambda s: s.rate)
        return held

    def _freed_by(self, session: Session) -> int:
        return sum(run.lane.num_blocks for run in session.tail.path() if run.num_held == 1)

    def _away_s(self, session: Session) -> float:
        return 1.0 / session.rate if session.rate > 0 else float("inf")

    def _forget(self, session: Session) -> None:
        self._release(session)
        self._away.pop(session, None)
        if session.has_moved_on:
            self._moved_on[1] += 1.0
        if session.gap is not None and session.state.is_paused:
            self.returns.observe(session.gap, self._now_s - session.paused_at_s, censored=True)
        session.tail.tails.discard(session)
        session.prompt_tail.prompts.discard(session)
        self._leave(session.tail)
        self.sessions.drop(session)
