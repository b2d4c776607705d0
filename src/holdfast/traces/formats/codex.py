"""Reader of Codex's rollouts: a conversation's item or an event a line.

Known: items in order with their times of completion, tool calls, compactions, turns rolled back
(forks), and after each answer the tokens used so far. A prompt's length includes its cached tokens,
an answer's its reasoning. A sub-agent's rollout names its parent, and the parent's calls show the
turns that started, awaited and closed it.

Assumed: consecutive items of the model are one answer, which ends when usage is reported or the
program or the user adds an item. Instructions and tools are not among the items; they fill the part
of the first prompt that has no text. A fork's rollout begins with a copy of its origin's: leading
answers that are also in the origin are not its turns.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from holdfast.errors import TraceError
from holdfast.tool_calls.syntax import ToolCall
from holdfast.traces.formats.codex_items import (
    HINT,
    Compacted,
    Event,
    Item,
    Line,
    Meta,
    TokenInfo,
    TurnContext,
    Used,
    UsedSoFar,
    ended_threads,
    json_object,
    last_name,
    used_between,
)
from holdfast.traces.formats.quantities import MAX_TOKENS
from holdfast.traces.formats.reading import FileLinks, Reading
from holdfast.traces.formats.trace_file import MAX_PREAMBLE_LINES, TraceFile
from holdfast.traces.formats.transcript import (
    Call,
    CalledTool,
    RecordedEvent,
    Stream,
    drop_copied_calls,
    seconds,
    transcript_reading,
)
from holdfast.traces.history import EMPTY_HISTORY, History, Message
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import EventKind, Trigger

__all__ = [
    "LAYOUTS",
    "is_auxiliary",
    "links_of",
    "read_codex",
    "stream_of",
]

_TYPES = "session_meta|turn_context|response_item|event_msg|compacted"
LAYOUTS = (frozenset({"timestamp", f"type={_TYPES}", "payload"}),)
"""A line with all of these fields is of this format."""

_TOOL_CALLS = frozenset({"function_call", "custom_tool_call", "local_shell_call"})
_LOCAL_SHELL = "local_shell"
# Stop reason of an answer without a tool call or a message.
_INCOMPLETE = "incomplete"
_BEGINNINGS = frozenset({"task_started", "turn_started"})
_Value = TypeVar("_Value")

_META = msgspec.json.Decoder(Meta)
_TURN_CONTEXT = msgspec.json.Decoder(TurnContext)
_ITEM = msgspec.json.Decoder(Item)
_COMPACTED = msgspec.json.Decoder(Compacted)
_EVENT = msgspec.json.Decoder(Event)
_TOKEN_INFO = msgspec.json.Decoder(TokenInfo | None)
_ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


@dataclass(slots=True)
class _Started:
    """A rollout's record of a sub-agent: the turns that started and joined it."""

    turn: int
    tool: CalledTool | None = None
    join_turn: int | None = None
    closed_s: float | None = None
    is_closed: bool = False


@dataclass(slots=True)
class _Rollout:
    """A conversation, built line by line."""

    file: TraceFile
    lines: Callable[[TraceFile], Iterator[tuple[int | None, Line]]]
    meta: Meta | None = None
    model: str = ""
    history: History = EMPTY_HISTORY
    ready_s: float | None = None
    trigger: Trigger = "user"
    calls: list[Call] = field(default_factory=list)
    tools: dict[str, CalledTool] = field(default_factory=dict)
    is_open: bool = False
    used: UsedSoFar = field(default_factory=UsedSoFar)
    events: list[RecordedEvent] = field(default_factory=list)
    # The histories before each turn of the user, and before the turn that may follow.
    user_turns: list[History] = field(default_factory=list)
    beginning: History | None = None
    # Sub-agents, by id or path.
    started: dict[str, _Started] = field(default_factory=dict)

    def read(self) -> Stream:
        try:
            self._read_lines()
        except TraceError as error:
            self.file.refuse(error)
        meta = self.meta or Meta()
        for call in self.calls:
            call.head = f"codex {meta.cli_version or ''} {call.model} {meta.agent}"
        return Stream(
            meta.id or self.file.label,
            meta.agent,
            self.calls,
            parent_id=meta.parent_id,
            events=self.events,
            origin_id=meta.forked_from_id,
        )

    def _read_lines(self) -> None:
        for number, line in self.lines(self.file):
            try:
                self._read(number, line)
            except TraceError as error:
                self.file.refuse(error)

    def _read(self, number: int | None, line: Line) -> None:
        time_s = seconds(line.timestamp)
        match line.type:
            case "session_meta":
                self.meta = self.meta or self._part(number, line.payload, _META)
            case "turn_context":
                context = self._part(number, line.payload, _TURN_CONTEXT)
                self.model = context.model or self.model
            case "response_item":
                self._add(number, self._part(number, line.payload, _ITEM), time_s)
            case "compacted":
                self._compact(self._part(number, line.payload, _COMPACTED), time_s)
            case "event_msg":
                self._add_event(number, self._part(number, line.payload, _EVENT), time_s)

    def _part(
        self,
        number: int | None,
        part: msgspec.Raw,
        decoder: msgspec.json.Decoder[_Value],
        inner: str = "",
    ) -> _Value:
        field = f"payload.{inner}" if inner else "payload"
        return self.file.decode_part(part, decoder, line=number, field=field, hint=HINT)

    def _add(self, number: int | None, item: Item, time_s: float | None) -> None:
        if not (item.is_input or item.is_answer):
            return
        message = item.message(keeps_text=self.file.keeps_text)
        if item.is_input:
            self.is_open = False
            if item.is_output and item.call_id in self.tools:
                self.tools[item.call_id].end_s = time_s
                self._add_output(number, item, item.call_id)
        else:
            tool = self._tool(number, item, time_s) if item.type in _TOOL_CALLS else None
            call = self._open_call()
            call.end_s = time_s
            call.answer.append(message)
            if item.type == "message":
                call.stop = None
            if tool is not None:
                call.tools.append(tool)
        self.trigger = "tool_result" if item.is_output else "user"
        self.ready_s = time_s
        self.history = self.history.then(message)

    def _open_call(self) -> Call:
        if not self.is_open:
            self.is_open = True
            self.calls.append(
                Call(
                    prompt=self.history,
                    model=self.model,
                    start_s=self.ready_s,
                    trigger=self.trigger,
                    stop=_INCOMPLETE,
                )
            )
        return self.calls[-1]

    def _tool(self, number: int | None, item: Item, time_s: float | None) -> CalledTool:
        called = self._tool_call(number, item)
        tool = CalledTool.of(called, time_s)
        if item.call_id is not None:
            self.tools[item.call_id] = tool
        if last_name(tool.name) == "close_agent":
            self._close(json_object(called.arguments).get("id"), time_s)
        return tool

    def _tool_call(self, number: int | None, item: Item) -> ToolCall:
        if item.type == "local_shell_call":
            return ToolCall(_LOCAL_SHELL, bytes(item.action).decode(errors="replace"))
        inner = "arguments" if item.type == "function_call" else "input"
        written = item.arguments if item.type == "function_call" else item.input
        value = self._part(number, written, _ANYTHING, inner)
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return ToolCall(item.name or "", text)

    def _add_output(self, number: int | None, item: Item, call_id: str) -> None:
        """Note the sub-agents that a call has started or waited for."""
        name = last_name(self.tools[call_id].name)
        if name not in ("spawn_agent", "wait", "wait_agent"):
            return
        value = json_object(self._part(number, item.output, _ANYTHING, "output"))
        if name == "spawn_agent":
            self._start(value.get("agent_id") or value.get("task_name"), call_id)
        else:
            self._join(value.get("status"))

    def _start(self, thread: Any, call_id: Any) -> None:
        if isinstance(thread, str) and self.calls:
            tool = self.tools.get(call_id) if isinstance(call_id, str) else None
            self.started.setdefault(thread, _Started(len(self.calls) - 1, tool))

    def _join(self, statuses: Any) -> None:
        for thread in ended_threads(statuses):
            if thread in self.started:
                self.started[thread].join_turn = len(self.calls)

    def _close(self, thread: Any, time_s: float | None) -> None:
        if isinstance(thread, str) and thread in self.started:
            self.started[thread].is_closed, self.started[thread].closed_s = True, time_s

    def _compact(self, compacted: Compacted, time_s: float | None) -> None:
        self.is_open = False
        keeps_text = self.file.keeps_text
        kept = compacted.replacement_history
        messages = [item.message(keeps_text=keeps_text) for item in kept or ()]
        if kept is None:
            messages = [Message.of("user", compacted.message, keeps_text=keeps_text)]
        self.history = EMPTY_HISTORY.then(*messages)
        self._note_event("compaction", time_s)

    def _note_event(self, kind: EventKind, time_s: float | None) -> None:
        self.events.append(RecordedEvent(kind, len(self.calls), time_s))

    def _add_event(self, number: int | None, event: Event, time_s: float | None) -> None:
        match event.type:
            case "token_count":
                self._count(number, event)
            case "user_message":
                self.user_turns.append(self.beginning or self.history.before or EMPTY_HISTORY)
                self.beginning = None
            case "thread_rolled_back":
                self._roll_back(event.num_turns, time_s)
            case "context_compacted":
                self._note_event("compaction", time_s)
            case "collab_agent_spawn_end":
                self._start(event.new_thread_id, event.call_id)
            case "collab_waiting_end":
                self._join(event.statuses)
            case "collab_close_end":
                self._close(event.receiver_thread_id, time_s)
            case kind if kind in _BEGINNINGS:
                self.beginning = self.history

    def _roll_back(self, num_turns: Any, time_s: float | None) -> None:
        if isinstance(num_turns, int) and 0 < num_turns <= len(self.user_turns):
            self.is_open = False
            self.history = self.user_turns[-num_turns]
            del self.user_turns[-num_turns:]
            self._note_event("fork", time_s)

    def _count(self, number: int | None, event: Event) -> None:
        info = self._part(number, event.info, _TOKEN_INFO, "info") or TokenInfo()
        before, now = self.used, info.total_token_usage
        # Every change of the rate limits repeats the same figures.
        if now is not None and now != before:
            self.used = now
            # A compaction also uses tokens but is no call.
            if self.is_open or (self.calls and not self.calls[-1].prompt_tokens):
                self._set_usage(number, info.last_token_usage or used_between(before, now))
            self.is_open = False

    def _set_usage(self, number: int | None, used: Used) -> None:
        if used.input_tokens > MAX_TOKENS:
            raise self.file.error(
                f"a prompt of {used.input_tokens} tokens; expected at most {MAX_TOKENS}",
                line=number,
                field="payload.info.total_token_usage.input_tokens",
            )
        call = self.calls[-1]
        call.prompt_tokens = used.input_tokens
        call.cached_tokens = used.cached_input_tokens
        call.output_tokens = used.output_tokens


def _link(rollouts: Sequence[_Rollout], streams: Sequence[Stream]) -> None:
    """Drop copied calls and link sub-agents; parents precede their sub-agents."""
    by_id = {stream.session_id: at for at, stream in reversed([*enumerate(streams)])}
    for at, stream in enumerate(streams):
        origin = by_id.get(stream.origin_id or "", at)
        if origin < at:
            drop_copied_calls(stream, streams[origin])
        parent = by_id.get(stream.parent_id or "")
        if parent is not None:
            _join_parent(rollouts[at], stream, rollouts[parent], len(streams[parent].copied))


def _join_parent(child: _Rollout, stream: Stream, parent: _Rollout, num_copied: int) -> None:
    names = (child.meta or Meta()).names
    started = next((parent.started[name] for name in names if name in parent.started), None)
    if started is None or started.turn < num_copied:
        return
    stream.parent_turn = started.turn - num_copied
    if started.join_turn is not None:
        stream.join_turn = started.join_turn - num_copied
    if started.tool is not None:
        started.tool.session_id = stream.session_id
    if started.is_closed:
        stream.events.append(RecordedEvent("close", len(stream.calls), started.closed_s))


def links_of(file: TraceFile) -> FileLinks | None:
    """Return a rollout's session and its parent or origin; None if not recorded.

    Raises:
        TraceError: A line before the first `session_meta` is not Codex's.
    """
    for number, line in islice(file.decode(Line, hint=HINT), MAX_PREAMBLE_LINES):
        if line.type == "session_meta":
            meta = file.decode_part(line.payload, _META, line=number, field="payload")
            return FileLinks(meta.id or file.name, meta.parent_id or meta.forked_from_id)
    return None


def read_codex(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: The file; its `children` are rollouts of sub-agents and forks.
        interner: Shared by all files that are read together.
        scope: Ignored: content hashes are comparable between files.
        rng: Ignored: sub-agents follow their main agent.

    Raises:
        TraceError: A line is not such an item or a file is damaged, and `file.on_skipped` is None.
    """
    del scope, rng
    rollouts = [_Rollout(part, _lines) for part in (file, *map(file.sibling, file.children))]
    streams = [rollout.read() for rollout in rollouts]
    _link(rollouts, streams)
    reading = transcript_reading(file, [streams], interner=interner)
    return replace(reading, companions=file.children)


def _lines(file: TraceFile) -> Iterator[tuple[int | None, Line]]:
    return file.decode(Line, hint=HINT)


def stream_of(
    file: TraceFile, lines: Callable[[TraceFile], Iterator[tuple[int | None, Line]]]
) -> Stream:
    """Read the conversation of one file.

    Args:
        file: The file.
        lines: Yields its content as lines of a rollout, with line numbers if it has any.

    Raises:
        TraceError: The file cannot be read, and `file.on_skipped` is None.
    """
    return _Rollout(file, lines).read()


def is_auxiliary(path: Path) -> bool:
    """Whether Codex keeps a file beside its sessions that holds none."""
    return path.parent.name == ".codex"
