"""Reader of OpenCode's exports: one session a document, its messages in parts.

Known: lengths of every step, tools with their times, compactions. A prompt's length is the sum of
its uncached, cache-read and cache-written tokens; an answer's includes its reasoning. A sub-agent's
export names its parent, and the parent's tool call names the sub-agent.

Assumed: the model writes all of a step before the step's tools run. System message and tools are
not recorded; they fill the part of the first prompt that has no text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from holdfast.errors import TraceError
from holdfast.tool_calls.syntax import ToolCall
from holdfast.tool_calls.tool_kind import tool_kind
from holdfast.traces.formats.client_files import lies_below
from holdfast.traces.formats.conversation import link_sub_agents
from holdfast.traces.formats.decoding import decode_json, within
from holdfast.traces.formats.quantities import Milliseconds, Tokens
from holdfast.traces.formats.reading import FileLinks, Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import (
    Call,
    CalledTool,
    RecordedEvent,
    Stream,
    transcript_reading,
)
from holdfast.traces.history import EMPTY_HISTORY, History, Message
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Trigger

__all__ = ["LAYOUTS", "hint_for", "is_auxiliary", "links_of", "read_opencode"]

LAYOUTS = (
    frozenset({"info.id", "messages[].info", "messages[].parts"}),
    frozenset({"info.id", "info.version", "messages"}),
)
"""A document with all of these fields is of this format."""

_HINT = "expected one exported session: {info, messages: [{info, parts: […]}]}"
_NOTHING = msgspec.Raw(b"null")
_MODEL_PARTS = frozenset({"text", "reasoning", "tool"})
# Stop reason of an interrupted answer.
_INCOMPLETE = "incomplete"
_HOME = "opencode"
_DATABASE = "opencode.db"
_STORES = (_DATABASE, "storage/session", "storage/message")
_OWN_FILES = ("auth.json", "mcp-auth.json")
_OWN_DIRECTORIES = ("storage", "project", "snapshot", "log")


class _Time(msgspec.Struct):
    created: Milliseconds | None = None
    completed: Milliseconds | None = None
    start: Milliseconds | None = None
    end: Milliseconds | None = None


class _Cache(msgspec.Struct):
    read: Tokens = 0
    write: Tokens = 0


class _Tokens(msgspec.Struct):
    input: Tokens = 0
    output: Tokens = 0
    reasoning: Tokens = 0
    cache: _Cache = msgspec.field(default_factory=_Cache)


class _State(msgspec.Struct):
    status: str | None = None
    input: msgspec.Raw = _NOTHING
    output: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING
    metadata: msgspec.Raw = _NOTHING
    time: _Time | None = None


class _Part(msgspec.Struct, rename={"call_id": "callID"}):
    type: str = ""
    text: str = ""
    mime: str = ""
    url: str = ""
    tool: str = ""
    call_id: str = ""
    reason: str | None = None
    ignored: bool = False
    state: _State = msgspec.field(default_factory=_State)
    time: _Time | None = None
    tokens: _Tokens | None = None


class _MessageInfo(msgspec.Struct, rename={"model_id": "modelID", "provider_id": "providerID"}):
    role: str = ""
    time: _Time = msgspec.field(default_factory=_Time)
    model_id: str = ""
    provider_id: str = ""
    agent: str | None = None
    mode: str | None = None
    finish: str | None = None
    tokens: _Tokens | None = None
    summary: Any = None


class _Message(msgspec.Struct):
    info: _MessageInfo
    parts: list[_Part]


class _SessionInfo(msgspec.Struct, rename={"parent_id": "parentID"}):
    id: str
    version: str = ""
    parent_id: str | None = None


class _Head(msgspec.Struct):
    info: _SessionInfo


class _Export(_Head):
    messages: list[_Message]


_ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


@dataclass(slots=True)
class _Conversation:
    """A session, built message by message."""

    file: TraceFile
    version: str
    history: History = EMPTY_HISTORY
    request: tuple[Message, ...] = ()
    ready_s: float | None = None
    trigger: Trigger = "user"
    calls: list[Call] = field(default_factory=list)
    events: list[RecordedEvent] = field(default_factory=list)

    def add(self, message: _Message) -> None:
        if message.info.role == "assistant":
            self._add_answer(message)
            return
        self.request = tuple(self._request(message.parts))
        self.history = self.history.then(*self.request)
        self.trigger = "user"

    def _add_answer(self, message: _Message) -> None:
        info = message.info
        is_summary = info.summary is True
        head = f"opencode {self.version} {info.provider_id}/{info.model_id}"
        steps = list(_steps(message))
        created_s = _seconds(info.time.created)
        for position, step in enumerate(steps):
            call = Call(
                prompt=self.history,
                head=f"{head} compaction" if is_summary else head,
                model=info.model_id,
                start_s=self.ready_s if position else created_s,
                end_s=_end_s(step, info if len(steps) == 1 else None),
                trigger=self.trigger,
            )
            self._add(call, step, info if len(steps) == 1 else None)
        if is_summary and steps:
            answer = [message for step in steps for message in self._answer_messages(step)]
            self.events.append(RecordedEvent("compaction", len(self.calls), self.calls[-1].end_s))
            self.history = EMPTY_HISTORY.then(*self.request, *answer)

    def _add(self, call: Call, step: list[_Part], info: _MessageInfo | None) -> None:
        """Add one step; `info` is its message's if the message has no other step."""
        answer = self._answer_messages(step)
        tools = [part for part in step if part.type == "tool"]
        finish = next((part for part in step if part.type == "step-finish"), _Part())
        tokens = finish.tokens or (info.tokens if info else None) or _Tokens()
        call.prompt_tokens = tokens.input + tokens.cache.read + tokens.cache.write
        if call.prompt_tokens:
            call.cached_tokens = tokens.cache.read
            call.output_tokens = tokens.output + tokens.reasoning
        call.answer = answer
        call.stop = finish.reason or (info.finish if info else None) or _INCOMPLETE
        call.tools = [self._called_tool(part) for part in tools]
        results = [self._message("tool", [part.state.output, part.state.error]) for part in tools]
        self.history = self.history.then(*answer, *results)
        self.trigger = "tool_result" if tools else "user"
        ends = [part.state.time.end for part in tools if part.state.time is not None]
        self.ready_s = max((end / 1000 for end in ends if end is not None), default=call.end_s)
        self.calls.append(call)

    def _message(self, role: str, content: object, *, is_media: bool = False) -> Message:
        return Message.of(role, content, is_media=is_media, keeps_text=self.file.keeps_text)

    def _request(self, parts: list[_Part]) -> Iterator[Message]:
        for part in parts:
            if part.type == "file":
                yield self._message("user", [part.mime, part.url], is_media=True)
            elif not part.ignored:
                yield self._message("user", [part.type, part.text])

    def _answer_messages(self, step: list[_Part]) -> list[Message]:
        """Return the model's messages in a step; of a tool's part, the call."""
        return [
            self._message("assistant", [part.text, part.tool, part.call_id, part.state.input])
            for part in step
            if part.type in _MODEL_PARTS
        ]

    def _called_tool(self, part: _Part) -> CalledTool:
        arguments = bytes(part.state.input).decode("utf-8", "replace")
        tool = CalledTool.of(ToolCall(part.tool, arguments))
        if part.state.time is not None:
            tool.start_s = _seconds(part.state.time.start)
            tool.end_s = _seconds(part.state.time.end)
        if part.state.status in ("completed", "error"):
            tool.is_error = part.state.status == "error"
        if tool_kind(part.tool) == "sub_agent":
            error_maker = within("state.metadata", self.file.error_maker())
            metadata = decode_json(part.state.metadata, _ANYTHING, error_maker)
            name = metadata.get("sessionId") if isinstance(metadata, dict) else None
            tool.session_id = name if isinstance(name, str) else None
        return tool


def _steps(message: _Message) -> Iterator[list[_Part]]:
    """Yield the parts of each call in an assistant's message."""
    step: list[_Part] = []
    for part in message.parts:
        if part.type == "step-start" and any(earlier.type in _MODEL_PARTS for earlier in step):
            yield step
            step = []
        step.append(part)
    tokens = message.info.tokens or _Tokens()
    if any(part.type in _MODEL_PARTS for part in step) or (step and tokens.output):
        yield step


def _end_s(step: list[_Part], info: _MessageInfo | None) -> float | None:
    """Return the end of a step's answer, after which its tools run."""
    ends = [part.time.end for part in step if part.type in _MODEL_PARTS and part.time is not None]
    starts = [part.state.time.start for part in step if part.type == "tool" and part.state.time]
    known = [time for time in (*ends, *starts) if time is not None]
    if known:
        return max(known) / 1000
    has_tools = any(part.type == "tool" for part in step)
    return None if info is None or has_tools else _seconds(info.time.completed)


def _seconds(time: float | None) -> float | None:
    # A negative time is repaired to 0.
    return time / 1000 if time else None


def is_auxiliary(path: Path) -> bool:
    """Whether a file is OpenCode's own, which holds no exported session."""
    is_own = path.parent.name == _HOME and path.name in _OWN_FILES
    return is_own or any(lies_below(path, _HOME, name) for name in _OWN_DIRECTORIES)


def hint_for(path: Path) -> str | None:
    """Return advice to export from OpenCode's directory or database; None for others."""
    directory = path if path.is_dir() else path.parent
    if path.name != _DATABASE and not any((directory / name).exists() for name in _STORES):
        return None
    return "write OpenCode's sessions with `opencode export SESSION > FILE.json`, and give that"


def links_of(file: TraceFile) -> FileLinks:
    """Return the session of an export, and its parent.

    Raises:
        TraceError: The file is not such an export.
    """
    info = file.document(_Head, hint=_HINT).info
    return FileLinks(info.id, info.parent_id)


def _stream(file: TraceFile) -> Stream:
    export = file.document(_Export, hint=_HINT)
    conversation = _Conversation(file, export.info.version)
    for message in export.messages:
        conversation.add(message)
    agent = "main"
    if export.info.parent_id is not None:
        names = (message.info.agent or message.info.mode for message in export.messages)
        agent = next(filter(None, names), "")
    return Stream(
        export.info.id,
        agent,
        conversation.calls,
        parent_id=export.info.parent_id,
        events=conversation.events,
    )


def read_opencode(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: UTF-8 JSON; its `children` are sub-agents' exports.
        interner: Shared by all files that are read together.
        scope: Ignored: content hashes are comparable between files.
        rng: Ignored: sub-agents follow their main agent.

    Raises:
        TraceError: The file is not such an export.
    """
    del scope, rng
    streams: list[Stream] = []
    for part in (file, *map(file.sibling, file.children)):
        try:
            streams.append(_stream(part))
        except TraceError as error:
            if not file.children:
                raise
            part.refuse(error)
    link_sub_agents(streams)
    reading = transcript_reading(file, [streams], interner=interner)
    return replace(reading, companions=file.children)
