"""An engine's sessions and totals, as they are between two steps.

Process: engine core. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from heapq import nsmallest
from itertools import islice
from typing import Any, Final

import holdfast
from holdfast.cache.resident_prefix import resident_length
from holdfast.core.bounded_name import bounded_name
from holdfast.core.miss import Attribution
from holdfast.core.session import Session
from holdfast.runtime.runtime import AgentRuntime
from holdfast.vllm.cache_layout import cache_layout
from holdfast.vllm.control.messages import (
    MAX_SESSIONS_A_PAGE,
    EngineReport,
    MissReport,
    SessionReport,
    StateQuery,
    StateReport,
    WaitReport,
    WorkflowReport,
)

__all__ = ["EngineState", "tenant_digest", "workflows_of"]

_MAX_WORKFLOWS: Final = 100
_MAX_RUNNING: Final = 16
_DIGEST_CHARS: Final = 16


class EngineState:
    """Reports an engine's totals, and its sessions page by page. O(sessions).

    Args:
        scheduler: vLLM's.
        runtime: Knows the sessions.
        engine: Number among the server's data-parallel engines.
        policy: Name of the policy in use.
    """

    def __init__(self, scheduler: Any, runtime: AgentRuntime, engine: int, policy: str) -> None:
        self._scheduler = scheduler
        self._runtime = runtime
        self._engine = engine
        self._policy = policy
        self._layout = cache_layout(scheduler)
        self._cached_block = scheduler.kv_cache_manager.block_pool.get_cached_block

    @property
    def engine(self) -> int:
        """Number among the server's data-parallel engines."""
        return self._engine

    def report(self, query: StateQuery, *, is_active: bool) -> StateReport:
        """The engine as a whole and the sessions that a query asks for. Pure.

        Args:
            query: The query.
            is_active: Whether Holdfast decides; without it no session is known.
        """
        scheduler, runtime = self._scheduler, self._runtime
        num_running, num_queued = scheduler.get_request_counts()
        pool = scheduler.kv_cache_manager.block_pool
        engine = EngineReport(
            engine=self._engine,
            version=holdfast.__version__,
            policy=self._policy,
            is_active=is_active,
            trusts_predictions=runtime.trusts_predictions,
            capacity_blocks=runtime.capacity_blocks,
            free_blocks=pool.get_num_free_blocks(),
            reserved_blocks=getattr(pool.free_block_queue, "num_reserved_blocks", 0),
            num_running=num_running,
            num_queued=num_queued,
            sessions=self._counts() if is_active else {},
        )
        if not is_active:
            return StateReport(engine, [], [], None)
        sessions, next_after = self._page(query)
        return StateReport(engine, workflows_of(runtime, query.tenant), sessions, next_after)

    def _page(self, query: StateQuery) -> tuple[list[SessionReport], int | None]:
        """The sessions that a query asks for, and `after` of the next page."""
        tenant = None if query.tenant is None else bounded_name(query.tenant)
        limit = min(max(query.limit, 1), MAX_SESSIONS_A_PAGE)
        wanted = None if query.session_id is None else bounded_name(query.session_id)
        matching = (
            session
            for session in self._runtime.sessions
            if session.number > query.after
            and tenant in (None, session.tenant)
            and wanted in (None, session.identity.session_id)
        )
        found = nsmallest(limit + 1, matching, key=_number)
        page = found[:limit]
        next_after = page[-1].number if len(found) > limit else None
        return [self._report(session) for session in page], next_after

    def _counts(self) -> dict[str, int]:
        return dict(Counter(session.state.value for session in self._runtime.sessions))

    def _report(self, session: Session) -> SessionReport:
        identity = session.identity
        num_groups = self._layout.num_groups
        num_blocks = session.tail.end // self._layout.hashes_per_block
        last = [_miss(*one) for one in reversed(self._runtime.misses.last_of(session))]
        return SessionReport(
            number=session.number,
            session_id=None if session.group is None else session.group.rpartition("\x00")[2],
            tenant=tenant_digest(session.tenant),
            parent_session_id=identity.parent_session_id,
            agent_id=identity.agent_id,
            workflow_id=identity.workflow_id,
            client=identity.client,
            state=session.state.value,
            num_turns=session.num_turns,
            context_blocks=num_blocks * num_groups,
            resident_blocks=self._num_resident(session, num_blocks) * num_groups,
            has_reservation=session.has_reservation,
            waits_for=self._wait(session) if session.state.is_paused else None,
            last_miss=last[0] if last else None,
            last_misses=last,
            stored_blocks=self._num_stored(session) * num_groups,
        )

    def _num_stored(self, session: Session) -> int:
        """Leading blocks of a session's path that tiers store (count)."""
        nodes = [*session.tail.path()][::-1]
        hashes = [block_hash for node in nodes for block_hash in node.hashes]
        return self._runtime.tier.num_stored(hashes, 0) // self._layout.hashes_per_block

    def _num_resident(self, session: Session, num_blocks: int) -> int:
        """Leading blocks of a session's path that are resident (count)."""
        nodes = [node for node in session.tail.path() if node.hashes][::-1]
        starts = [node.start for node in nodes]
        stride = self._layout.hashes_per_block

        def is_resident(block: int) -> bool:
            index = (block + 1) * stride - 1
            node = nodes[bisect_right(starts, index) - 1]
            block_hash = node.hashes[index - node.start]
            return self._cached_block(block_hash, [self._layout.group]) is not None

        return resident_length(num_blocks, is_resident)

    def _wait(self, session: Session) -> WaitReport:
        runtime, gap = self._runtime, session.gap
        away_s = max(runtime.now_s - session.paused_at_s, 0.0)
        idle_s = max(runtime.now_s - session.idle_since_s, 0.0)
        if session.result_at_s is not None:
            expected_s = session.result_lag_s - idle_s
        elif session.expected_gap_s is not None:
            expected_s = session.expected_gap_s - away_s
        else:
            expected_s = runtime.returns.residual_quantile_s(
                gap,
                away_s,
                0.5,
                scale_s=runtime.restore_s(max(session.tail.end, 1)),
                speed=session.speed,
            )
        return WaitReport(
            kind=gap.kind,
            tool=gap.tool,
            idle_s=idle_s,
            expected_s=max(expected_s, 0.0),
            result_known=session.result_at_s is not None,
        )


def workflows_of(runtime: AgentRuntime, tenant: str | None) -> list[WorkflowReport]:
    """The workflows used last, at most a hundred; a tenant's, or all. Pure."""
    name = None if tenant is None else bounded_name(tenant)
    matching = (one for one in runtime.workflows.statuses() if name in (None, one.tenant))
    return [
        WorkflowReport(
            workflow_id=one.workflow_id,
            tenant=tenant_digest(one.tenant),
            num_agents=one.num_agents,
            is_trusted=one.is_trusted,
            running=list(one.running[:_MAX_RUNNING]),
        )
        for one in islice(matching, _MAX_WORKFLOWS)
    ]


def tenant_digest(tenant: str) -> str:
    """A name for a tenant that does not reveal its `cache_salt`; "" without one. Pure."""
    if not tenant:
        return ""
    return hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]


def _miss(turn: int, last: Attribution) -> MissReport:
    missed = {str(reason): num_tokens for reason, num_tokens in last.missed.items()}
    return MissReport(
        turn, last.prompt_tokens, last.cached_tokens, missed, sum(last.lost_s.values())
    )


def _number(session: Session) -> int:
    return session.number
