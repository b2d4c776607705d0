"""What the API process asks an engine core, and what that answers, as MessagePack.

Process: API server and engine core. Imports nothing of vLLM.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast.core.commands import Command, Outcome

__all__ = [
    *("CommandReport", "EngineReport", "MissReport", "SessionReport", "StateReport"),
    "WaitReport",
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


class MissReport(msgspec.Struct, frozen=True):
    """Why tokens of a session's last prompt were missing; see `Attribution`.

    Attributes:
        turn: Number of the turn.
        prompt_tokens: Tokens of the prompt (count).
        cached_tokens: Those that the engine had (count).
        missed: Missing tokens by reason (counts).
        lost_s: Engine time to compute the avoidable ones (s).
    """

    turn: int
    prompt_tokens: int
    cached_tokens: int
    missed: dict[str, int]
    lost_s: float


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
