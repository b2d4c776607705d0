"""An engine's sessions and totals, as they are between two steps.

Process: engine core. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from heapq import nsmallest
from itertools import islice
from typing import Any, Final

import holdfast
from holdfast.cache.resident_prefix import resident_length
from holdfast.core.bounded_name import bounded_name
from holdfast.core.miss_record import eviction_record
from holdfast.core.session import Session, SessionState
from holdfast.core.start_delay import StartDelay
from holdfast.core.turn import Turn
from holdfast.runtime.attribution import PastTurn
from holdfast.runtime.runtime import AgentRuntime
from holdfast.vllm.cache_layout import cache_layout, kv_bytes_per_token
from holdfast.vllm.control.messages import (
    MAX_SESSIONS_A_PAGE,
    CostReport,
    EngineReport,
    MissReport,
    SessionReport,
    StartReport,
    StateQuery,
    StateReport,
    WaitReport,
    WorkflowReport,
)
from holdfast.vllm.request_queue import AdmissionQueue

__all__ = ["EngineState", "tenant_digest", "workflows_of"]

_MAX_WORKFLOWS: Final = 100
_MAX_RUNNING: Final = 16
_DIGEST_CHARS: Final = 16
_LOADED_TOKENS: Final = 1024


class EngineState:
    """Reports an engine's totals, and its sessions page by page. O(sessions).

    Args:
        scheduler: vLLM's.
        runtime: Knows the sessions.
        engine: Number among the server's data-parallel engines.
        policy: Name of the policy in use.
        turns: Returns the turns in the engine.
    """

    def __init__(
        self,
        scheduler: Any,
        runtime: AgentRuntime,
        engine: int,
        policy: str,
        turns: Callable[[], Iterable[Turn]],
    ) -> None:
        self._scheduler = scheduler
        self._runtime = runtime
        self._engine = engine
        self._policy = policy
        self._turns = turns
        self._layout = layout = cache_layout(scheduler)
        self._block_tokens = layout.hash_block_tokens * layout.hashes_per_block
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
        costs, layout = runtime.costs.costs, self._layout
        cache_tokens = runtime.capacity_blocks // layout.num_groups * self._block_tokens
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
            cache_tokens=cache_tokens,
            block_tokens=self._block_tokens,
            kv_bytes_per_token=kv_bytes_per_token(scheduler, cache_tokens),
            host_tokens=self._host_tokens,
            host_load_s_per_token=self._load_s_per_token(),
            max_running=scheduler.max_num_running_reqs,
            max_step_tokens=scheduler.max_num_scheduled_tokens,
            costs=None if costs is None else CostReport(*costs),
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
        waiting = {t.session: t for t in self._turns() if t.session.state is SessionState.WAITING}
        return [self._report(session, waiting.get(session)) for session in page], next_after

    def _counts(self) -> dict[str, int]:
        return dict(Counter(session.state.value for session in self._runtime.sessions))

    def _report(self, session: Session, waiting: Turn | None) -> SessionReport:
        identity, now_s = session.identity, self._runtime.now_s
        num_groups = self._layout.num_groups
        num_blocks = session.tail.end // self._layout.hashes_per_block
        last = [_miss(past, now_s) for past in reversed(self._runtime.misses.last_of(session))]
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
            starts_after=None if waiting is None else self._start(waiting),
        )

    def _start(self, turn: Turn) -> StartReport:
        delay = StartDelay("engine")
        if isinstance(self._scheduler.waiting, AdmissionQueue):
            delay = self._runtime.last_admission.delay_of(turn)
        now_s = self._runtime.now_s
        due_s = max(turn.due_s - now_s, 0.0)
        return StartReport(
            delay.reason,
            waited_s=max(now_s - turn.arrived_s, 0.0),
            due_s=due_s if due_s < math.inf else None,
            needed_blocks=delay.needed_blocks,
            free_blocks=delay.free_blocks,
            first_session=delay.first_session,
        )

    @property
    def _host_tokens(self) -> int:
        return self._runtime.tier.capacity_blocks * self._layout.hash_block_tokens

    def _load_s_per_token(self) -> float | None:
        blocks = _LOADED_TOKENS / self._block_tokens
        seconds = self._runtime.tier.load_s(blocks) / _LOADED_TOKENS
        return seconds if 0.0 < seconds < math.inf else None

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


def _miss(past: PastTurn, now_s: float) -> MissReport:
    last = past.attribution
    return MissReport(
        *(past.number, last.prompt_tokens, last.cached_tokens),
        missed={str(reason): num_tokens for reason, num_tokens in last.missed.items()},
        lost_s=sum(last.lost_s.values()),
        lost_s_by={str(reason): seconds for reason, seconds in last.lost_s.items()},
        evicted=eviction_record(last, now_s),
        output_tokens=past.output_tokens,
        gap_s=past.gap_s,
        waited_s=past.waited_s,
        delayed_by=past.delayed_by,
        change=last.change,
    )


def _number(session: Session) -> int:
    return session.number
