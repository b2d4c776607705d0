"""Conversations built message by message, with branches.

Shared by the readers of clients' own session files: each decodes a line and knows at which point
of the conversation it belongs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import Call, CalledTool, RecordedEvent, Stream
from holdfast.traces.history import EMPTY_HISTORY, History, Message
from holdfast.traces.record import EventKind, Trigger

__all__ = ["Conversation", "Point", "link_sub_agents"]


@dataclass(frozen=True, slots=True)
class Point:
    """A point in a conversation; several branches may continue from it.

    Attributes:
        history: The messages so far.
        time_s: Time of the latest message; None if not recorded.
        trigger: The trigger of a request that follows here.
        num_calls: Number of the latest call in this history, from 1; 0 before the first.
        is_new: Whether the history begins after that call: after a compaction, or because the file
            lacks earlier messages.
    """

    history: History = EMPTY_HISTORY
    time_s: float | None = None
    trigger: Trigger = "user"
    num_calls: int = 0
    is_new: bool = False

    def after_input(
        self, messages: Iterable[Message], time_s: float | None, trigger: Trigger = "user"
    ) -> Point:
        """Return the point after messages of the program or the user; pure."""
        return replace(
            self,
            history=self.history.then(*messages),
            time_s=self.time_s if time_s is None else time_s,
            trigger=trigger,
        )


@dataclass(slots=True)
class Conversation:
    """One agent's calls, in their order.

    Attributes:
        file: The recording.
        calls: As in `Stream`.
        events: As in `Stream`.
        tools: The tool calls of all answers, by their ids.
    """

    file: TraceFile
    calls: list[Call] = field(default_factory=list)
    events: list[RecordedEvent] = field(default_factory=list)
    tools: dict[str, CalledTool] = field(default_factory=dict)

    def message(self, role: str, content: object, *, is_media: bool = False) -> Message:
        """Hash a message; keep its text if `file.keeps_text`. Pure."""
        return Message.of(role, content, is_media=is_media, keeps_text=self.file.keeps_text)

    def add_call(self, point: Point, call: Call, *, is_kept: bool = True) -> Point:
        """Add a call made at a point; return the point after its answer.

        Notes a fork if the point does not follow the latest call.

        Args:
            point: Sets the call's prompt, start and trigger.
            call: Has the answer, lengths and end.
            is_kept: Whether later prompts repeat the answer.
        """
        if point.num_calls != len(self.calls) and not point.is_new:
            self.note_event("fork", None)
        call.prompt, call.start_s, call.trigger = point.history, point.time_s, point.trigger
        self.calls.append(call)
        history = point.history.then(*call.answer) if is_kept else point.history
        time_s = point.time_s if call.end_s is None else call.end_s
        return Point(history, time_s, num_calls=len(self.calls))

    def add_tool_call(self, call: Call, tool_id: str, tool: CalledTool) -> None:
        """Add a tool call to an answer."""
        call.tools.append(tool)
        if tool_id:
            self.tools[tool_id] = tool

    def note_tool_result(
        self, tool_id: str, time_s: float | None, *, is_error: bool | None
    ) -> None:
        """Set the end of a tool call, if its id is known."""
        tool = self.tools.get(tool_id)
        if tool is not None:
            tool.end_s, tool.is_error = time_s, is_error

    def compact(self, point: Point, messages: Iterable[Message], time_s: float | None) -> Point:
        """Replace the history at a point by `messages`; return the point after them."""
        self.note_event("compaction", time_s)
        return replace(
            point, history=EMPTY_HISTORY.then(*messages), time_s=time_s or point.time_s, is_new=True
        )

    def note_event(self, kind: EventKind, time_s: float | None) -> None:
        """Note an event before the next call."""
        self.events.append(RecordedEvent(kind, len(self.calls), time_s))


def link_sub_agents(streams: Sequence[Stream]) -> None:
    """Set parents and join turns of sub-agents from the tool calls that started them.

    A sub-agent without a recorded parent or type takes them from the call.
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
