"""Which turns copy KV blocks to the lower tier and back: those for which copies are worth it.

vLLM copies every block away and loads whatever it finds. Here both are weighed, by what copying and
computing take as learned on this engine, and both stop where they do not pay.

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

_PILOT_BLOCKS: Final = 16
_NOTHING: Final = 0
_USERS_ASKED: Final = 2
# A copy keeps its own turn waiting, computing those beside it as well. On simulated links as fast
# as computing and half as fast, counting that once left gains, and for every turn brought losses.
_WEIGHT_AMONG_OTHERS: Final = 2.0

_logger = logging.getLogger(__name__)

Matched = tuple[int | None, bool]
"""Tokens that can be loaded, None for ask again later; whether that goes on beside the steps."""


@dataclass(slots=True)
class _Entry:
    """A request in the engine.

    Attributes:
        turn: Its turn.
        is_final: Whether its session ends with it.
        may_limit_loads: Whether the operator left that to us.
        may_limit_stores: Likewise.
        skipped: Why its blocks are not stored; "" when they are, "unknown" while it is not known
            what copying takes.
        waits_since_s: When it was first told to ask again (s), or None.
        is_declined: Whether a load was declined.
    """

    turn: Turn
    is_final: bool
    may_limit_loads: bool
    may_limit_stores: bool
    skipped: str = ""
    waits_since_s: float | None = None
    is_declined: bool = False


class TransferGate:
    """Sits between vLLM's scheduler and its offloading connector. Raises nothing into either.

    Args:
        transfers: vLLM's `OffloadingConnectorScheduler`; told what each request may copy.
        tier: What the tier holds and what copies take.
        runtime: Knows sessions and what computing takes.
        desk: Knows which request is which turn.
        grain: Of the prefix cache.
        meter: Knows how long steps have waited for copies.
        metrics: Told what was left out.
        guard: Runs a call of ours and returns its result, or None when it failed.
    """

    def __init__(
        self,
        transfers: Any,
        tier: HostTier,
        runtime: AgentRuntime,
        desk: RequestTracker,
        grain: CacheLayout,
        meter: StepMeter,
        metrics: EngineMetrics,
        guard: Callable[[str, Callable[[], Any]], Any],
    ) -> None:
        self._transfers = transfers
        self._statuses = transfers._req_status  # noqa: SLF001 # vLLM has them nowhere else
        self._tier = tier
        self._runtime = runtime
        self._desk = desk
        self._grain = grain
        self._block_tokens = grain.hash_block_tokens * grain.hashes_per_block
        self._guard = guard
        self._meter = meter
        self._metrics = metrics
        self._ledger = TransferLedger()
        self._first_turns = OneShotPredictor(runtime.is_gone)
        self._entries: dict[str, _Entry] = {}
        self._loads: dict[int, float] = {}  # by vLLM's number of the copy: time saved (s)
        self._pilot: str | None = None
        self._is_unsure = False  # whether a request waits to be told what it may store
        self._num_rests = 0
        self._stalled_s = 0.0
        self._metrics.set_offload_paying(True)

    # What the connector calls.

    def entered(self, request: Any) -> None:
        """The connector has taken note of a request."""
        self._guard("tier_gate", lambda: self._enter(request))

    def matched(self, request: Any, num_computed: int, ask: Callable[[], Matched]) -> Matched:
        """What a waiting request may load, of what the connector finds when asked.

        Args:
            request: vLLM's request.
            num_computed: Its tokens that are in the cache (count).
            ask: Asks vLLM's connector.
        """
        entry = self._entries.get(request.request_id)
        if entry is None or not entry.may_limit_loads:
            return ask()
        if self._guard("tier_gate", lambda: self._declines(entry, request, num_computed)):
            return self._ask(request, ask, _NOTHING)
        found, is_beside = ask()
        if found and self._tier.load_s(1) == math.inf and self._num_rests:
            return self._ask(request, ask, _PILOT_BLOCKS * self._block_tokens)
        if found is None:
            most = self._guard("tier_gate", lambda: self._ready(entry, request, num_computed))
            return (None, is_beside) if most is None else self._ask(request, ask, most)
        if found and self._guard(
            "tier_gate", lambda: self._declines(entry, request, num_computed, found)
        ):
            return self._ask(request, ask, _NOTHING)
        return found, is_beside

    def planned(self, transfers: Any) -> None:
        """Take note of the loads that a step begins.

        Args:
            transfers: vLLM's `OffloadingConnectorMetadata`.
        """
        if self._is_unsure and self._knows_costs:
            self._guard("tier_gate", self._review_all)
        for number, job in transfers.load_jobs.items():
            depth = self._statuses[job.req_id].num_locally_computed_tokens
            num_blocks = len(job.dst_spec.block_ids) // self._grain.num_groups
            self._loads[number] = self._computing_s(num_blocks, self._blocks(depth))

    def ended(self, report: Any) -> None:
        """Take note of the copies that have ended.

        Args:
            report: vLLM's `OffloadingWorkerMetadata`, or None.
        """
        if report is not None:
            self._guard("tier_gate", lambda: self._account(report))

    def left(self, request: Any) -> None:
        """A request is over; what it may still store stays as it is."""
        entry = self._entries.pop(request.request_id, None)
        if entry is None:
            return
        if entry.skipped:
            self._metrics.store_skipped(entry.skipped)
        self._tier.paused(entry.turn.session)
        if self._pilot == request.request_id:
            self._guard("tier_gate", self._review_all)

    def let_go(self) -> None:
        """Let vLLM decide about all requests. Mutates."""
        for request_id, entry in self._entries.items():
            if entry.may_limit_stores:
                self._limit_stores(request_id, None)
        self._entries.clear()
        self._tier.is_in_use = True

    # Decide.

    def _enter(self, request: Any) -> None:
        turn = self._desk.turn_of(request.request_id)
        if turn is None:
            return
        given = request.kv_transfer_params or {}
        entry = self._entries[request.request_id] = _Entry(
            turn,
            self._desk.is_final(request.request_id),
            may_limit_loads=given.get("max_load_tokens") is None,
            may_limit_stores=given.get("max_offload_tokens") is None,
        )
        self._first_turns.turn_arrived(turn.session, _beginning(request))
        was_paying = self._ledger.is_paying
        self._ledger.stalled(self._meter.stalled_s - self._stalled_s)
        self._stalled_s = self._meter.stalled_s
        account = self._ledger.turn_arrived(self._runtime.now_s)
        if self._ledger.is_paying != was_paying:
            self._switch()
        if account is not None:
            self._report(account)
        self._review(request, entry)

    def _review(self, request: Any, entry: _Entry) -> None:
        """Say what a request may store, as far as that is not settled."""
        if not entry.may_limit_stores:
            return
        reason = self._reason_to_skip(request, entry)
        if reason == "not_paying" != entry.skipped:
            self._ledger.declined()
        entry.skipped = reason
        most: int | None = _NOTHING if entry.skipped else None
        if reason == "one_shot":
            most = self._shared_tokens(entry.turn.session)
        self._is_unsure |= reason == "unknown"
        if reason == "unknown" and self._pilot in (None, request.request_id):
            self._pilot = request.request_id
            held = self._tier.num_stored(request.block_hashes, 0) * self._grain.hash_block_tokens
            most = held + _PILOT_BLOCKS * self._block_tokens
            if self._transfers.config.supports_partial_tail:
                most = None  # vLLM has no part of such a prompt stored
        self._limit_stores(request.request_id, most)

    def _reason_to_skip(self, request: Any, entry: _Entry) -> str:
        if entry.is_final:
            return "final"
        if not self._ledger.is_paying:
            return "not_paying"
        if not self._knows_costs:
            return "unknown"
        num_blocks = self._blocks(request.num_tokens)
        copies = self._tier.copies
        saved_s = self._computing_s(num_blocks, 0) - copies.load_s(num_blocks)
        if saved_s <= 0.0:
            return "not_paying" if num_blocks else ""
        session = entry.turn.session
        if session.num_turns > 1:
            is_outranked = self._tier.is_outranked(session, request.block_hashes)
            return "outranked" if is_outranked else ""
        beginning = _beginning(request)
        share = self._first_turns.share(beginning)
        if not self._num_shared(session):
            share = max(share, self._first_turns.recurrence(beginning))
        wasted_s = (1.0 - share) * copies.store_s(num_blocks)
        return "" if share * saved_s >= wasted_s else "one_shot"

    @staticmethod
    def _num_shared(session: Session) -> int:
        """Prefix hashes of a session's prompt that it shares with other sessions (count). Pure."""
        for node in session.prompt_tail.path():
            if any(user is not session for user in islice(users_of(node), _USERS_ASKED)):
                return node.end
        return 0

    def _shared_tokens(self, session: Session) -> int:
        return self._num_shared(session) * self._grain.hash_block_tokens

    @property
    def _knows_costs(self) -> bool:
        return self._tier.copies.store_s(1) < math.inf and self._runtime.restore_s(1) > 0.0

    def _declines(
        self, entry: _Entry, request: Any, num_computed: int, found: int | None = None
    ) -> bool:
        """Whether loading is expected to take longer than computing; counted once a request.

        Before it is known how much there is to load, all that is missing stands for it: the more
        there is, the more a copy saves.
        """
        num_blocks = self._blocks(request.num_tokens - num_computed if found is None else found)
        reason = ""
        if not self._ledger.is_paying:
            reason = "not_paying"
        else:
            computing_s = self._computing_s(num_blocks, self._blocks(num_computed))
            loading_s = self._tier.load_s(num_blocks + self._tier.num_loading)
            if 0.0 < computing_s <= loading_s < math.inf:
                reason = "slower"
        if not reason:
            return False
        if not entry.is_declined and (found or self._is_held(request, num_computed)):
            entry.is_declined = True
            self._metrics.load_declined(reason)
            self._ledger.declined()
        return True

    def _ready(self, entry: _Entry, request: Any, num_computed: int) -> int | None:
        """What a request may load that waits for blocks on their way (tokens); None to wait on.

        It waits for as long as computing takes, and then makes do with what is there.
        """
        now_s = self._runtime.now_s
        if entry.waits_since_s is None:
            entry.waits_since_s = now_s
        num_missing = self._blocks(request.num_tokens - num_computed)
        computing_s = self._computing_s(num_missing, self._blocks(num_computed))
        if not computing_s or now_s - entry.waits_since_s <= computing_s:
            return None
        first = num_computed // self._grain.hash_block_tokens
        return self._tier.num_stored(request.block_hashes, first) * self._grain.hash_block_tokens

    def _computing_s(self, num_blocks: int, depth_blocks: int) -> float:
        """Time that turns wait while blocks are computed (s)."""
        computing_s = self._runtime.restore_s(num_blocks, depth_blocks)
        return computing_s * (_WEIGHT_AMONG_OTHERS if len(self._entries) > 1 else 1.0)

    def _is_held(self, request: Any, num_computed: int) -> bool:
        first = num_computed // self._grain.hash_block_tokens
        return self._tier.holds_next(request.block_hashes, first)

    # Learn.

    def _account(self, report: Any) -> None:
        num_loads = 0
        saved_s = 0.0
        for number in report.completed_jobs:
            if number in self._loads:
                num_loads += 1
                saved_s += self._loads.pop(number)
        stats = report.transfer_stats
        num_workers = self._transfers.config.num_workers
        if num_loads:
            self._ledger.loaded(num_loads, saved_s, stats.load.time / num_workers)
        if self._tier.holds_steps:
            self._ledger.stalled(stats.store.time / num_workers)

    def _switch(self) -> None:
        is_paying = self._ledger.is_paying
        self._metrics.set_offload_paying(is_paying)
        self._tier.is_in_use = is_paying
        if is_paying:  # whatever was learned may be what has changed
            self._num_rests += 1
            self._tier.forget_speed()
        self._review_all()

    def _review_all(self) -> None:
        self._is_unsure = False
        self._pilot = None
        for request_id, entry in self._entries.items():
            status = self._statuses.get(request_id)
            if status is not None:
                self._review(status.req, entry)

    def _report(self, account: TransferAccount) -> None:
        figures = (
            f"in {account.num_turns} turns and {account.elapsed_s:.1f} s, "
            f"{account.num_loads} loads took {account.loading_s:.2f} s and saved "
            f"{account.saved_s:.2f} s of waiting for computing, {account.num_declined} turns "
            f"expected nothing of them, and {account.stalled_s:.2f} s were waited for stores"
        )
        if self._ledger.is_paying:
            _logger.info("KV offloading pays again: %s", figures)
            return
        _logger.warning(
            "KV offloading does not pay and rests for %d turns: %s",
            self._ledger.rest_turns,
            figures,
        )

    # Say.

    def _blocks(self, num_tokens: int) -> int:
        return num_tokens // self._block_tokens

    def _limit_stores(self, request_id: str, most_tokens: int | None) -> None:
        status = self._statuses.get(request_id)
        if status is not None:
            status.max_offload_tokens = most_tokens

    def _ask(self, request: Any, ask: Callable[[], Matched], most_tokens: int) -> Matched:
        status = self._statuses[request.request_id]
        status.max_load_tokens = most_tokens
        try:
            return ask()
        finally:
            status.max_load_tokens = None


def _beginning(request: Any) -> bytes:
    """The first prefix hash of a prompt; b"" where it is shorter than that."""
    return bytes(request.block_hashes[0]) if request.block_hashes else b""
