"""Writer of Dynamo's agentic Mooncake: requests with the requests they wait for.

A sub-agent's first request waits for the answer that called it. The parent's request that joins
the sub-agent waits for its last request, if the session records the join.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import msgspec

from holdfast.traces.order import families
from holdfast.traces.record import Session, ToolSpan, Turn
from holdfast.traces.timeline import Span, family_timeline
from holdfast.traces.writers.block_names import BlockNames
from holdfast.traces.writers.losses import Kept, Losses
from holdfast.traces.writers.mooncake import input_length, milliseconds

__all__ = ["write_agentic_mooncake"]

_KEPT = Kept(
    session={
        *("session_id", "block_size_tokens", "turns", "start_s", "parent_id", "parent_turn"),
        "join_turn",
    },
    turn={"gap_s", "prompt_tokens", "output_tokens", "block_ids", "tools"},
    tool={"name", "start_s", "end_s", "is_error"},
)


def write_agentic_mooncake(
    sessions: Iterable[Session], file: IO[bytes], *, block_size_tokens: int | None = None
) -> Losses:
    """Write sessions as a graph of requests; holds one family of agents at a time.

    Args:
        sessions: Of one reading, sub-agents after their main agents.
        file: Takes the lines; mutated.
        block_size_tokens: Tokens in a block of the whole file; None keeps each session's own.

    Returns:
        Losses. "Session.block_size_tokens" counts sessions whose blocks became larger, "ToolSpan
        without times" omitted tool calls, and "Session.join_turn" sub-agents without a join,
        because a latency of theirs is not recorded.

    Raises:
        ConfigError: Neither block size is a multiple of the other.
    """
    names = BlockNames(block_size_tokens)
    encoder = msgspec.json.Encoder()
    losses = Losses()
    for family in families(sessions):
        # A parent outside of the family is lost.
        losses["Session.parent_id"] += family[0].parent_id is not None
        graph = _Graph(family, losses)
        for session in family:
            _KEPT.count(session, losses)
            losses["Session.block_size_tokens"] += names.is_coarser(session)
            for index, turn in enumerate(session.turns):
                row = graph.row(session, index)
                row["hash_ids"] = names.of(session, turn)
                file.write(encoder.encode(row) + b"\n")
    return +losses


@dataclass(frozen=True, slots=True)
class _Join:
    """The last request of a sub-agent that a parent's turn waits for, and its end."""

    request_id: str
    end_s: float


class _Graph:
    """The dependencies between one family's requests."""

    def __init__(self, family: Sequence[Session], losses: Losses) -> None:
        self._timeline = family_timeline(family)
        self._losses = losses
        self._branches: dict[str, list[str]] = {}
        self._joins: dict[str, list[_Join]] = {}
        self._calls: dict[str, str] = {}
        sessions = {session.session_id: session for session in family}
        for session in family:
            parent = sessions.get(session.parent_id or "")
            if parent is not None:
                self._add_child(parent, session)

    def _add_child(self, parent: Session, child: Session) -> None:
        if child.parent_turn is not None and child.parent_turn < len(parent.turns):
            caller = _request_id(parent, child.parent_turn)
            self._calls[child.session_id] = caller
            self._branches.setdefault(caller, []).append(_request_id(child, 0))
        if child.join_turn is None or child.join_turn >= len(parent.turns):
            return
        if any(turn.latency_s is None for turn in child.turns):
            self._losses["Session.join_turn"] += 1
            return
        end_s = self._timeline[child.session_id][-1].end_s
        last = _Join(_request_id(child, len(child.turns) - 1), end_s)
        self._joins.setdefault(_request_id(parent, child.join_turn), []).append(last)

    def row(self, session: Session, index: int) -> dict[str, Any]:
        """Return one turn's row without its blocks; adds to the losses."""
        turn = session.turns[index]
        span = self._timeline[session.session_id][index]
        request_id = _request_id(session, index)
        row: dict[str, Any] = {
            "request_id": request_id,
            "session_id": session.session_id,
            "input_length": input_length(turn, self._losses),
            "output_length": turn.output_tokens,
            "timestamp": milliseconds(span.start_s),
        }
        if index == 0:
            row["prefix_reset"] = True
            if session.session_id in self._calls:
                row |= {"wait_for": [self._calls[session.session_id]], "delay": 0}
        else:
            row |= self._dependencies(session, index, request_id)
        if request_id in self._branches:
            row["branches"] = self._branches[request_id]
        return row

    def _dependencies(self, session: Session, index: int, request_id: str) -> dict[str, Any]:
        before, turn = session.turns[index - 1], session.turns[index]
        spans = self._timeline[session.session_id]
        joins = self._joins.get(request_id, [])
        ended_s = max([spans[index - 1].end_s, *(join.end_s for join in joins)])
        wait_s = min(turn.gap_s, max(0.0, spans[index].start_s - ended_s)) if joins else turn.gap_s
        tool_wait_s = min(wait_s, _tool_wait_s(before, turn.gap_s))
        timed = [tool for tool in before.tools if tool.start_s is not None]
        self._losses["ToolSpan without times"] += len(before.tools) - len(timed)
        waiting: dict[str, Any] = {
            "wait_for": [_request_id(session, index - 1), *(join.request_id for join in joins)],
            "delay": milliseconds(wait_s - tool_wait_s),
            "tool_wait_ms": milliseconds(tool_wait_s),
        }
        if timed:
            waiting["tool_events"] = [
                _tool_event(tool, f"{request_id}-{position}", spans[index - 1])
                for position, tool in enumerate(timed)
            ]
        return waiting


def _request_id(session: Session, index: int) -> str:
    return f"{session.session_id}:{index}"


def _tool_wait_s(before: Turn, gap_s: float) -> float:
    """Time until an answer's tools end; the whole gap if not recorded."""
    ends_s = [t.end_s for t in before.tools if t.end_s is not None and not t.is_background]
    if not ends_s:
        return gap_s if before.ended_by == "tool" else 0.0
    return min(gap_s, max(ends_s))


def _tool_event(tool: ToolSpan, call_id: str, answer: Span) -> dict[str, Any]:
    start_s = tool.start_s or 0.0
    end_s = start_s if tool.end_s is None else tool.end_s
    return {
        "tool_call_id": call_id,
        "tool_class": tool.name,
        "status": "error" if tool.is_error else "succeeded",
        "started_at_unix_ms": milliseconds(answer.end_s + start_s),
        "ended_at_unix_ms": milliseconds(answer.end_s + end_s),
        "duration_ms": milliseconds(end_s - start_s),
    }
