"""The canonical record of an agent session, which every trace format is read into.

Knows nothing about files, engines or clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

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
    """One tool call and the time it took; the calls of one turn were asked for together.

    Attributes:
        name: The tool.
        command: As `Turn.tool_command`.
        start_s: When it began, from the end of the answer that asked for it; None where unknown.
        end_s: When its result was there, from the same moment; None where unknown.
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
    """What happened to a session between two of its turns.

    Attributes:
        kind: "fork" where it goes on from an earlier prompt, "compaction" where its history was
            replaced by a summary, "close" where it was ended for good.
        turn_index: The turn it happened before; the number of turns after the last.
        after_s: Time from the end of the previous answer; None where unknown.
    """

    kind: EventKind
    turn_index: int
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class MessageText:
    """A message, or a part of one, as it was recorded.

    Attributes:
        role: Whose it is, in the recording's words.
        content: What the recording has of it, as JSON; "" for media.
    """

    role: str
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TurnText:
    """What was said in one turn.

    Attributes:
        num_repeated: How many messages the prompt repeats of the turn before, from the first one
            on: those of its prompt, then those of its answer. 0 where that has no text.
        prompt: The messages of the prompt behind those.
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
            that block, in other sessions of the same reading as well.
        trigger: What brought the request about.
        ended_by: What the answer asked for, as recorded; never inferred from the next request.
        tool_name: The tool called at the end of the answer, where known; of parallel calls the one
            that decides when the session returns (`predict.features_of`).
        tool_command: Head of the shell command that tool runs, such as `git fetch`, as
            `core.argument_class` writes it, with a trailing ` &` in the background. None where
            the tool runs none or none is known.
        agent: Role that writes the answer, where several take turns in one session; else "".
        model: The model asked, as recorded; "" where not known.
        latency_s: From the request to the end of the answer; None where not recorded.
        cached_tokens: Prompt tokens that the recording engine took from its cache, where it says.
        tools: The calls that the answer asked for, in order, where they are recorded.
        text: What was said, only where a reader was told to keep it.
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
        start_s: When the session arrives, from the start of the recording, for recordings of
            arrivals that nobody waited for (open loop). None where a session starts when the run
            has room for it (closed loop).
        parent_id: Session whose tool call started this one, where it is in the same reading.
        parent_turn: Index of the parent's turn whose answer made that call, where known.
        agent: Name or type of the agent: "main", or that of the sub-agent; "" where not known.
        join_turn: Index of the parent's turn that waited for this session's end; None where none
            did or it is not known.
        events: In the order of the turns they precede, where they are recorded.
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
