"""The agent runtime: observes turns, keeps sessions, decides what to evict and what to admit.

Knows nothing about vLLM: a host reports turns and blocks and carries out what is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from holdfast.cache.eviction_port import EvictionPort
from holdfast.cache.prefix_tree import Node, PrefixTree
from holdfast.core.lineage import Because, Lineage, Prompt
from holdfast.core.offload_port import NoOffload, OffloadPort
from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.core.tenants import Tenants
from holdfast.core.turn import Admission, Turn
from holdfast.core.urgency import urgency
from holdfast.policies.base import Oracle, Policy, Priority
from holdfast.policies.registry import build_policy
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.predict.session_speed import SpeedFactor
from holdfast.predict.step_cost import StepCostModel
from holdfast.runtime.idle_sessions import IdleSessions
from holdfast.runtime.prediction_guard import PredictionGuard, Predictions
from holdfast.runtime.reservations import Reservations
from holdfast.runtime.return_tracker import ReturnTracker
from holdfast.runtime.session_blocks import SessionBlocks
from holdfast.runtime.session_priorities import SessionPriorities
from holdfast.runtime.turn_ends import TurnEnds
from holdfast.runtime.wait_bound import WaitBound
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["AgentRuntime"]
_FORGOTTEN_PER_TURN = 8


class AgentRuntime:
    """Sessions, their chains and the decisions about them.

    The host calls `tick` before it reports or asks. Not thread-safe.

    Args:
        max_sessions: Sessions remembered (count).
        max_wait_ratio: See `WaitBound`.
        max_known_blocks: See the attribute.
        policy: Name of the policy that decides.
        predictions: See `PredictionGuard`.
        oracle: The future, for policies that are bounds.
        returns: What is known about return times; None knows nothing yet.

    Attributes:
        costs: What computing takes on this engine, as learned so far; the host reports steps to it.
        returns: When paused sessions return, as learned so far.
        guard: Whether predictions are used, and how often they were set aside.
        capacity_blocks: KV blocks of the cache (count).
        block_tokens: Tokens a block.
        away: Sessions that may come back.
        tier: The store below the cache; the host may set it before any turn.
        max_known_blocks: Blocks remembered (count); beyond it idle sessions without cached ones go.

    Raises:
        PolicyError: There is no such policy, or it needs what `oracle` does not give.
    """

    def __init__(
        self,
        *,
        max_sessions: int,
        max_wait_ratio: float,
        max_known_blocks: int = 1_000_000,
        policy: str = "holdfast",
        predictions: Predictions = "guarded",
        oracle: Oracle | None = None,
        returns: ReturnTimeModel | None = None,
    ) -> None:
        self.tree: PrefixTree[Any] = PrefixTree()
        self.sessions = SessionTable(self.tree, max_sessions)
        self._lineage = Lineage(self.sessions)
        self.returns = returns or ReturnTimeModel()
        self.costs = StepCostModel()
        self.oracle = oracle
        self.tier: OffloadPort = NoOffload()
        self.capacity_blocks = 0
        self.block_tokens = 1
        self._backlog = WaitBound(max_wait_ratio)
        self._tenants = Tenants()
        self.max_known_blocks = max_known_blocks
        self._now_s = 0.0
        self._num_arrived = 0
        self.away = IdleSessions()
        self._fates = ReturnTracker(self.returns)
        self._num_steps = 0
        self._rescored_at_step = 0
        self._policy_name = policy
        self.guard = PredictionGuard(predictions)
        self._policy = build_policy(policy, self)

    def attach(self, queue: EvictionPort, capacity_blocks: int = 0, block_tokens: int = 1) -> None:
        """Connect the host's free blocks; once, before any turn."""
        self._chains = SessionBlocks(self.tree, queue)
        self._scores = SessionPriorities(self._policy, self, self.away, self._chains)
        self._endings = TurnEnds(
            self.sessions, self.away, self._chains, self._scores, self._fates, self
        )
        self._places = Reservations(self.away, self._chains, self)
        self.capacity_blocks = capacity_blocks
        self.block_tokens = block_tokens
        if self._policy.ages:
            self.guard.watch(capacity_blocks)

    @property
    def now_s(self) -> float:
        """Time of the last `tick`."""
        return self._now_s

    def tick(self, now_s: float) -> None:
        """Set the time of what follows (s, host's monotonic clock)."""
        self._now_s = now_s

    def step(self, num_steps: int = 1) -> None:
        """The host begins an engine step, or as many that only decode."""
        interval = self._policy.rescore_interval_steps
        is_due = interval is not None and self._num_steps >= self._rescored_at_step + interval
        self._num_steps += num_steps
        if is_due:
            self._rescored_at_step = self._num_steps - num_steps
            self._scores.renew_all(self.away)

    # What policies may look at.

    @property
    def policy(self) -> Policy:
        """The policy that decides."""
        return self._policy

    @property
    def num_steps(self) -> int:
        """Engine steps begun (count)."""
        return self._num_steps

    @property
    def return_share(self) -> float:
        """Share of sessions that came back after a sibling or a fork had started (0 to 1)."""
        return self._fates.return_share

    @property
    def trusts_predictions(self) -> bool:
        """Whether predicted return times may be used now."""
        return self.guard.trusts

    def restore_s(self, num_blocks: float, depth_blocks: float = 0.0) -> float:
        """Engine time to compute blocks again that lie behind `depth_blocks` others (s)."""
        block_tokens = self.block_tokens
        return self.costs.prefill_s(num_blocks * block_tokens, depth_blocks * block_tokens)

    def paused(self) -> Iterator[Session]:
        """Sessions that are away and may come back, the longest away first."""
        return iter(self.away)

    def is_gone(self, session: Session) -> bool:
        """Whether the pause outlasts nearly all pauses of its kind; false before any is known."""
        return self._fates.is_gone(session, self._now_s)

    # Observe.

    def turn_arrived(
        self,
        request_id: str,
        hashes: Sequence[bytes],
        group: str | None,
        priority: int | None = None,
        tenant: str = "",
        tokens: Sequence[int] | None = None,
        has_parent: bool = False,
    ) -> Turn:
        """Take note of a prompt: find or make its session and make the prompt the session's chain.

        Args:
            request_id: The host's id of the turn.
            hashes: Prefix hashes of the prompt's full blocks.
            group: Explicit session id, or None to go by lineage.
            priority: Explicit priority, lower first; None where the engine goes by none.
            tenant: Name of whoever sent it.
            tokens: Token ids of the prompt; None where the host knows hashes only.
            has_parent: Whether the client says that another agent started this one.
        """
        session, because = self._find_or_begin(Prompt(hashes, tokens, self.block_tokens), group)
        self._chains.extend(session, hashes)
        self.tier.claim(session, hashes)
        session.state = SessionState.WAITING
        session.priority = priority
        session.has_parent |= has_parent
        session.tenant = tenant
        session.num_turns += 1
        self.sessions.touch(session)
        self._num_arrived += 1
        sender = self._tenants.enter(tenant)
        turn = Turn(
            request_id,
            session,
            priority or 0,
            self._num_arrived,
            sender,
            self._now_s,
            because=because,
        )
        num_stored = self.tier.num_stored(hashes, 0)
        cold_s = self.costs.decode_s + self.restore_s(len(hashes) - num_stored, num_stored)
        cold_s += (
            min(self.restore_s(num_stored), self.tier.load_s(num_stored)) if num_stored else 0.0
        )
        self._backlog.enter(turn, cold_s)
        self.guard.turn_arrived(turn, hashes)
        self._policy.turn_arrived(turn)
        self._scores.renew(session)
        return turn

    def turn_started(self, turn: Turn) -> None:
        """The host let the turn in."""
        turn.session.state = SessionState.RUNNING
        self._backlog.start(turn)
        turn.tenant.served_s += self.costs.decode_s
        turn.tenant.served_s += self.restore_s(turn.computed_blocks, turn.resident_blocks)
        if self.guard.turn_started(turn):
            for away in list(self.away):
                self._scores.renew(away)
        self._policy.turn_started(turn)

    def turn_preempted(self, turn: Turn) -> None:
        """The host took the turn's blocks back; it waits again."""
        turn.session.state = SessionState.WAITING
        turn.was_running = True
        self._backlog.put_back(turn)

    def turn_ended(
        self,
        turn: Turn,
        hashes: Sequence[bytes],
        end: TurnEnd | None,
        expected_gap_s: float | None = None,
    ) -> None:
        """The answer is complete or was abandoned: the session pauses and keeps its place.

        Args:
            turn: The turn.
            hashes: Prefix hashes of the full blocks of prompt and answer.
            end: What ended the turn, if known; `turn_end_known` may follow.
            expected_gap_s: What the client says about the pause (s), if it does.
        """
        self._backlog.leave(turn)
        self._tenants.leave(turn.tenant)
        self.costs.turn_ended()
        self.guard.turn_ended(turn, hashes)
        session = turn.session
        self._chains.append_answer(session, hashes)
        self.tier.claim(session, hashes)
        session.paused_at_s = self._now_s
        session.awaits_end = False
        session.has_moved_on = False
        session.expected_gap_s = expected_gap_s
        self.away.enter(session)
        self._policy.turn_ended(turn)
        self._endings.ended(session, end)
        for gone in self._fates.learn(self._now_s):
            self._endings.close(gone, SessionState.SUPERSEDED)
        if session.state.is_paused and self._policy.retains(session):
            self._chains.reserve(session)
        self._forget_surplus()

    def turn_end_awaited(self, session: Session) -> None:
        """What ended the last turn is being read; `turn_end_known` follows, if it can be read."""
        self._endings.awaited(session)

    def turn_end_known(self, session: Session, num_turns: int, end: TurnEnd) -> None:
        """What ended turn `num_turns` has become known; see `TurnEnds.known`."""
        self._endings.known(session, num_turns, end)

    def wants_prompt(self, session: Session) -> bool:
        """Whether `prompt_read` is of use: the session is new, and sub-agents may be about."""
        if session.num_turns != 1 or session.has_parent:
            return False
        return self._endings.tasks.has_any(session.tenant)

    def prompt_read(self, session: Session, text: str) -> None:
        """The end of a session's first prompt has been read; see `TurnEnds.prompt_read`."""
        self._endings.prompt_read(session, text)

    def session_closed(self, session: Session) -> None:
        """The session will not return: its blocks go before those of any that may."""
        self._endings.close(session, SessionState.CLOSED)

    def content_dropped(self) -> None:
        """The host dropped all cached content.

        Forget chains and sessions, keep what was learned.
        """
        for session in list(self.sessions):
            session.has_reservation = False
            session.state = SessionState.CLOSED
            self.tier.forget(session)
            self.sessions.drop(session)
        self.tree.clear()
        self._lineage.clear()
        self.away.clear()
        self._scores.clear()
        self._fates.clear()
        self._backlog.clear()
        self._tenants.clear()
        self.guard.clear()
        self._policy = self._scores.policy = build_policy(self._policy_name, self)

    # Decide.

    def decide(
        self, waiting: Sequence[Turn], blocks: int, slots: int, num_running: int
    ) -> Admission:
        """Say whom to let in now; the places it takes back are already taken when it returns.

        Args:
            waiting: Turns to choose from, in order of arrival, with their needs filled in.
            blocks: Free blocks without a claim (count; may be negative).
            slots: Turns that may still start (count).
            num_running: Turns running (count).
        """
        room = self._places.room(blocks, slots, num_running, self._policy, self.tier)
        decision = self._policy.decide(waiting, room)
        for session in decision.releases:
            self._chains.release(session)
            if session.priority is not None:
                self._chains.rescore(session)
        return decision

    def priority_of(self, node: Node[Any]) -> Priority:
        """Class and worth of a run's free blocks now."""
        return self._scores.priority(node)

    def stored_priority(self, session: Session) -> Priority | None:
        """Priority of what a lower tier holds for a session; None while it is in the engine."""
        if session.state.is_busy:
            return None
        if not session.state.is_paused:
            return 0.0, 0.0
        return 1.0 + urgency(session), self._policy.score(session)

    def refresh(self, num_sessions: int) -> None:
        """Bring the worth of at most so many paused sessions up to date where it is stale."""
        self._scores.refresh(num_sessions)

    # Sessions and their chains.

    def _find_or_begin(self, prompt: Prompt, group: str | None) -> tuple[Session, Because]:
        """The session of a prompt, and how it was found or why it is new."""
        session, because = self._lineage.find(prompt, group)
        if session is None:
            session = self._begin(prompt.hashes, group)
            self._lineage.took(session, prompt, because)
        else:
            self._lineage.took(session, prompt, because)
            self._places.returned(session, prompt.hashes, self.tier)
            self._endings.resumed(session)
        return session, because

    def _begin(self, hashes: Sequence[bytes], group: str | None) -> Session:
        node, depth = self.tree.match(hashes)
        if depth < node.end:
            self._note_moved_on(node.tails)
        session = self.sessions.add(group)
        session.speed = SpeedFactor()
        session.first_blocks = len(hashes)
        self._note_moved_on(self.sessions.siblings(session))
        return session

    def _note_moved_on(self, sessions: Iterable[Session]) -> None:
        for session in list(sessions):
            if session.state.is_paused and not session.has_moved_on:
                session.has_moved_on = True
                self._scores.renew(session)

    def _forget_surplus(self) -> None:
        for session in self.sessions.surplus():
            self._forget(session)
        if len(self.tree) <= self.max_known_blocks:
            return
        for session in list(islice(self.sessions, _FORGOTTEN_PER_TURN)):
            if not session.state.is_busy and not session.tail.free_blocks.num_blocks:
                self._forget(session)

    def _forget(self, session: Session) -> None:
        self._chains.release(session)
        self.away.leave(session)
        self._scores.forget(session)
        self._chains.abandon(session)
        self.tier.forget(session)
        session.state = SessionState.CLOSED
        self.sessions.drop(session)
        self._lineage.drop(session)
        self._policy.session_forgotten(session)
