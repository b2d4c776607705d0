"""Conversations put together message by message, along branches as well.

What the readers of clients' own session files share: each knows what a line says, and at which
point of the conversation it was said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import Call, CalledTool, Happening, Stream
from holdfast.traces.history import EMPTY_HISTORY, History, Message
from holdfast.traces.record import EventKind, Trigger

__all__ = ["Conversation", "Point", "link_sub_agents"]


@dataclass(frozen=True, slots=True)
class Point:
    """A point in a conversation, from which it goes on, once or several times.

    Attributes:
        history: What had been said.
        time_s: When the latest of it was said; None where not recorded.
        trigger: What brings the request about that follows here.
        num_calls: How many calls there had been when the latest one of this history was made; 0
            before the first.
        is_new: Whether the history begins behind that call, after a compaction or where the file
            lacks what was said before.
    """

    history: History = EMPTY_HISTORY
    time_s: float | None = None
    trigger: Trigger = "user"
    num_calls: int = 0
    is_new: bool = False

    def heard(
        self, messages: Iterable[Message], time_s: float | None, trigger: Trigger = "user"
    ) -> Point:
        """Return the point behind what the program or the user said to the model; pure."""
        return replace(
            self,
            history=self.history.then(*messages),
            time_s=self.time_s if time_s is None else time_s,
            trigger=trigger,
        )


@dataclass(slots=True)
class Conversation:
    """The calls of one agent, in the order in which they were made.

    Attributes:
        file: Where it was recorded.
        calls: As in `Stream`.
        events: As in `Stream`.
        tools: The tool calls of all answers, by their ids.
    """

    file: TraceFile
    calls: list[Call] = field(default_factory=list)
    events: list[Happening] = field(default_factory=list)
    tools: dict[str, CalledTool] = field(default_factory=dict)

    def message(self, role: str, content: object, *, is_media: bool = False) -> Message:
        """Take the fingerprint of a message, its text where that is kept; pure."""
        return Message.of(role, content, is_media=is_media, keeps_text=self.file.keeps_text)

    def answered(self, point: Point, call: Call, *, is_kept: bool = True) -> Point:
        """Add a call that was made at a point; returns the one behind its answer.

        Args:
            point: Where.
            call: Its answer, lengths and end; the prompt and its time come from the point.
            is_kept: Whether later prompts repeat the answer.
        """
        if point.num_calls != len(self.calls) and not point.is_new:
            self.happened("fork", None)
        call.prompt, call.start_s, call.trigger = point.history, point.time_s, point.trigger
        self.calls.append(call)
        history = point.history.then(*call.answer) if is_kept else point.history
        time_s = point.time_s if call.end_s is None else call.end_s
        return Point(history, time_s, num_calls=len(self.calls))

    def called(self, call: Call, tool_id: str, tool: CalledTool) -> None:
        """Add a tool call to an answer."""
        call.tools.append(tool)
        if tool_id:
            self.tools[tool_id] = tool

    def returned(self, tool_id: str, time_s: float | None, *, is_error: bool | None) -> None:
        """Note when the result of a tool call was there."""
        tool = self.tools.get(tool_id)
        if tool is not None:
            tool.end_s, tool.is_error = time_s, is_error

    def compacted(self, point: Point, messages: Iterable[Message], time_s: float | None) -> Point:
        """Replace what had been said at a point by `messages`; returns the point behind them."""
        self.happened("compaction", time_s)
        return replace(
            point, history=EMPTY_HISTORY.then(*messages), time_s=time_s or point.time_s, is_new=True
        )

    def happened(self, kind: EventKind, time_s: float | None) -> None:
        """Note what happened before the next call."""
        self.events.append(Happening(kind, len(self.calls), time_s))


def link_sub_agents(streams: Sequence[Stream]) -> None:
    """Find out which turns started sub-agents, as their tool calls say, and which had the results.

    A sub-agent that does not name its parent or its type has those of the call.
    """
    by_id = {stream.session_id: stream for stream in streams}
    for caller in streams:
        for turn, call in enumerate(caller.calls):
            for tool in call.tools:
                stream = by_id.get(tool.session_id or "", caller)
                if stream is caller or stream.parent_id not in (None, caller.session_id):
                    continue
                stream.parent_id, stream.agent = caller.session_id, stream.agent or tool.name
                if stream.parent_turn is None:
                    stream.parent_turn = turn
                has_result = tool.end_s is not None and not tool.is_background
                stream.join_turn = turn + 1 if has_result else None
