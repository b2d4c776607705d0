"""Enables and disables stores and loads of KV blocks by their net benefit.

vLLM stores every block and loads every block that it finds. The transfer gate compares the time
that copies take with the time that computing takes, both learned on this engine.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.base import users_of
from holdfast.predict.one_shot import OneShotPredictor
from holdfast.predict.transfer_ledger import TransferAccount, TransferLedger
from holdfast.runtime.runtime import AgentRuntime
from holdfast.vllm.cache_layout import CacheLayout
from holdfast.vllm.metrics import EngineMetrics
from holdfast.vllm.offload.host_tier import HostTier
from holdfast.vllm.requests import RequestTracker
from holdfast.vllm.step_meter import StepMeter

__all__ = ["TransferGate"]

_PROBE_BLOCKS: Final = 16
_NOTHING: Final = 0
_USERS_ASKED: Final = 2
# A load delays its own turn; computing the same blocks delays the other running turns as well. On
# simulated links as fast as computing and half as fast, counting computing once lost gains, and
# counting it for every running turn brought losses.
_COMPUTE_WEIGHT_WITH_OTHERS: Final = 2.0

_logger = logging.getLogger(__name__)

Matched = tuple[int | None, bool]
"""Loadable tokens, None to ask again later; whether the load runs beside engine steps."""


@dataclass(slots=True)
class _Entry:
    """A request in the engine.

    Attributes:
        turn: Its turn.
        is_final: Whether its session ends with it.
        may_limit_loads: Whether the request sets no limit for loads itself.
        may_limit_stores: Likewise for stores.
        skip_reason: Why its blocks are not stored; "" if they are, "unknown" while copy times are.
        waits_since_s: When vLLM first had to ask again (s), or None.
        is_load_skipped: Whether a load was skipped.
    """

    turn: Turn
    is_final: bool
    may_limit_loads: bool
    may_limit_stores: bool
    skip_reason: str = ""
    waits_since_s: float | None = None
    is_load_skipped: bool = False


class TransferGate:
    """Limits loads and stores between vLLM's scheduler and connector; never raises.

    Args:
        transfers: vLLM's `OffloadingConnectorScheduler`; gets each request's limits.
        tier: Knows the stored blocks and the copy times.
        runtime: Knows sessions and restore costs.
        tracker: Knows each request's turn.
        layout: Of the KV cache.
        meter: Knows how long steps have waited for copies.
        metrics: Counts skipped stores and loads.
        guard: Runs a function of ours and returns its result, or None if it failed.
    """

    def __init__(
        self,
        transfers: Any,
        tier: HostTier,
        runtime: AgentRuntime,
        tracker: RequestTracker,
        layout: CacheLayout,
        meter: StepMeter,
        metrics: EngineMetrics,
        guard: Callable[[str, Callable[[], Any]], Any],
    ) -> None:
        self._transfers = transfers
        self._statuses = transfers._req_status  # noqa: SLF001 # vLLM has no public name for it
        self._tier = tier
        self._runtime = runtime
        self._tracker = tracker
        self._layout = layout
        self._block_tokens = layout.hash_block_tokens * layout.hashes_per_block
        self._guard = guard
        self._meter = meter
        self._metrics = metrics
        self._ledger = TransferLedger()
        self._one_shot = OneShotPredictor(runtime.is_gone)
        self._entries: dict[str, _Entry] = {}
        self._loads: dict[int, float] = {}  # by vLLM's number of the copy: time saved (s)
        self._probe: str | None = None  # the request whose stores teach the copy times
        self._has_undecided = False  # whether stores of a request wait for copy times
        self._was_disabled = False
        self._stalled_s = 0.0
        self._metrics.set_offload_enabled(True)

    # Calls of the connector.

    def request_arrived(self, request: Any) -> None:
        """Decide which blocks of a new request are stored."""
        self._guard("tier_gate", lambda: self._enter(request))

    def matched(self, request: Any, num_computed: int, ask: Callable[[], Matched]) -> Matched:
        """Tokens that a waiting request may load; see vLLM's `get_num_new_matched_tokens`.

        Args:
            request: vLLM's request.
            num_computed: Its tokens that are resident (count).
            ask: Asks vLLM's connector.
        """
        entry = self._entries.get(request.request_id)
        if entry is None or not entry.may_limit_loads:
            return ask()
        if self._guard("tier_gate", lambda: self._skips_load(entry, request, num_computed)):
            return self._ask_for_at_most(_NOTHING, request, ask)
        found, is_async = ask()
        if found and self._tier.load_s(1) == math.inf and self._was_disabled:
            return self._ask_for_at_most(_PROBE_BLOCKS * self._block_tokens, request, ask)
        if found is None:
            limit = self._guard("tier_gate", lambda: self._wait_limit(entry, request, num_computed))
            return (None, is_async) if limit is None else self._ask_for_at_most(limit, request, ask)
        if found and self._guard(
            "tier_gate", lambda: self._skips_load(entry, request, num_computed, found)
        ):
            return self._ask_for_at_most(_NOTHING, request, ask)
        return found, is_async

    def step_planned(self, transfers: Any) -> None:
        """Record the time that a step's loads save.

        Args:
            transfers: vLLM's `OffloadingConnectorMetadata`.
        """
        if self._has_undecided and self._knows_costs:
            self._guard("tier_gate", self._decide_all_stores)
        for number, job in transfers.load_jobs.items():
            depth = self._statuses[job.req_id].num_locally_computed_tokens
            num_blocks = len(job.dst_spec.block_ids) // self._layout.num_groups
            self._loads[number] = self._compute_s(num_blocks, self._blocks(depth))

    def step_ended(self, report: Any) -> None:
        """Record the copies that have ended.

        Args:
            report: vLLM's `OffloadingWorkerMetadata`, or None.
        """
        if report is not None:
            self._guard("tier_gate", lambda: self._record_copies(report))

    def request_finished(self, request: Any) -> None:
        """Forget a request; its last stores keep their limit."""
        entry = self._entries.pop(request.request_id, None)
        if entry is None:
            return
        if entry.skip_reason:
            self._metrics.store_skipped(entry.skip_reason)
        self._tier.turn_ended(entry.turn.session)
        if self._probe == request.request_id:
            self._guard("tier_gate", self._decide_all_stores)

    def lift_limits(self) -> None:
        """Leave every store and load to vLLM. Mutates."""
        for request_id, entry in self._entries.items():
            if entry.may_limit_stores:
                self._limit_stores(request_id, None)
        self._entries.clear()
        self._tier.is_enabled = True

    # Decide.

    def _enter(self, request: Any) -> None:
        turn = self._tracker.turn_of(request.request_id)
        if turn is None:
            return
        params = request.kv_transfer_params or {}
        entry = self._entries[request.request_id] = _Entry(
            turn,
            self._tracker.is_final(request.request_id),
            may_limit_loads=params.get("max_load_tokens") is None,
            may_limit_stores=params.get("max_offload_tokens") is None,
        )
        self._one_shot.turn_arrived(turn.session, _first_hash(request))
        was_enabled = self._ledger.is_enabled
        self._ledger.observe_stall(self._meter.stalled_s - self._stalled_s)
        self._stalled_s = self._meter.stalled_s
        account = self._ledger.turn_arrived(self._runtime.now_s)
        if self._ledger.is_enabled != was_enabled:
            self._switch()
        if account is not None:
            self._log_switch(account)
        self._decide_stores(request, entry)

    def _decide_stores(self, request: Any, entry: _Entry) -> None:
        """Limit which blocks of a request are stored, if the request sets no limit itself."""
        if not entry.may_limit_stores:
            return
        reason = self._reason_to_skip(request, entry)
        if reason == "not_paying" != entry.skip_reason:
            self._ledger.observe_declined()
        entry.skip_reason = reason
        limit: int | None = _NOTHING if reason else None
        if reason == "one_shot":
            limit = self._shared_tokens(entry.turn.session)
        self._has_undecided |= reason == "unknown"
        if reason == "unknown" and self._probe in (None, request.request_id):
            self._probe = request.request_id
            num_stored = self._tier.num_stored(request.block_hashes, 0)
            limit = num_stored * self._layout.hash_block_tokens + _PROBE_BLOCKS * self._block_tokens
            if self._transfers.config.supports_partial_tail:
                limit = None  # vLLM cannot store a part of such a prompt
        self._limit_stores(request.request_id, limit)

    def _reason_to_skip(self, request: Any, entry: _Entry) -> str:
        if entry.is_final:
            return "final"
        if not self._ledger.is_enabled:
            return "not_paying"
        if not self._knows_costs:
            return "unknown"
        num_blocks = self._blocks(request.num_tokens)
        copies = self._tier.copies
        saved_s = self._compute_s(num_blocks, 0) - copies.load_s(num_blocks)
        if saved_s <= 0.0:
            return "not_paying" if num_blocks else ""
        session = entry.turn.session
        if session.num_turns > 1:
            is_outranked = self._tier.is_outranked(session, request.block_hashes)
            return "outranked" if is_outranked else ""
        first_hash = _first_hash(request)
        share = self._one_shot.return_share(first_hash)
        if not self._num_shared(session):
            share = max(share, self._one_shot.repeat_share(first_hash))
        wasted_s = (1.0 - share) * copies.store_s(num_blocks)
        return "" if share * saved_s >= wasted_s else "one_shot"

    @staticmethod
    def _num_shared(session: Session) -> int:
        """Prefix hashes of a session's prompt that other sessions share (count). Pure."""
        for node in session.prompt_tail.path():
            if any(user is not session for user in islice(users_of(node), _USERS_ASKED)):
                return node.end
        return 0

    def _shared_tokens(self, session: Session) -> int:
        return self._num_shared(session) * self._layout.hash_block_tokens

    @property
    def _knows_costs(self) -> bool:
        return self._tier.copies.store_s(1) < math.inf and self._runtime.restore_s(1) > 0.0

    def _skips_load(
        self, entry: _Entry, request: Any, num_computed: int, found: int | None = None
    ) -> bool:
        """Whether loading would take longer than computing; counts once a request.

        Before vLLM has found the loadable tokens, all missing tokens stand for them: the more there
        are, the more a load saves.
        """
        num_blocks = self._blocks(request.num_tokens - num_computed if found is None else found)
        reason = ""
        if not self._ledger.is_enabled:
            reason = "not_paying"
        else:
            compute_s = self._compute_s(num_blocks, self._blocks(num_computed))
            load_s = self._tier.load_s(num_blocks + self._tier.num_loading)
            if 0.0 < compute_s <= load_s < math.inf:
                reason = "slower"
        if not reason:
            return False
        if not entry.is_load_skipped and (found or self._is_next_stored(request, num_computed)):
            entry.is_load_skipped = True
            self._metrics.load_skipped(reason)
            self._ledger.observe_declined()
        return True

    def _wait_limit(self, entry: _Entry, request: Any, num_computed: int) -> int | None:
        """Tokens that a request loads which has waited for a read long enough; else None.

        It waits as long as computing takes, and then loads the blocks that have arrived.
        """
        now_s = self._runtime.now_s
        if entry.waits_since_s is None:
            entry.waits_since_s = now_s
        num_missing = self._blocks(request.num_tokens - num_computed)
        compute_s = self._compute_s(num_missing, self._blocks(num_computed))
        if not compute_s or now_s - entry.waits_since_s <= compute_s:
            return None
        first = num_computed // self._layout.hash_block_tokens
        return self._tier.num_stored(request.block_hashes, first) * self._layout.hash_block_tokens

    def _compute_s(self, num_blocks: int, depth_blocks: int) -> float:
        """Time that turns wait while blocks are computed (s)."""
        compute_s = self._runtime.restore_s(num_blocks, depth_blocks)
        return compute_s * (_COMPUTE_WEIGHT_WITH_OTHERS if len(self._entries) > 1 else 1.0)

    def _is_next_stored(self, request: Any, num_computed: int) -> bool:
        first = num_computed // self._layout.hash_block_tokens
        return self._tier.is_chunk_stored(request.block_hashes, first)

    # Learn.

    def _record_copies(self, report: Any) -> None:
        num_loads = 0
        saved_s = 0.0
        for number in report.completed_jobs:
            if number in self._loads:
                num_loads += 1
                saved_s += self._loads.pop(number)
        stats = report.transfer_stats
        num_workers = self._transfers.config.num_workers
        if num_loads:
            self._ledger.observe_loads(num_loads, saved_s, stats.load.time / num_workers)
        if self._tier.copies_block_steps:
            self._ledger.observe_stall(stats.store.time / num_workers)

    def _switch(self) -> None:
        is_enabled = self._ledger.is_enabled
        self._metrics.set_offload_enabled(is_enabled)
        self._tier.is_enabled = is_enabled
        if is_enabled:  # the copy times may have changed
            self._was_disabled = True
            self._tier.forget_copy_times()
        self._decide_all_stores()

    def _decide_all_stores(self) -> None:
        self._has_undecided = False
        self._probe = None
        for request_id, entry in self._entries.items():
            status = self._statuses.get(request_id)
            if status is not None:
                self._decide_stores(status.req, entry)

    def _log_switch(self, account: TransferAccount) -> None:
        figures = (
            f"over {account.num_turns} turns and {account.elapsed_s:.1f} s,"
            f" {account.num_loads} loads saved {account.saved_s:.2f} s of computing and took"
            f" {account.loading_s:.2f} s, stores delayed steps by {account.stalled_s:.2f} s, and"
            f" {account.num_declined} copies were skipped as slower than computing"
        )
        if self._ledger.is_enabled:
            _logger.info("KV offload enabled again: %s", figures)
            return
        _logger.warning(
            "KV offload disabled for %d turns: copies cost %.1f s more than they saved (%s);"
            " if this repeats, serve without host_gib",
            self._ledger.disabled_turns,
            -account.net_benefit_s,
            figures,
        )

    # Limits.

    def _blocks(self, num_tokens: int) -> int:
        return num_tokens // self._block_tokens

    def _limit_stores(self, request_id: str, max_tokens: int | None) -> None:
        status = self._statuses.get(request_id)
        if status is not None:
            status.max_offload_tokens = max_tokens

    def _ask_for_at_most(
        self, max_tokens: int, request: Any, ask: Callable[[], Matched]
    ) -> Matched:
        status = self._statuses[request.request_id]
        status.max_load_tokens = max_tokens
        try:
            return ask()
        finally:
            status.max_load_tokens = None


def _first_hash(request: Any) -> bytes:
    """The first prefix hash of a prompt; b"" if it is shorter than a block."""
    return bytes(request.block_hashes[0]) if request.block_hashes else b""
