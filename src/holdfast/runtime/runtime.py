"""The agent runtime: follows sessions and decides what to evict and to admit.

Knows nothing about vLLM: a host reports turns and blocks and carries out what is decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from holdfast.cache.eviction_port import EvictionPort
from holdfast.cache.prefix_tree import Node
from holdfast.core.commands import Command, CommandOutcome
from holdfast.core.events import (
    Event,
    IntervalPassed,
    RescoreBegun,
    SessionForgotten,
    TurnArrived,
    TurnEnded,
    TurnPreempted,
    TurnStarted,
)
from holdfast.core.identity import ANONYMOUS, Identity
from holdfast.core.lineage import Lineage, Prompt
from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.core.tenants import Tenants
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission
from holdfast.policies.base import Oracle, Priority
from holdfast.policies.registry import PolicySet, build_policies
from holdfast.predict.agent_calls import AgentCalls
from holdfast.predict.agent_runs import AgentRuns
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.runtime.attribution import MissAttribution
from holdfast.runtime.client_commands import ClientCommands
from holdfast.runtime.context import RuntimeContext
from holdfast.runtime.hint_effects import HintEffects
from holdfast.runtime.prediction_guard import Predictions
from holdfast.runtime.reservations import Reservations
from holdfast.runtime.session_blocks import SessionBlocks
from holdfast.runtime.session_finder import SessionFinder
from holdfast.runtime.session_priorities import SessionPriorities
from holdfast.runtime.turn_ends import TurnEnds
from holdfast.runtime.wait_bound import WaitBound
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["AgentRuntime"]

_FORGOTTEN_PER_TURN = 8


class AgentRuntime(RuntimeContext):
    """Sessions, their paths and the decisions about them.

    The host calls `tick` before it reports or asks. Not thread-safe.

    Args:
        max_sessions: Sessions remembered (count).
        max_wait_ratio: See `WaitBound`.
        ttft_target_s: See `WaitBound`.
        max_known_blocks: See the attribute.
        max_known_evictions: Evictions remembered (count); 0 where no miss is attributed.
        policy: Name of the policy, or product of policies, that decides.
        predictions: See `PredictionGuard`.
        oracle: The future, for policies that are bounds.
        returns: What is known about return times; None knows nothing yet.
        agent_calls: What is known about agents' calls; None knows nothing yet.
        agent_runs: What is known about sub-agents' runs; None knows nothing yet.
        tenants: Who has been served how much, maybe by other engines too; None knows of none.

    Attributes:
        policies: The policies that decide.
        hints: Carries out the hints of requests; there is one once `attach` was called.
        misses: Attributes missing tokens of prompts, as the host reports them; likewise.
        sessions: All remembered sessions.
        listener: Called with each event, for reports; must not raise.
        max_known_blocks: Blocks remembered (count); beyond it idle sessions without resident blocks
            are forgotten.

    Raises:
        PolicyError: There is no such policy, or it needs what `oracle` does not give.
    """

    def __init__(
        self,
        *,
        max_sessions: int,
        max_wait_ratio: float,
        ttft_target_s: float | None = None,
        max_known_blocks: int = 1_000_000,
        max_known_evictions: int = 1 << 16,
        policy: str = "holdfast",
        predictions: Predictions = "guarded",
        oracle: Oracle | None = None,
        returns: ReturnTimeModel | None = None,
        agent_calls: AgentCalls | None = None,
        agent_runs: AgentRuns | None = None,
        tenants: Tenants | None = None,
    ) -> None:
        super().__init__(predictions, oracle, returns, agent_calls, agent_runs)
        self.sessions = SessionTable(self.tree, max_sessions)
        self._lineage = Lineage(self.sessions)
        self.listener: Callable[[Event], None] = lambda event: None
        self._tenants = tenants or Tenants()
        is_fair = self._tenants.fairness.by != "off"
        self._wait_bound = WaitBound(max_wait_ratio, ttft_target_s, by_tenant=is_fair)
        self.max_known_blocks = max_known_blocks
        self._max_known_evictions = max_known_evictions
        self._num_arrived = self._rescored_at_step = 0
        self._interval_ends_s = -math.inf
        self._policy_name = policy
        self.policies: PolicySet = build_policies(policy, self)

    def attach(self, queue: EvictionPort, capacity_blocks: int = 0, block_tokens: int = 1) -> None:
        """Connect the host's free blocks; once, before any turn."""
        self.misses = MissAttribution(self, self.sessions, self._max_known_evictions)
        self._blocks = SessionBlocks(self.tree, queue, self.misses.left)
        self._priorities = SessionPriorities(self.policies.eviction, self, self.idle, self._blocks)
        books = self.sessions, self, self._blocks, self._priorities
        self._turn_ends = TurnEnds(*books, self._tracker, self.policies.admission, self._observe)
        self._commands = ClientCommands(
            self.sessions, self, self._turn_ends, self._priorities, self._observe
        )
        self.hints = HintEffects(*books, self._tenants)
        self._reservations = Reservations(self.idle, self._blocks, self)
        self._finder = SessionFinder(
            *(self.sessions, self._lineage, self, self._turn_ends, self._commands),
            *(self._reservations, self._priorities),
        )
        self.capacity_blocks, self.block_tokens = capacity_blocks, block_tokens
        if self.policies.eviction.uses_predictions:
            self.guard.watch(capacity_blocks)

    def tick(self, now_s: float) -> None:
        """Set the time of what follows (s, host's monotonic clock)."""
        self._now_s = now_s

    def step(self, num_steps: int = 1, num_stale: int = 0) -> None:
        """Begin an engine step: rescore what has changed. Mutates.

        Args:
            num_steps: Engine steps that it stands for, all but one of which only decode (count).
            num_stale: Sessions with stale priorities to rescore as well, at most (count).
        """
        if self._now_s >= self._interval_ends_s:
            self._interval_ends_s = self._now_s + self.policies.admission.interval_s
            if self._interval_ends_s < math.inf:
                self._observe(IntervalPassed(self._now_s))
        interval = self.policies.eviction.rescore_interval_steps
        is_due = interval is not None and self._num_steps >= self._rescored_at_step + interval
        self._num_steps += num_steps
        if is_due:
            self._rescored_at_step = self._num_steps - num_steps
            self._observe(RescoreBegun(self._now_s))
            for session in self.idle:
                self._priorities.mark(session)
        self.workflows.settle()
        self.hints.step()
        self.misses.step()
        for session in self._take_dirty_sessions():
            self._priorities.mark(session)
        self._priorities.rescore_dirty(num_stale)
        for node in self._take_dirty_nodes():
            self._blocks.rerank(node)

    # Observe.

    def turn_arrived(
        self,
        request_id: str,
        hashes: Sequence[bytes],
        identity: Identity = ANONYMOUS,
        priority: int | None = None,
        tokens: Sequence[int] | None = None,
        fixed_blocks: int | None = None,
    ) -> Turn:
        """Find or begin the session of a prompt, and make the prompt its path. Mutates.

        Args:
            request_id: The host's id of the turn.
            hashes: Prefix hashes of the prompt's full blocks.
            identity: Who sends it.
            priority: Explicit priority, lower first; None where the engine goes by none.
            tokens: Token ids of the prompt; None where the host knows hashes only.
            fixed_blocks: See `Session`.
        """
        prompt = Prompt(hashes, tokens, self.block_tokens)
        session, because = self._finder.find_or_begin(prompt, identity)
        known = self.misses.arrived(session, hashes, tokens)
        self._blocks.extend(session, hashes)
        self.tier.claim(session, hashes)
        session.state = SessionState.WAITING
        session.priority, session.fixed_blocks = priority, fixed_blocks
        session.num_turns += 1
        self.sessions.touch(session)
        self._num_arrived += 1
        tenant = self._tenants.enter(identity.tenant, session.account)
        about = request_id, session, priority or 0, self._num_arrived, tenant, self._now_s
        turn = Turn(*about, because=because, known=known)
        self._wait_bound.enter(turn, self._cold_s(hashes))
        self.guard.turn_arrived(turn, hashes)
        self._observe(TurnArrived(self._now_s, turn))
        self._priorities.mark(session)
        return turn

    def turn_started(self, turn: Turn) -> None:
        """Take in that the host has started an admitted turn. Mutates."""
        turn.session.state = SessionState.RUNNING
        self._wait_bound.start(turn)
        cost_s = self.costs.decode_s + self.restore_s(turn.computed_blocks, turn.resident_blocks)
        self._tenants.start(turn.tenant, turn.session.account, cost_s)
        if self.guard.turn_started(turn):
            for idle in self.idle:
                self._priorities.mark(idle)
        self._observe(TurnStarted(self._now_s, turn))

    def turn_preempted(self, turn: Turn) -> None:
        """Take in that the host has preempted a turn, which waits again. Mutates."""
        turn.session.state = SessionState.WAITING
        turn.was_running = True
        self._wait_bound.preempt(turn)
        self._tenants.wait(turn.tenant, turn.session.account)
        self._observe(TurnPreempted(self._now_s, turn))

    def turn_ended(
        self,
        turn: Turn,
        hashes: Sequence[bytes],
        end: TurnEnd | None,
        expected_gap_s: float | None = None,
    ) -> None:
        """Take in an answer, complete or aborted: the session pauses. Mutates.

        Args:
            turn: The turn.
            hashes: Prefix hashes of the full blocks of prompt and answer.
            end: What ended the turn, if known; `turn_end_known` may follow.
            expected_gap_s: The client's hint on the pause (s), or None.
        """
        self._wait_bound.leave(turn)
        session, waits = turn.session, turn.session.state is SessionState.WAITING
        self._tenants.leave(turn.tenant, session.account, waits=waits)
        self.costs.turn_ended()
        self.guard.turn_ended(turn, hashes)
        self._blocks.append_answer(session, hashes)
        self.tier.claim(session, hashes)
        session.paused_at_s = self._now_s
        session.awaits_end = session.has_moved_on = False
        session.expected_gap_s = expected_gap_s
        self.idle.enter(session)
        self._observe(TurnEnded(self._now_s, turn))
        self._turn_ends.ended(session, end)
        self._commands.turn_ended(session)
        for gone in self._tracker.check(self._now_s):
            self._turn_ends.close(gone, SessionState.SUPERSEDED)
        if session.state.is_paused and self.retains(session):
            self._blocks.reserve(session)
        self._forget_surplus()

    def turn_answered(self, session: Session, tail: Sequence[int], num_answer_tokens: int) -> None:
        """Take in the tokens of a complete answer; see `AnswerMarks.put`. Mutates."""
        self._lineage.turn_answered(session, tail, num_answer_tokens)

    def retains(self, session: Session) -> bool:
        """Whether a session gets a reservation when its turn ends. Pure."""
        return not session.is_side_call and self.policies.admission.retains(session)

    def turn_end_awaited(self, session: Session) -> None:
        """Note that the turn's end is being read; `turn_end_known` may follow. Mutates."""
        self._turn_ends.awaited(session)

    def turn_end_known(self, session: Session, num_turns: int, end: TurnEnd) -> None:
        """Take in what ended turn `num_turns`; see `TurnEnds.known`. Mutates."""
        if not self._commands.contradicts(session, num_turns, end):
            self._turn_ends.known(session, num_turns, end)

    def wants_prompt(self, session: Session) -> bool:
        """Whether `prompt_read` is of use: a new session may be a sub-agent. Pure."""
        if session.num_turns != 1 or session.has_parent or session.is_side_call:
            return False
        return self._turn_ends.tasks.has_any(session.tenant)

    def prompt_read(self, session: Session, text: str) -> None:
        """Take in the end of a session's first prompt, as `TurnEnds.prompt_read`. Mutates."""
        self._turn_ends.prompt_read(session, text)

    def session_closed(self, session: Session) -> None:
        """Close a session that will not return: its blocks are evicted early. Mutates."""
        self._turn_ends.close(session, SessionState.CLOSED)

    def forget_idle(self, idle_s: float) -> None:
        """Forget sessions idle for longer than so long (s), the longest first. Mutates."""
        for session in self.sessions.paused_before(self._now_s - idle_s):
            self._forget(session)

    def command(self, command: Command) -> CommandOutcome:
        """Take in what an application says outside of requests. Mutates."""
        return self._commands.apply(command)

    def content_dropped(self) -> None:
        """Forget paths and sessions after the host dropped all content. Mutates.

        What was learned stays.
        """
        for session in list(self.sessions):
            session.has_reservation = False
            session.state = SessionState.CLOSED
            self.tier.forget(session)
            self.sessions.drop(session)
            self.workflows.follow(SessionForgotten(self._now_s, session))
        books = (self.tree, self._lineage, self.idle, self._priorities, self._tracker, self.misses)
        for book in (*books, self._commands, self._turn_ends, self.hints):
            book.clear()
        for tally in (self._wait_bound, self._tenants, self.guard, self.last_admission):
            tally.clear()
        self._clear_observers()
        self.policies = build_policies(self._policy_name, self)
        self._interval_ends_s = -math.inf
        self._priorities.eviction = self.policies.eviction
        self._turn_ends.admission = self.policies.admission

    # Decide.

    def admit(
        self,
        waiting: Sequence[Turn],
        blocks: int,
        slots: int,
        num_running: int,
        growth_blocks: int = 0,
    ) -> Admission:
        """Admit turns and release the reservations that they take. Mutates.

        Args:
            waiting: Turns to choose from, in order of arrival, with their demand filled in.
            blocks: Free blocks without a reservation (count; may be negative).
            slots: Turns that may still start (count).
            num_running: Turns running (count).
            growth_blocks: Free blocks that those are expected to grow into (count).
        """
        policy = self.policies.admission
        budget = self._reservations.budget(blocks, slots, num_running, policy, growth_blocks)
        admission = policy.admit(waiting, budget)
        if waiting and not num_running and not admission.admitted:
            admission = replace(admission, admitted=waiting[:1])  # the engine is never left idle
        self.last_admission.note(admission, self._now_s, blocks, slots)
        self.hints.released(admission.released)
        for session in admission.released:
            self._blocks.release(session)
            if session.priority is not None:
                self._blocks.rescore(session)
        return admission

    def priority_of(self, node: Node[Any]) -> Priority:
        """Priority of a node's free blocks, as of the last step. Pure."""
        return self._priorities.priority(node)

    def stored_priority(self, session: Session) -> Priority | None:
        """Priority of a session's stored blocks; None while it is in the engine. Pure."""
        return self._priorities.stored(session)

    # Sessions.

    @property
    def num_answered(self) -> Mapping[str, int]:
        """Streams closed for their last answer, by kind (counts)."""
        return self._turn_ends.num_answered

    def _observe(self, event: Event) -> None:
        self.hints.observe(event)
        self.listener(event)
        self._show(event)
        self.policies.observe(event)

    def _forget_surplus(self) -> None:
        for session in self.sessions.surplus():
            self._forget(session)
        if len(self.tree) <= self.max_known_blocks:
            return
        for session in list(islice(self.sessions, _FORGOTTEN_PER_TURN)):
            if not session.state.is_busy and not session.tail.free_blocks.num_blocks:
                self._forget(session)

    def _forget(self, session: Session) -> None:
        self._blocks.release(session)
        self.idle.leave(session)
        self._turn_ends.forget(session)
        self._priorities.forget(session)
        self._blocks.drop(session)
        self.tier.forget(session)
        self._commands.forget(session)
        session.state = SessionState.CLOSED
        self.sessions.drop(session)
        self._lineage.drop(session)
        self._observe(SessionForgotten(self._now_s, session))
        self._drop_memories_of(session)
