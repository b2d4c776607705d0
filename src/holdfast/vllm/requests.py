"""The engine's requests as turns of the runtime, with the blocks that each needs.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import Any

from holdfast.cache.eviction_queue import EvictionQueue
from holdfast.cache.resident_prefix import resident_length
from holdfast.core.answer_marks import MAX_TAIL_TOKENS
from holdfast.core.bounded_name import bounded_name
from holdfast.core.client_table import CLIENT_NAMES
from holdfast.core.hints import HintNote, Hints, parse_hints
from holdfast.core.identity import Identity
from holdfast.core.session import Session
from holdfast.core.session_id import parent_of
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission
from holdfast.runtime.attribution import TurnLengths
from holdfast.runtime.runtime import AgentRuntime
from holdfast.tool_calls.turn_end import TurnEnd
from holdfast.vllm.cache_layout import CacheLayout
from holdfast.vllm.compat import kv_hints_of, session_id_of
from holdfast.vllm.decode_growth import DecodeGrowth

__all__ = ["RequestTracker"]

_MAX_MEASURED = 64
_OUTPUT_MEMORY = 0.05
_TRUE = (True, "true", "1")


class RequestTracker:
    """Translates between requests and turns; the scheduler guards against its errors.

    Args:
        runtime: Receives the turns.
        queue: The free blocks.
        pool: vLLM's block pool.
        layout: Of the prefix cache.
    """

    def __init__(
        self, runtime: AgentRuntime, queue: EvictionQueue, pool: Any, layout: CacheLayout
    ) -> None:
        self._runtime = runtime
        self._queue = queue
        self._pool = pool
        self._layout = layout
        self._block_tokens = layout.hash_block_tokens * layout.hashes_per_block
        self._turns: dict[str, Turn] = {}
        self._hints: dict[str, Hints] = {}
        self._prefills: dict[str, Any] = {}  # vLLM's statistics of turns that have not started
        self._knows_tokens = True
        self._reads_hints = True
        self._heeds_priority = False
        self._growth = DecodeGrowth(self._remaining)
        self._output_blocks = 1.0
        self._output_spread_blocks = 1.0

    def configure(self, *, reads_hints: bool, heeds_priority: bool) -> None:
        """Set which hints of requests count."""
        self._reads_hints = reads_hints
        self._heeds_priority = heeds_priority

    @property
    def turns(self) -> Iterable[Turn]:
        """All turns in the engine."""
        return self._turns.values()

    def turn_of(self, request_id: str) -> Turn | None:
        """The turn of a request in the engine."""
        return self._turns.get(request_id)

    def is_final(self, request_id: str) -> bool:
        """Whether a hint says that the session of a request in the engine ends with it."""
        return self._hints[request_id].is_final

    def hints_of(self, request_id: str) -> Hints:
        """The hints of a request in the engine."""
        return self._hints[request_id]

    def arrive(
        self, request: Any, *, knows_tokens: bool = True
    ) -> tuple[Turn, tuple[HintNote, ...]]:
        """Make a request a turn; returns it and the outcomes of its hints. Mutates.

        Args:
            request: The request.
            knows_tokens: Whether its prompt's token ids are real.
        """
        hints = Hints()
        notes: tuple[HintNote, ...] = ()
        if self._reads_hints:
            sources = _xargs_of(request), request.kv_transfer_params, kv_hints_of(request)
            hints, notes = parse_hints(*sources, epoch_s=request.arrival_time)
        turn = self._runtime.turn_arrived(
            request.request_id,
            list(request.block_hashes),
            _identity_of(request, hints, _record_of(request) if self._reads_hints else {}),
            request.priority if self._heeds_priority else None,
            request.prompt_token_ids if knows_tokens else None,
            self._fixed_blocks(hints),
        )
        self._turns[request.request_id] = turn
        self._prefills[request.request_id] = request.prefill_stats
        self._knows_tokens = knows_tokens
        self._hints[request.request_id] = hints
        if hints.elsewhere_ratio and turn.known is not None:
            turn.known.note_elsewhere(round(hints.elsewhere_ratio * request.num_prompt_tokens))
        if turn.known is not None:
            turn.known.change = hints.prompt_change
        self._measure(turn, request)
        self._runtime.hints.arrived(turn, hints, self._turns.values())
        return turn, notes

    def _fixed_blocks(self, hints: Hints) -> int | None:
        """Prefix hashes of the fixed prefix that a client marks (count), if it does."""
        num_tokens = hints.fixed_prefix_tokens
        return None if num_tokens is None else num_tokens // self._layout.hash_block_tokens

    def start(self, turn: Turn) -> None:
        """Take in that the engine has started a turn. Mutates."""
        prefill = self._prefills.pop(turn.request_id, None)
        if prefill is not None:
            self._runtime.misses.started(turn, prefill.num_cached_tokens)
            turn.waited_s = max(self._runtime.now_s - turn.arrived_s, 0.0)
        self._runtime.turn_started(turn)
        self._growth.expect(turn.request_id, max(turn.footprint_blocks - turn.resident_blocks, 0))
        if not self._runtime.retains(turn.session):
            self._growth.releases(turn.request_id, turn.footprint_blocks)

    def preempted(self, request_id: str) -> None:
        """Take in that the engine has preempted a request. Mutates."""
        self._growth.forget(request_id)
        turn = self._turns.get(request_id)
        if turn is not None:
            self._runtime.turn_preempted(turn)

    def leave(
        self, request: Any, end: TurnEnd | None, *, knows_tokens: bool = True
    ) -> tuple[Turn, Hints] | None:
        """End the turn of a request whose blocks are about to be freed.

        A hint about the turn end takes precedence. Mutates.

        Args:
            request: The request.
            end: What ended the turn, if known.
            knows_tokens: Whether its token ids are real.
        """
        self._growth.forget(request.request_id)
        turn = self._turns.pop(request.request_id, None)
        if turn is None:
            return None
        hints = self._hints.pop(request.request_id)
        self._learn_output(request.num_output_tokens / self._block_tokens)
        effects = self._runtime.hints
        gap_s = effects.believed_gap_s(turn.session, hints.expected_gap_s)
        hashes = list(request.block_hashes)
        self._attribute(turn, request, hashes)
        self._runtime.turn_ended(turn, hashes, hints.turn_end or end, gap_s)
        if knows_tokens and request.status.name == "FINISHED_STOPPED":
            tail = request.all_token_ids[-MAX_TAIL_TOKENS:]
            self._runtime.turn_answered(turn.session, tail, request.num_output_tokens)
        effects.ended(turn.session, hints)
        if hints.is_final:
            self._runtime.session_closed(turn.session)
        return turn, hints

    def _attribute(self, turn: Turn, request: Any, hashes: list[Any]) -> None:
        """Have a turn's missing tokens attributed."""
        self._prefills.pop(request.request_id, None)
        num_blocks = min((request.num_tokens - 1) // self._layout.hash_block_tokens, len(hashes))
        lengths = TurnLengths(request.num_prompt_tokens, request.num_tokens, num_blocks)
        first = num_blocks * self._layout.hash_block_tokens
        rest = request.all_token_ids[first:] if self._knows_tokens else None
        turn.attribution = self._runtime.misses.ended(turn, lengths, rest)

    def admit(
        self, waiting: Iterable[Any], running: Sequence[Any], slots: int, spare: int
    ) -> Admission:
        """Ask the runtime which requests may start. Mutates.

        Args:
            waiting: Requests, in order of arrival.
            running: Requests that run.
            slots: Requests that may still start (count).
            spare: Blocks to leave free (count).
        """
        if slots <= 0:
            self._runtime.last_admission.note_full(self._runtime.now_s)
            return Admission()
        growth = self._growth.update(running)
        queue = self._queue
        blocks = queue.num_free_blocks - spare - growth - queue.num_reserved_blocks
        turns = self._pick(waiting, blocks, slots)
        return self._runtime.admit(turns, blocks, slots, len(running), growth)

    def sessions_of(self, requests: Iterable[Any]) -> Iterator[Session]:
        """Sessions of those requests whose turns are known."""
        turns = (self._turns.get(request.request_id) for request in requests)
        return (turn.session for turn in turns if turn is not None)

    def unclaimed_blocks(self, running: Sequence[Any], spare: int) -> int:
        """Free blocks that no running turn grows into, reserved ones included (count).

        Args:
            running: Requests that run.
            spare: Blocks to leave free (count).
        """
        return self._queue.num_free_blocks - spare - self._growth.update(running)

    def spare_blocks(self, waiting: Iterable[Any], running: Sequence[Any], spare: int) -> int:
        """Unclaimed blocks that no waiting request takes when it starts (count).

        Args:
            waiting: Requests that wait, with their demand as measured last.
            running: Requests that run.
            spare: Blocks to leave free (count).
        """
        turns = (self._turns.get(request.request_id) for request in waiting)
        demand = sum(turn.demand_blocks for turn in turns if turn is not None)
        return self.unclaimed_blocks(running, spare) - demand

    def forget(self) -> list[str]:
        """Drop all turns after the engine dropped all content; returns their request ids."""
        request_ids = list(self._turns)
        self._turns.clear()
        self._hints.clear()
        self._prefills.clear()
        self._growth.clear()
        return request_ids

    def _pick(self, waiting: Iterable[Any], blocks: int, slots: int) -> list[Turn]:
        """The waiting turns to consider now, measured anew, in order of arrival.

        All of them where few wait, and, as measured last, where all of many fit.
        """
        turn_of = self._turns.get
        known = [(turn, r) for r in waiting if (turn := turn_of(r.request_id)) is not None]
        if len(known) > _MAX_MEASURED:
            if len(known) <= slots and sum(turn.demand_blocks for turn, _ in known) <= blocks:
                return [turn for turn, _ in sorted(known, key=_sequence)]
            now_s, holds = self._runtime.now_s, self._runtime.policies.admission.holds
            known = nsmallest(
                _MAX_MEASURED, known, key=lambda p: (holds(p[0].session), p[0].rank(now_s))
            )
        known.sort(key=_sequence)
        for turn, request in known:
            self._measure(turn, request)
        return [turn for turn, _ in known]

    def _measure(self, turn: Turn, request: Any) -> None:
        num_groups = self._layout.num_groups
        total_blocks = -(-request.num_tokens // self._block_tokens) * num_groups
        guess = turn.resident_blocks // num_groups
        turn.resident_blocks = self._num_resident(request.block_hashes, guess) * num_groups
        turn.missing_blocks = total_blocks - turn.resident_blocks
        stride = self._layout.hashes_per_block
        num_hashes = self._runtime.tier.num_stored(
            request.block_hashes,
            turn.resident_blocks // num_groups * stride,
            turn.loadable_blocks // num_groups * stride,
        )
        turn.loadable_blocks = num_hashes // stride * num_groups
        turn.is_loading = self._runtime.tier.is_loading(request.block_hashes)
        output_blocks = self._expected_output(request) * num_groups
        unreserved = 0
        node = turn.session.tail
        while node.parent is not None:
            if not node.num_reservations:
                unreserved += node.free_blocks.num_blocks
            node = node.parent
        turn.demand_blocks = turn.missing_blocks + unreserved + output_blocks
        turn.footprint_blocks = total_blocks + output_blocks

    def _num_resident(self, hashes: Sequence[Any], guess: int) -> int:
        """Leading blocks that are resident (count); a right `guess` costs two look-ups.

        Paths are evicted from their end.
        """
        cached = self._pool.get_cached_block
        stride, group = self._layout.hashes_per_block, [self._layout.group]
        return resident_length(
            len(hashes) // stride,
            lambda block: cached(hashes[(block + 1) * stride - 1], group) is not None,
            guess,
        )

    def _remaining(self, request: Any) -> int:
        """Blocks that a running request will still take (count)."""
        turn = self._turns.get(request.request_id)
        if turn is None:
            return 0
        filled: int = request.num_computed_tokens // self._block_tokens * self._layout.num_groups
        return max(turn.footprint_blocks - filled, 0)

    def _expected_output(self, request: Any) -> int:
        expected = self._output_blocks + 2.0 * self._output_spread_blocks
        most: int = -(-request.max_tokens // self._block_tokens)
        return min(int(expected) + 1, most + 1)

    def _learn_output(self, output_blocks: float) -> None:
        error = output_blocks - self._output_blocks
        self._output_blocks += _OUTPUT_MEMORY * error
        self._output_spread_blocks += _OUTPUT_MEMORY * (abs(error) - self._output_spread_blocks)


def _sequence(known: tuple[Turn, Any]) -> int:
    return known[0].sequence


def _identity_of(request: Any, hints: Hints, record: Mapping[str, Any]) -> Identity:
    """Who sends a request.

    The identity record that the middleware adds takes precedence, then the engine's own session id,
    then hints of other schemas. A tenant is the engine's salt alone, so ids reach no other tenant.
    """
    is_side_call = record.get("side_call") in _TRUE
    session_id = hints.session_id
    if not isinstance(record.get("session_id"), str):
        session_id = session_id_of(request) or session_id
    if is_side_call:
        session_id = None  # the header may name the agent's
    parent_id = hints.parent_session_id
    if session_id is not None and parent_id is None:
        parent_id = parent_of(session_id)
    client = record.get("client")
    return Identity(
        session_id=_bounded(session_id),
        parent_session_id=_bounded(parent_id),
        agent_id=hints.agent_id,
        workflow_id=_bounded(record.get("workflow_id")) or hints.workflow_id,
        client=client if isinstance(client, str) and client in CLIENT_NAMES else "",
        tenant=bounded_name(request.cache_salt or ""),
        adapter="" if request.lora_request is None else request.lora_request.lora_name,
        is_side_call=is_side_call,
    )


def _bounded(name: object) -> str | None:
    is_name = isinstance(name, str) and name.isprintable() and name
    return bounded_name(str(name)) if is_name else None


def _record_of(request: Any) -> Mapping[str, Any]:
    """Values of Holdfast's own keys, without their prefix."""
    xargs = _xargs_of(request) or {}
    record = {
        key.removeprefix("holdfast_"): value
        for key, value in xargs.items()
        if isinstance(key, str) and key.startswith("holdfast_")
    }
    params = request.kv_transfer_params
    nested = params.get("holdfast") if isinstance(params, Mapping) else None
    return {**nested, **record} if isinstance(nested, Mapping) else record


def _xargs_of(request: Any) -> Any:
    params = request.sampling_params
    return None if params is None else params.extra_args
