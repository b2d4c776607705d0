"""What the API process asks an engine core, and what that answers, as MessagePack.

Process: API server and engine core. Imports nothing of vLLM.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast.core.commands import Command, Outcome
from holdfast.core.miss_record import EvictionRecord

__all__ = [
    *("CommandReport", "CostReport", "EngineReport", "MissReport", "SessionReport", "StateReport"),
    *("StartReport", "WaitReport"),
    *("ControlRequest", "StateQuery", "WorkflowReport"),
    *("MAX_SESSIONS_A_PAGE", "decode_request", "encode"),
]

MAX_SESSIONS_A_PAGE: Final = 200
"""Most sessions that one query returns."""


class StateQuery(msgspec.Struct, frozen=True, tag_field="command", tag="query_state"):
    """Asks for an engine's sessions, in order of their numbers.

    Attributes:
        tenant: Only this one's; None for all.
        after: Only sessions with greater numbers.
        limit: Sessions wanted at most (count).
        session_id: Only sessions with this id; None for all.
    """

    tenant: str | None = None
    after: int = -1
    limit: int = 100
    session_id: str | None = None


ControlRequest = Command | StateQuery


class CommandReport(msgspec.Struct, frozen=True):
    """An engine's answer to a command; see `CommandOutcome`."""

    engine: int
    outcome: Outcome
    reason: str


class WaitReport(msgspec.Struct, frozen=True):
    """What a paused session waits for.

    Attributes:
        kind: Kind of the tool, "human" or "unknown".
        tool: Name of the tool; "" if there is none.
        idle_s: Time since the pause began, or since its tools had finished (s).
        expected_s: Time until the next turn, as a hint or the median of such pauses has it (s); 0
            if that is over.
        result_known: Whether its tools have finished, as its client said.
    """

    kind: str
    tool: str
    idle_s: float
    expected_s: float
    result_known: bool


class StartReport(msgspec.Struct, frozen=True):
    """Why a waiting turn has not started; see `StartDelay`.

    Attributes:
        reason: See `DelayReason`.
        waited_s: Time since its request arrived (s).
        due_s: Time until no other turn may pass it (s); 0 if that is over, None for never.
        needed_blocks: KV blocks that it takes from others (count); 0 if not known.
        free_blocks: KV blocks that admission could give away last (count); 0 if not known.
        first_session: Number of the session whose turn goes first; None if there is none.
    """

    reason: str
    waited_s: float
    due_s: float | None = None
    needed_blocks: int = 0
    free_blocks: int = 0
    first_session: int | None = None


class MissReport(msgspec.Struct, frozen=True):
    """One of a session's last turns, and why tokens were missing; see `PastTurn`.

    Attributes:
        turn: Number of the turn.
        prompt_tokens: Tokens of the prompt (count).
        cached_tokens: Those that the engine had (count).
        missed: Missing tokens by reason (counts).
        lost_s: Engine time to compute the avoidable ones (s).
        lost_s_by: The same by reason.
        evicted: The eviction of the first missing token's block; None if it was not evicted.
        output_tokens: Length of the answer (tokens).
        gap_s: Time from the session's last answer to the turn's arrival (s); 0 for a first turn.
        waited_s: Time from its arrival to its start (s).
        delayed_by: What it waited for last, see `DelayReason`; "" if it started at once.
        change: What changed in the prompt since the session's last one; see `CHANGES`.
    """

    turn: int
    prompt_tokens: int
    cached_tokens: int
    missed: dict[str, int]
    lost_s: float
    lost_s_by: dict[str, float] = msgspec.field(default_factory=dict)
    evicted: EvictionRecord | None = None
    output_tokens: int = 0
    gap_s: float = 0.0
    waited_s: float = 0.0
    delayed_by: str = ""
    change: str | None = None


class SessionReport(msgspec.Struct, frozen=True):
    """One session, without any text of its prompts.

    Attributes:
        number: Unique on the engine.
        session_id: As clients sent it, a digest if it is long; None without one.
        tenant: Digest of the `cache_salt`; "" without one.
        parent_session_id: The session that started it; None if none is known.
        agent_id: See `Identity`.
        workflow_id: See `Identity`.
        client: Name of the client software; "" if not known.
        state: See `SessionState`.
        num_turns: Turns begun (count).
        context_blocks: Blocks of its last prompt and answer (count).
        resident_blocks: Those of them in the KV cache (count).
        has_reservation: Whether admission keeps its blocks from other turns.
        waits_for: None unless it has paused.
        last_miss: Of the last turn that ended; None before.
        last_misses: Of the last few turns, the last one first.
        stored_blocks: Leading blocks of its context that tiers store for loading (count).
        starts_after: Why its turn has not started; None unless it waits.
    """

    number: int
    session_id: str | None
    tenant: str
    parent_session_id: str | None
    agent_id: str | None
    workflow_id: str | None
    client: str
    state: str
    num_turns: int
    context_blocks: int
    resident_blocks: int
    has_reservation: bool
    waits_for: WaitReport | None
    last_miss: MissReport | None = None
    last_misses: list[MissReport] = msgspec.field(default_factory=list)
    stored_blocks: int = 0
    starts_after: StartReport | None = None


class WorkflowReport(msgspec.Struct, frozen=True):
    """One declared workflow.

    Attributes:
        workflow_id: As declared, a digest if it is long.
        tenant: Digest of the `cache_salt`; "" without one.
        num_agents: Agents of its graph (count).
        is_trusted: Whether its steps count; false where most calls disagree with the graph.
        running: Agents whose calls have not ended; the first few.
    """

    workflow_id: str
    tenant: str
    num_agents: int
    is_trusted: bool
    running: list[str]


class CostReport(msgspec.Struct, frozen=True):
    """What an engine's work takes, as it has learned; see `StepCosts`."""

    step_s: float
    prefill_s_per_token: float
    prefill_s_per_pair: float
    decode_s: float


class EngineReport(msgspec.Struct, frozen=True):
    """An engine as a whole.

    Attributes:
        engine: Number among the server's data-parallel engines.
        version: Holdfast's.
        policy: Name of the policy in use.
        is_active: Whether Holdfast decides; false without prefix caching and after a fallback.
        trusts_predictions: Whether the prediction guard lets predictions be used.
        capacity_blocks: KV blocks of the cache (count).
        free_blocks: Those that no running request uses (count).
        reserved_blocks: Free ones that are reserved (count).
        num_running: Requests in the batch (count).
        num_queued: Requests that wait (count).
        sessions: Sessions by state (counts), of all tenants.
        cache_tokens: Tokens that the KV cache holds (count).
        block_tokens: Tokens of a KV block.
        kv_bytes_per_token: KV bytes of one token, all GPUs together; 0 if not known.
        host_tokens: Tokens that the host tier holds (count); 0 without one.
        host_load_s_per_token: Time to load one from there (s); None before it is known.
        max_running: Requests that may run at once (count).
        max_step_tokens: Tokens of a step, at most (count).
        costs: None before the first prompt.
    """

    engine: int
    version: str
    policy: str
    is_active: bool
    trusts_predictions: bool
    capacity_blocks: int
    free_blocks: int
    reserved_blocks: int
    num_running: int
    num_queued: int
    sessions: dict[str, int]
    cache_tokens: int = 0
    block_tokens: int = 0
    kv_bytes_per_token: float = 0.0
    host_tokens: int = 0
    host_load_s_per_token: float | None = None
    max_running: int = 0
    max_step_tokens: int = 0
    costs: CostReport | None = None


class StateReport(msgspec.Struct, frozen=True):
    """An engine's answer to a `StateQuery`.

    Attributes:
        engine: The engine as a whole.
        workflows: Declared workflows, of the tenant if one was asked for.
        sessions: Sessions, in order of their numbers.
        next_after: `after` of the next page; None after the last.
    """

    engine: EngineReport
    workflows: list[WorkflowReport]
    sessions: list[SessionReport]
    next_after: int | None


_requests = msgspec.msgpack.Decoder(ControlRequest)


def decode_request(data: bytes) -> ControlRequest:
    """The request that `encode` has encoded.

    Raises:
        ValueError: It is not one.
    """
    try:
        return _requests.decode(data)
    except (msgspec.MsgspecError, TypeError, RecursionError) as error:
        raise ValueError(f"not a request: {error}") from error


def encode(message: Any) -> bytes:
    """A message as bytes. Pure."""
    return msgspec.msgpack.encode(message)
