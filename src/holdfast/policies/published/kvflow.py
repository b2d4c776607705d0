"""KVFlow: eviction by steps-to-execution."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from holdfast.cache.prefix_tree import Node
from holdfast.core.events import Event, TurnArrived, TurnEnded
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.base import (
    EvictionPolicy,
    PolicyContext,
    PolicySettings,
    PolicySpec,
    PrefetchPolicy,
    Priority,
    PriorityClass,
    users_of,
)

__all__ = ["KVFlow", "KVFlowSettings"]

_MIN_SHARERS = 2


class KVFlowSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `KVFlow`.

    Attributes:
        steps_ahead: Calls of a workflow that are looked at (count, >= 1). Ours: the paper has the
            whole graph.
        prefetch_steps: Prefixes needed within so many steps are prefetched (count, >= 0).
    """

    steps_ahead: Annotated[int, Meta(ge=1)] = 32
    prefetch_steps: Annotated[int, Meta(ge=0)] = 1


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of an agent: steps until it runs, and the node in which its prefix ends."""

    steps: int
    node: Node[Any]
    end_blocks: int


class KVFlow(EvictionPolicy, PrefetchPolicy):
    """Evicts varying suffixes first, then the fixed prefixes needed in the most steps.

    A fixed prefix is a node that several sessions share, or the known beginning of a call to come.
    Steps are counted in calls of the workflow, up to 32 ahead, and a node takes the least of all
    calls that need it. Without a workflow graph a session in the engine is zero
    steps away and a paused one runs at the next step of its own loop.

    Source: Pan et al., KVFlow, arXiv 2507.07400, NeurIPS 2025: priority of a node is the least
    steps-to-execution below it, suffixes first.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="kvflow",
        summary="Evicts varying suffixes first, then fixed prefixes by steps to execution.",
        source="KVFlow, arXiv 2507.07400",
        differs="The workflow's order, which applications give KVFlow, is the recorded one and "
        "known in simulation only; elsewhere each session is a loop of one agent. Prefixes end "
        "where prompts part, not where an application says; prefetch is capped by free blocks "
        "alone; no request passes one whose prefix is being loaded.",
        settings=KVFlowSettings,
    )
    settings: KVFlowSettings

    def __init__(self, context: PolicyContext, settings: KVFlowSettings) -> None:
        super().__init__(context, settings)
        self._calls: dict[str, list[_Call]] = {}  # by workflow, soonest first
        self._steps: dict[Node[Any], _Call] = {}

    def observe(self, event: Event) -> None:
        """Look ahead in the workflow as its steps begin and end. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._look_ahead(turn, [_prompt_of(turn.session)])
            case TurnEnded(turn=turn):
                self._look_ahead(turn, [])

    def session_priority(self, session: Session) -> float:
        """Minus the steps until the session's fixed prefix is needed."""
        if session.state.is_busy:
            return 0.0
        if self.context.oracle is None:
            return -1.0
        fixed = next(filter(_is_shared, session.tail.path()), session.tail)
        return float(-self._steps_to(fixed))

    def priority(self, node: Node[Any]) -> Priority:
        """Fixed before suffix, then the fewest steps among the users."""
        users = list(islice(users_of(node), _MIN_SHARERS))
        if not users:
            return PriorityClass.UNOWNED, 0.0
        if self.context.oracle is not None:
            steps = self._steps_to(node)
            is_fixed = steps <= self.settings.steps_ahead or len(users) >= _MIN_SHARERS
            return (PriorityClass.LIVE, float(-steps)) if is_fixed else (PriorityClass.AWAY, 0.0)
        if len(users) < _MIN_SHARERS:
            return PriorityClass.AWAY, 0.0
        return PriorityClass.LIVE, max(user.retention_priority for user in users_of(node))

    def candidates(self) -> Iterable[Node[Any]]:
        """Ends of the fixed prefixes that workflows need at their next steps."""
        for calls in self._calls.values():
            for call in calls:
                if 1 <= call.steps <= self.settings.prefetch_steps:
                    yield from islice((r for r in call.node.path() if r.start < call.end_blocks), 1)

    def _look_ahead(self, turn: Turn, now: list[Sequence[bytes]]) -> None:
        """Take note of a workflow's next calls; `now` is the prompt at hand while it runs."""
        oracle = self.context.oracle
        if oracle is None:
            return
        ahead = islice(oracle.prompts_after(turn.request_id), self.settings.steps_ahead)
        calls = [*self._found(now, 0), *self._found(ahead, 1)]
        self._calls.pop(oracle.session_id_of(turn.request_id), None)
        if calls:
            self._calls[oracle.session_id_of(turn.request_id)] = calls
        self._steps = {}
        for call in (call for calls in self._calls.values() for call in calls):
            known = self._steps.setdefault(call.node, call)
            if call.steps < known.steps:
                self._steps[call.node] = call

    def _found(self, prompts: Iterable[Sequence[bytes]], first_step: int) -> Iterator[_Call]:
        for steps, prompt in enumerate(prompts, first_step):
            node, depth = self.context.tree.match(prompt)
            if depth < node.end:
                yield _Call(steps, node, depth)
                continue
            for fixed in islice(filter(_is_shared, node.path()), 1):
                yield _Call(steps, fixed, fixed.end)

    def _steps_to(self, node: Node[Any]) -> int:
        """The least steps to a call whose prefix contains the node's first block."""
        found = (self._steps.get(part) for part in node.subtree())
        far = self.settings.steps_ahead + 1
        return min((c.steps for c in found if c and node.start < c.end_blocks), default=far)


def _prompt_of(session: Session) -> list[bytes]:
    """Prefix hashes of a session's path."""
    return [h for node in reversed(list(session.tail.path())) for h in node.hashes]


def _is_shared(node: Node[Any]) -> bool:
    return sum(1 for _ in islice(users_of(node), _MIN_SHARERS)) == _MIN_SHARERS
