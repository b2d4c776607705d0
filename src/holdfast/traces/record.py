"""The canonical record of an agent session, common to all trace formats.

Independent of files, engines and clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from holdfast.core.workflow_graph import WorkflowGraph

__all__ = [
    "EndedBy",
    "EventKind",
    "MessageText",
    "Session",
    "SessionEvent",
    "ToolSpan",
    "Trigger",
    "Turn",
    "TurnText",
    "common_prefix_length",
]

Trigger = Literal["user", "tool_result"]
EndedBy = Literal["tool", "human", "unknown"]
EventKind = Literal["fork", "compaction", "close"]


@dataclass(frozen=True, slots=True)
class ToolSpan:
    """One tool call and its duration; the calls of one turn are parallel.

    Attributes:
        name: The tool.
        command: As `Turn.tool_command`.
        start_s: Start, from the end of the answer with the call; None where unknown.
        end_s: Arrival of its result, from the same time; None where unknown.
        is_error: Whether it failed; None where unknown.
        is_background: Whether the agent went on without its result.
        session_id: The session it started, where it is in the same reading.
    """

    name: str
    command: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    is_error: bool | None = None
    is_background: bool = False
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """An event of a session between two of its turns.

    Attributes:
        kind: "fork": the session continues from an earlier prompt. "compaction": a summary replaces
            its history. "close": it ends for good.
        turn_index: The turn after the event; the number of turns where none follows.
        after_s: Time from the end of the previous answer; None where unknown.
    """

    kind: EventKind
    turn_index: int
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class MessageText:
    """A recorded message, or a part of one.

    Attributes:
        role: Its role, in the recording's words.
        content: Its recorded content, as JSON; "" for media.
    """

    role: str
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TurnText:
    """The texts of one turn.

    Attributes:
        num_repeated: Leading messages of the prompt that repeat the turn before: its prompt's, then
            its answer's. 0 where that turn has no text.
        prompt: The messages of the prompt after those.
        answer: The messages of the answer.
    """

    num_repeated: int
    prompt: tuple[MessageText, ...]
    answer: tuple[MessageText, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a session and the answer to it.

    Attributes:
        gap_s: Time from the end of the previous answer to this request; 0 for the first.
        prompt_tokens: Length of the whole prompt, the partial last block included.
        output_tokens: Length of the answer; 0 where the recording has none.
        block_ids: The prompt's full blocks. Equal ids mean equal prefixes up to and including
            that block, in all sessions of the same reading.
        trigger: The cause of the request.
        ended_by: The recorded end of the answer; never inferred from the next request.
        tool_name: The tool called at the end of the answer, where known; of parallel calls the one
            that decides when the session returns (`predict.features_of`).
        tool_command: Head of the shell command that tool runs, such as `git fetch`, as
            `tool_calls.shell_command` writes it, with a trailing ` &` in the background. None where
            there is none or it is unknown.
        agent: Role that writes the answer, where several take turns in one session; else "".
        model: The requested model, as recorded; "" where unknown.
        latency_s: From the request to the end of the answer; None where not recorded.
        cached_tokens: Prompt tokens that the recording engine took from its cache, where recorded.
        tools: The tool calls of the answer, in order, where recorded.
        text: The texts; only on request.
    """

    gap_s: float
    prompt_tokens: int
    output_tokens: int
    block_ids: tuple[int, ...]
    trigger: Trigger = "user"
    ended_by: EndedBy = "unknown"
    tool_name: str | None = None
    tool_command: str | None = None
    agent: str = ""
    model: str = ""
    latency_s: float | None = None
    cached_tokens: int | None = None
    tools: tuple[ToolSpan, ...] = ()
    text: TurnText | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """The turns of one agent, in order.

    Attributes:
        session_id: Unique within one reading.
        block_size_tokens: Tokens in each block of `Turn.block_ids`.
        turns: At least one.
        source: The file or generator it comes from.
        start_s: Arrival, from the start of the recording, in an open loop. None in a closed loop,
            where a session starts when another one ends.
        parent_id: Session whose tool call started this one, where it is in the same reading.
        parent_turn: Index of the parent's turn whose answer made that call, where known.
        agent: Name or type of the agent: "main", or that of the sub-agent; "" where unknown.
        join_turn: Index of the parent's turn that waited for this session's end; None where none
            did or it is unknown.
        events: Recorded events, in the order of the turns after them.
        graph: The order of the agents of its turns, where the application declares it.
    """

    session_id: str
    block_size_tokens: int
    turns: tuple[Turn, ...]
    source: str
    start_s: float | None = None
    parent_id: str | None = None
    parent_turn: int | None = None
    agent: str = ""
    join_turn: int | None = None
    events: tuple[SessionEvent, ...] = ()
    graph: WorkflowGraph | None = None


def common_prefix_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Count the leading elements that two sequences share; pure.

    Works on slices, so both should be of the same sequence type. O(n), with n compared in C.
    """
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
