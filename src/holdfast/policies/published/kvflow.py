"""KVFlow: steps to execution decide eviction, prefetch and order of requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from holdfast.cache.prefix_tree import Node
from holdfast.core.agents import AgentKey
from holdfast.core.events import Event, TurnArrived, TurnEnded
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget
from holdfast.policies.base import (
    AdmissionPolicy,
    EvictionPolicy,
    Oracle,
    PolicyContext,
    PolicySettings,
    PolicySpec,
    PrefetchPolicy,
    Priority,
    PriorityClass,
    users_of,
)
from holdfast.policies.fixed_prefixes import FixedPrefixes

__all__ = ["KVFlow", "KVFlowSettings"]

_MIN_SHARERS = 2


class KVFlowSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `KVFlow`.

    Attributes:
        steps_ahead: Steps beyond which all agents are equally far (count, >= 1). Ours: the paper
            has the whole graph.
        prefetch_steps: Prefixes needed within so many steps are prefetched (count, >= 0).
        prefetch_candidates: Prefixes that may be prefetched at a time, so that not all branches
            are (count, >= 0). Ours: the paper's cap is unpublished.
    """

    steps_ahead: Annotated[int, Meta(ge=1)] = 32
    prefetch_steps: Annotated[int, Meta(ge=0)] = 1
    prefetch_candidates: Annotated[int, Meta(ge=0)] = 4


class KVFlow(EvictionPolicy, AdmissionPolicy, PrefetchPolicy):
    """Evicts varying suffixes first, then the fixed prefixes needed in the most steps.

    Steps to execution come from the step graphs that applications declare. The end of an agent's
    fixed prefix has the agent's steps, and a node the least of all prefixes that go through it.
    Prefixes needed at the next step are prefetched, those of all branches, and a request whose
    prefix is being loaded is passed by those that are ready. Blocks of sessions that no declared
    workflow has come after every suffix and, among far prefixes, by recency; without a workflow
    all go by recency.

    A simulator without declared graphs gives the recorded order of calls in place of them.

    Source: Pan et al., KVFlow, arXiv 2507.07400, NeurIPS 2025: priority of a node is the least
    steps-to-execution below it, suffixes first; prefetch of the next agents; scheduling by the
    state of a request's prefix.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="kvflow",
        summary="Evicts, prefetches and starts requests by the steps to execution of agents.",
        source="KVFlow, arXiv 2507.07400",
        differs="Graphs are declared once and followed by the ids of requests, not sent along with "
        "each; where no graph is declared, the simulator gives the recorded order of calls, and an "
        "engine goes by recency. Without a mark of the client a prefix ends where prompts of the "
        "agent part. Steps beyond 32 are equally far. Only prefixes that vLLM's own scheduler does "
        "not load are waited for: it already passes requests whose blocks it loads.",
        settings=KVFlowSettings,
    )
    settings: KVFlowSettings

    def __init__(self, context: PolicyContext, settings: KVFlowSettings) -> None:
        super().__init__(context, settings)
        self._prefixes = context.shared(FixedPrefixes)
        self._recorded: _RecordedOrder | None = None
        if context.oracle is not None:
            self._recorded = _RecordedOrder(context, context.oracle, settings.steps_ahead)

    def observe(self, event: Event) -> None:
        """Look ahead in recorded workflows as their steps begin and end. Mutates."""
        if self._recorded is not None:
            match event:
                case TurnArrived(turn=turn) if not self._is_declared(turn.session):
                    self._recorded.look_ahead(turn, [_prompt_of(turn.session)])
                case TurnEnded(turn=turn) if not self._is_declared(turn.session):
                    self._recorded.look_ahead(turn, [])

    def session_priority(self, session: Session) -> float:
        """Minus the steps until the session's fixed prefix is needed."""
        if session.state.is_busy:
            return 0.0
        steps: int | None = None
        if self._is_declared(session):
            steps = self.context.workflows.steps_to(AgentKey.of(session.identity, None))
        elif self._recorded is not None:
            fixed = next(filter(_is_shared, session.tail.path()), session.tail)
            steps = self._recorded.steps_to(fixed)
        return float(-self._near(steps))

    def priority(self, node: Node[Any]) -> Priority:
        """Fixed before suffix, then the fewest steps among the users."""
        users = list(users_of(node))
        if not users:
            return PriorityClass.UNOWNED, 0.0
        steps = self._steps_to(node)
        if steps is not None or self._prefixes.contain(node):
            return PriorityClass.LIVE, float(-self._near(steps))
        if all(map(self._is_declared, users)):
            return PriorityClass.AWAY, 0.0
        if self._recorded is not None and len(users) < _MIN_SHARERS:
            return PriorityClass.AWAY, 0.0
        return PriorityClass.LIVE, float(-self._near(None))

    def candidates(self) -> Iterable[Node[Any]]:
        """Ends of the fixed prefixes that workflows need at their next steps."""
        within = self.settings.prefetch_steps
        declared = self._prefixes.next_ends(within)
        yield from islice(declared, self.settings.prefetch_candidates)
        if self._recorded is not None:
            yield from islice(self._recorded.next_ends(within), self.settings.prefetch_candidates)

    def admit(self, waiting: Sequence[Turn], budget: Budget) -> Admission:
        """Admit all, those whose prefix is not being loaded first. Pure."""
        turns = sorted(waiting, key=lambda t: (t.priority, not t.was_running, t.is_loading))
        ready = [t for t in turns if not t.is_loading or t.is_due(budget.now_s)]
        return Admission(ready[: budget.slots])

    def _is_declared(self, session: Session) -> bool:
        """Whether a declared workflow has the session's agent."""
        return AgentKey.of(session.identity, None) in self.context.workflows

    def _steps_to(self, node: Node[Any]) -> int | None:
        """Fewest steps until the node is needed; None if far or unknown."""
        declared = self._prefixes.steps_to(node)
        recorded = None if self._recorded is None else self._recorded.steps_to(node)
        known = [steps for steps in (declared, recorded) if steps is not None]
        return min(known, default=None)

    def _near(self, steps: int | None) -> int:
        """Steps, those that are far or unknown one past the last that is looked at."""
        far = self.settings.steps_ahead + 1
        return far if steps is None else min(steps, far)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of an agent: steps until it runs, and the node in which its prefix ends."""

    steps: int
    node: Node[Any]
    end_blocks: int


class _RecordedOrder:
    """Steps to execution by the order of calls that a simulated run has recorded.

    A fixed prefix is a node that several sessions share, or the known beginning of a call to come.

    Args:
        context: Knows the prefix tree.
        oracle: Knows the prompts to come.
        steps_ahead: Calls of a workflow that are looked at (count).
    """

    def __init__(self, context: PolicyContext, oracle: Oracle, steps_ahead: int) -> None:
        self._context = context
        self._oracle = oracle
        self._steps_ahead = steps_ahead
        self._calls: dict[str, list[_Call]] = {}  # by workflow, soonest first
        self._steps: dict[Node[Any], _Call] = {}

    def look_ahead(self, turn: Turn, now: list[Sequence[bytes]]) -> None:
        """Note a workflow's next calls; `now` is the prompt while it runs. Mutates."""
        oracle = self._oracle
        ahead = islice(oracle.prompts_after(turn.request_id), self._steps_ahead)
        calls = [*self._found(now, 0), *self._found(ahead, 1)]
        self._calls.pop(oracle.session_id_of(turn.request_id), None)
        if calls:
            self._calls[oracle.session_id_of(turn.request_id)] = calls
        self._steps = {}
        for call in (call for calls in self._calls.values() for call in calls):
            known = self._steps.setdefault(call.node, call)
            if call.steps < known.steps:
                self._steps[call.node] = call

    def steps_to(self, node: Node[Any]) -> int | None:
        """The least steps to a call whose prefix contains the node's first block. Pure."""
        found = (self._steps.get(part) for part in node.subtree())
        return min((c.steps for c in found if c and node.start < c.end_blocks), default=None)

    def next_ends(self, max_steps: int) -> Iterator[Node[Any]]:
        """Last nodes of the prefixes that are needed within so many steps. Pure."""
        for calls in self._calls.values():
            for call in calls:
                if 1 <= call.steps <= max_steps:
                    yield from islice((r for r in call.node.path() if r.start < call.end_blocks), 1)

    def _found(self, prompts: Iterable[Sequence[bytes]], first_step: int) -> Iterator[_Call]:
        for steps, prompt in enumerate(prompts, first_step):
            node, depth = self._context.tree.match(prompt)
            if depth < node.end:
                yield _Call(steps, node, depth)
                continue
            for fixed in islice(filter(_is_shared, node.path()), 1):
                yield _Call(steps, fixed, fixed.end)


def _prompt_of(session: Session) -> list[bytes]:
    """Prefix hashes of a session's path."""
    return [h for node in reversed(list(session.tail.path())) for h in node.hashes]


def _is_shared(node: Node[Any]) -> bool:
    return sum(1 for _ in islice(users_of(node), _MIN_SHARERS)) == _MIN_SHARERS
