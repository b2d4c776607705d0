"""What the runtime lets policies look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from holdfast.cache.prefix_tree import Node, PrefixTree
from holdfast.core.events import Event
from holdfast.core.offload_port import NoOffload, OffloadPort
from holdfast.core.session import Session
from holdfast.core.workflow_graph import WorkflowGraph
from holdfast.policies.base import Observer, Oracle
from holdfast.predict.agent_calls import AgentCalls
from holdfast.predict.agent_runs import AgentRuns
from holdfast.predict.declared_workflows import DeclaredWorkflows
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.predict.step_cost import StepCostModel
from holdfast.runtime.asked_prefetches import AskedPrefetches
from holdfast.runtime.idle_sessions import IdleSessions
from holdfast.runtime.last_admission import LastAdmission
from holdfast.runtime.prediction_guard import PredictionGuard, Predictions
from holdfast.runtime.return_tracker import ReturnTracker

__all__ = ["RuntimeContext"]

T = TypeVar("T", bound=Observer)


class RuntimeContext:
    """The runtime's books as a `PolicyContext`.

    Args:
        predictions: See `PredictionGuard`.
        oracle: The future, for policies that are bounds.
        returns: What is known about return times; None knows nothing yet.
        agent_calls: What is known about agents' calls; None knows nothing yet.
        agent_runs: What is known about sub-agents' runs; None knows nothing yet.

    Attributes:
        tree: The paths of all sessions.
        returns: When paused sessions return, as learned so far.
        agent_calls: Which agents are called next, as learned so far.
        runs: How long sub-agents run, as learned so far.
        costs: What computing costs on this engine, as learned so far; the host reports steps to it.
        oracle: The future, or None.
        tier: The store below the KV cache; the host may set it before any turn.
        guard: Decides whether predictions are used, and counts how often not.
        idle: Sessions that may return.
        last_admission: Why waiting turns were not admitted.
        workflows: What applications have declared, and how far it has run.
        asked: Sessions whose clients ask for a prefetch.
        capacity_blocks: KV blocks of the cache (count).
        block_tokens: Tokens a block.
    """

    def __init__(
        self,
        predictions: Predictions,
        oracle: Oracle | None,
        returns: ReturnTimeModel | None,
        agent_calls: AgentCalls | None = None,
        agent_runs: AgentRuns | None = None,
    ) -> None:
        self.tree: PrefixTree[Any] = PrefixTree()
        self.returns = returns or ReturnTimeModel()
        self.agent_calls = agent_calls or AgentCalls()
        self.runs = agent_runs or AgentRuns(self.returns)
        self.costs = StepCostModel()
        self.oracle = oracle
        self.tier: OffloadPort = NoOffload()
        self.guard = PredictionGuard(predictions)
        self.idle = IdleSessions()
        self.last_admission = LastAdmission()
        self.workflows = DeclaredWorkflows()
        self.asked = AskedPrefetches()
        self.capacity_blocks = 0
        self.block_tokens = 1
        self._tracker = ReturnTracker(self.returns)
        self._observers: dict[type[Observer], Observer] = {}
        self._memories: list[dict[Session, Any]] = []
        self._dirty_nodes: dict[Node[Any], None] = {}
        self._dirty_sessions: dict[Session, None] = {}
        self._now_s = 0.0
        self._num_steps = 0

    @property
    def now_s(self) -> float:
        """Time of the last `tick` (s, host's monotonic clock)."""
        return self._now_s

    @property
    def num_steps(self) -> int:
        """Engine steps begun (count)."""
        return self._num_steps

    @property
    def return_share(self) -> float:
        """Share of sessions that returned after a sibling or a fork had started (0 to 1)."""
        return self._tracker.return_share

    @property
    def trusts_predictions(self) -> bool:
        """Whether predicted return times may be used now."""
        return self.guard.trusts

    def restore_s(self, num_blocks: float, depth_blocks: float = 0.0) -> float:
        """Engine time to compute blocks again that follow `depth_blocks` others (s)."""
        block_tokens = self.block_tokens
        return self.costs.prefill_s(num_blocks * block_tokens, depth_blocks * block_tokens)

    def paused(self) -> Iterator[Session]:
        """Idle sessions with resident blocks, the longest idle first."""
        return iter(self.idle)

    def is_gone(self, session: Session) -> bool:
        """Whether the pause outlasts nearly all of its kind; false if none is known. Pure."""
        return self._tracker.is_gone(session, self._now_s)

    def results_known(self) -> Iterator[Session]:
        """Paused sessions whose tools have finished, as clients said, the latest first."""
        return self.idle.results_known()

    def prefetches_asked(self) -> Iterator[Session]:
        """Paused sessions whose clients ask for a prefetch, tenants in turn."""
        return (session for session in self.asked if session.state.is_paused)

    def join_wait_s(self, session: Session) -> float | None:
        """Expected time until an agent that waits for sub-agents returns (s). Pure.

        None for a session that waits for none, or no more.
        """
        join = session.join
        if join is None or not session.waits_for_agents:
            return None
        first_s, last_s = join.running_since_s()
        runs_s = max(self._now_s - first_s, 0.0), max(self._now_s - last_s, 0.0)
        rest_s = self.runs.rest_s(session.gap, runs_s, join.num_awaited)
        return rest_s + self.runs.lag_s(session.gap)

    def per_session(self) -> dict[Session, Any]:
        """A new dict by session; a session leaves it when the runtime forgets the session."""
        memory: dict[Session, Any] = {}
        self._memories.append(memory)
        return memory

    def shared(self, kind: type[T]) -> T:
        """The one observer of this class; it sees each event before the policies do."""
        found = self._observers.get(kind)
        if not isinstance(found, kind):
            found = self._observers[kind] = kind(self)
        return found

    def rerank(self, node: Node[Any]) -> None:
        """Have a node's priority asked again before the next step. Mutates; O(1)."""
        self._dirty_nodes[node] = None

    def rescore(self, session: Session) -> None:
        """Have a session's priority computed again before the next step. Mutates; O(1)."""
        self._dirty_sessions[session] = None

    def declare_workflow(self, tenant: str, workflow_id: str, graph: WorkflowGraph) -> None:
        """Take in a workflow's graph; it counts until it ends or is long unused. Mutates."""
        self.workflows.declare(tenant, workflow_id, graph, self._now_s)

    def end_workflow(self, tenant: str, workflow_id: str) -> bool:
        """Forget a workflow's graph; returns whether there was one. Mutates."""
        return self.workflows.end(tenant, workflow_id)

    def _cold_s(self, hashes: Sequence[bytes]) -> float:
        """Engine time of a turn whose prompt is not resident (s)."""
        num_stored = self.tier.num_stored(hashes, 0)
        cold_s = self.costs.decode_s + self.restore_s(len(hashes) - num_stored, num_stored)
        if num_stored:
            cold_s += min(self.restore_s(num_stored), self.tier.load_s(num_stored))
        return cold_s

    def _take_dirty_nodes(self) -> list[Node[Any]]:
        nodes, self._dirty_nodes = list(self._dirty_nodes), {}
        return nodes

    def _take_dirty_sessions(self) -> list[Session]:
        sessions, self._dirty_sessions = list(self._dirty_sessions), {}
        return sessions

    def _show(self, event: Event) -> None:
        """Show an event to the shared observers. Mutates them."""
        self.workflows.follow(event)
        for observer in self._observers.values():
            observer.observe(event)

    def _drop_memories_of(self, session: Session) -> None:
        self._dirty_sessions.pop(session, None)
        for memory in self._memories:
            memory.pop(session, None)

    def _clear_observers(self) -> None:
        """Forget what shared observers and policies remember. Mutates."""
        self._observers.clear()
        self._memories.clear()
        self._dirty_nodes.clear()
        self._dirty_sessions.clear()
