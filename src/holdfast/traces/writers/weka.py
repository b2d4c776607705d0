"""Writer of WEKA's Claude Code traces: a main agent with sub-agents an object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO, Any

import msgspec

from holdfast.errors import ConfigError
from holdfast.traces.order import families
from holdfast.traces.record import Session, Turn
from holdfast.traces.timeline import Span, family_timeline
from holdfast.traces.writers.losses import Kept, Losses

__all__ = ["write_weka"]

_KEPT = Kept(
    session={"session_id", "block_size_tokens", "turns", "parent_id", "parent_turn", "agent"},
    turn={
        *("gap_s", "prompt_tokens", "output_tokens", "block_ids", "trigger", "ended_by"),
        *("model", "latency_s"),
    },
)
_STOPS = {"tool": "tool_use", "human": "end_turn", "unknown": ""}


def write_weka(
    sessions: Iterable[Session], file: IO[bytes], *, block_size_tokens: int | None = None
) -> Losses:
    """Write one main agent with its sub-agents a line; holds one at a time.

    Args:
        sessions: Of one reading, sub-agents after their main agents.
        file: Takes the lines; mutated.
        block_size_tokens: Must be None: each object keeps its block size.

    Returns:
        Losses. "Session without parent_turn" counts sub-agents that are written after their
        parent's last turn, because the calling turn is unknown.

    Raises:
        ConfigError: `block_size_tokens` is not None, or a sub-agent's block size differs from its
            main agent's.
    """
    if block_size_tokens is not None:
        raise ConfigError("WEKA files keep the block size of each session; none can be set")
    encoder = msgspec.json.Encoder()
    losses = Losses()
    for family in families(sessions):
        # A parent outside of the family is lost.
        losses["Session.parent_id"] += family[0].parent_id is not None
        main = family[0]
        for session in family:
            _KEPT.count(session, losses)
            if session.block_size_tokens != main.block_size_tokens:
                raise ConfigError(
                    f"{session.session_id!r} has blocks of {session.block_size_tokens} tokens and "
                    f"its main agent of {main.block_size_tokens}; expected the same"
                )
        document = {
            "id": main.session_id,
            "models": _models(family),
            "block_size": main.block_size_tokens,
            "hash_id_scope": "global",
            "requests": _requests(main, family, family_timeline(family), losses),
        }
        file.write(encoder.encode(document) + b"\n")
    return +losses


def _requests(
    agent: Session,
    family: Sequence[Session],
    timeline: dict[str, tuple[Span, ...]],
    losses: Losses,
) -> list[dict[str, Any]]:
    last = len(agent.turns) - 1
    begin_s = timeline[family[0].session_id][0].start_s
    called: dict[int, list[dict[str, Any]]] = {}
    for child in family:
        if child.parent_id == agent.session_id:
            losses["Session without parent_turn"] += child.parent_turn is None
            turn_index = last if child.parent_turn is None else min(child.parent_turn, last)
            spans = timeline[child.session_id]
            entry = {
                "t": max(0.0, spans[0].start_s - begin_s),
                "type": "subagent",
                "agent_id": child.session_id.removeprefix(f"{agent.session_id}/"),
                "subagent_type": child.agent,
                "duration_ms": max(0.0, spans[-1].end_s - spans[0].start_s) * 1000,
                "status": "completed",
                "models": _models([child]),
                "requests": _requests(child, family, timeline, losses),
            }
            called.setdefault(turn_index, []).append(entry)
    requests: list[dict[str, Any]] = []
    for index, (turn, span) in enumerate(zip(agent.turns, timeline[agent.session_id], strict=True)):
        requests += [_request(turn, max(0.0, span.start_s - begin_s)), *called.get(index, [])]
    return requests


def _request(turn: Turn, start_s: float) -> dict[str, Any]:
    request: dict[str, Any] = {
        "t": start_s,
        "type": "s",
        "model": turn.model,
        "in": turn.prompt_tokens,
        "out": turn.output_tokens,
        "hash_ids": turn.block_ids,
        "input_types": ["tool_result" if turn.trigger == "tool_result" else "text"],
        "stop": _STOPS[turn.ended_by],
        "trigger": turn.trigger,
        "think_time": turn.gap_s,
    }
    if turn.latency_s is not None:
        request["api_time"] = turn.latency_s
    return request


def _models(sessions: Iterable[Session]) -> list[str]:
    return sorted({turn.model for session in sessions for turn in session.turns} - {""})
