"""Reader of pi's and OpenClaw's session files: one entry of a tree a line.

An entry names its parent; in files of the first version, without ids, each entry follows the
previous one. A prompt is the path from the root to its answer, without failed and aborted answers,
which pi omits from later prompts. After a compaction it begins with the summary and the entries
from the first kept one.

Known: lengths, cached tokens, tools with the time of each result, models, branches, compactions. A
prompt's length is the sum of its uncached, cache-read and cache-written tokens; an answer's
includes its reasoning.

Assumed: system message and tools are not recorded; they fill the part of the first prompt that has
no text. A session branched from another (`parentSession`) begins with a copy of it: leading answers
that are also in its origin are not its turns. Messages that OpenClaw itself adds to a session are
neither turns nor parts of prompts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from holdfast.errors import TraceError
from holdfast.tool_calls.syntax import ToolCall
from holdfast.traces.formats.client_files import lies_below
from holdfast.traces.formats.conversation import Conversation, Point
from holdfast.traces.formats.quantities import Tokens
from holdfast.traces.formats.reading import FileLinks, Reading
from holdfast.traces.formats.trace_file import MAX_PREAMBLE_LINES, TraceFile
from holdfast.traces.formats.transcript import (
    Call,
    CalledTool,
    Stream,
    drop_copied_calls,
    seconds,
    transcript_reading,
)
from holdfast.traces.history import Message
from holdfast.traces.lineage import PrefixInterner

__all__ = ["LAYOUTS", "is_auxiliary", "links_of", "read_pi"]

LAYOUTS = (
    frozenset({"type=session", "id", "timestamp", "cwd"}),
    frozenset({"type=message", "id", "parentId", "timestamp", "message.role"}),
)
"""The first line, and a message, for a file without its first line."""

_HINT = "expected one entry a line: {type, id, parentId, timestamp, message, …}"
_NOTHING = msgspec.Raw(b"null")
_HEADER = "session"
# pi writes the first; OpenClaw also writes some providers' names.
_TOOL_CALLS = frozenset({"toolCall", "toolUse", "functionCall", "tool_use"})
_BROKEN_OFF = frozenset({"error", "aborted"})
_OPENCLAW = "openclaw"
_SESSIONS = "sessions"
_HOMES = (".pi", ".openclaw")
_DIRECTORIES = ((".pi", "agent"), (".openclaw", "agents"), (".openclaw", "cron"))


class _Usage(msgspec.Struct, rename="camel"):
    input: Tokens | None = None
    output: Tokens | None = None
    cache_read: Tokens | None = None
    cache_write: Tokens | None = None

    @property
    def prompt_tokens(self) -> int:
        return (self.input or 0) + (self.cache_read or 0) + (self.cache_write or 0)


class _Block(msgspec.Struct, omit_defaults=True):
    """A part of a message: the fields that a model sees."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    arguments: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING
    data: msgspec.Raw = _NOTHING


class _Message(msgspec.Struct, rename="camel"):
    role: str = ""
    content: str | list[_Block] | None = None
    model: str | None = None
    provider: str | None = None
    usage: _Usage | None = None
    stop_reason: str | None = None
    tool_call_id: str | None = None
    is_error: bool | None = None
    command: str | None = None
    output: str | None = None
    summary: str | None = None
    exclude_from_context: bool | None = None

    @property
    def blocks(self) -> list[_Block]:
        if isinstance(self.content, str):
            return [_Block("text", text=self.content)]
        texts = [text for text in (self.command, self.output, self.summary) if text]
        return [*(self.content or ()), *(_Block("text", text=text) for text in texts)]


class _Entry(msgspec.Struct, rename="camel"):
    type: str = ""
    id: str | None = None
    parent_id: str | None = None
    timestamp: datetime | None = None
    message: msgspec.Raw = _NOTHING
    content: msgspec.Raw = _NOTHING
    summary: str | None = None
    first_kept_entry_id: str | None = None
    first_kept_entry_index: Any = None
    parent_session: str | None = None


_MESSAGE = msgspec.json.Decoder(_Message)
_CONTENT = msgspec.json.Decoder(str | list[_Block] | None)


@dataclass(frozen=True, slots=True)
class _Node:
    """An entry: the point after it, and the messages that it added to prompts."""

    point: Point
    parent: str | None
    messages: Sequence[Message] = ()


@dataclass(slots=True)
class _Session:
    """One file, built entry by entry."""

    file: TraceFile
    conversation: Conversation = field(init=False)
    header: _Entry = field(default_factory=_Entry)
    nodes: dict[str, _Node] = field(default_factory=dict)
    # Ids of entries in the order of the file, the first line's included.
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.conversation = Conversation(self.file)

    @property
    def origin(self) -> str | None:
        """Name of the file that this one was branched from; None for no branch."""
        return _file_name(self.header.parent_session)

    def read(self) -> Stream:
        try:
            for number, entry in self.file.decode(_Entry, hint=_HINT):
                try:
                    self._add_entry(number, entry)
                except TraceError as error:
                    self.file.refuse(error)
        except TraceError as error:
            self.file.refuse(error)
        return Stream(
            self.header.id or self.file.label,
            "main",
            self.conversation.calls,
            events=self.conversation.events,
            origin_id=self.origin,
        )

    def _add_entry(self, number: int, entry: _Entry) -> None:
        if entry.type == _HEADER:
            self.header = entry if self.header.id is None else self.header
            self.names.append("")
            return
        name = entry.id or f"line {number}"
        parent = entry.parent_id
        if entry.id is None:
            parent = self.names[-1] if self.names else None
        self.names.append(name)
        if name in self.nodes:
            return
        before = self.nodes.get(parent or "")
        point = Point(is_new=bool(parent)) if before is None else before.point
        # A parent after its entry is ignored, so that there are no cycles.
        parent = None if before is None else parent
        # The entry stays in the tree even if its message is unreadable.
        self.nodes[name] = _Node(point, parent)
        self.nodes[name] = self._node(number, entry, point, parent)

    def _node(self, number: int, entry: _Entry, point: Point, parent: str | None) -> _Node:
        time_s = seconds(entry.timestamp)
        match entry.type:
            case "message":
                message = self.file.decode_part(
                    entry.message, _MESSAGE, line=number, field="message", hint=_HINT
                )
                if message.role == "assistant":
                    return self._add_answer(message, point, parent, time_s)
                return self._add_input(message, point, parent, time_s)
            case "custom_message":
                content = self.file.decode_part(
                    entry.content, _CONTENT, line=number, field="content", hint=_HINT
                )
                return self._add_input(_Message("custom", content), point, parent, time_s)
            case "branch_summary" if entry.summary:
                return self._add_input(
                    _Message("branchSummary", entry.summary), point, parent, time_s
                )
            case "compaction":
                summary = self._messages(_Message("compactionSummary", entry.summary or ""))
                kept = self._kept(entry, parent)
                point = self.conversation.compact(point, [*summary, *kept], time_s)
                return _Node(point, parent)
        return _Node(point, parent)

    def _kept(self, entry: _Entry, parent: str | None) -> list[Message]:
        """Return the messages from the first entry that a compaction keeps."""
        first, index = entry.first_kept_entry_id, entry.first_kept_entry_index
        if first is None and isinstance(index, int) and 0 <= index < len(self.names):
            first = self.names[index]
        kept: list[Sequence[Message]] = []
        while parent is not None and (node := self.nodes.get(parent)) is not None:
            kept.append(node.messages)
            if parent == first:
                return [message for messages in reversed(kept) for message in messages]
            parent = node.parent
        return []

    def _add_input(
        self, message: _Message, point: Point, parent: str | None, time_s: float | None
    ) -> _Node:
        if message.exclude_from_context:
            return _Node(point, parent)
        messages = self._messages(message)
        is_result = message.role == "toolResult"
        if is_result:
            self.conversation.note_tool_result(
                message.tool_call_id or "", time_s, is_error=message.is_error
            )
        # An extension's message does not change the trigger.
        trigger = point.trigger if message.role in ("custom", "hookMessage") else "user"
        point = point.after_input(messages, time_s, "tool_result" if is_result else trigger)
        return _Node(point, parent, messages)

    def _add_answer(
        self, message: _Message, point: Point, parent: str | None, time_s: float | None
    ) -> _Node:
        usage = message.usage or _Usage()
        is_broken_off = message.stop_reason in _BROKEN_OFF
        is_answered = usage.prompt_tokens > 0 or (message.blocks and message.stop_reason != "error")
        if message.provider == _OPENCLAW or not is_answered:
            return _Node(point, parent)
        messages = self._messages(message)
        call = Call(
            head=f"pi {message.provider or ''}/{message.model or ''}",
            model=message.model or "",
            end_s=time_s,
            answer=messages,
            stop=message.stop_reason,
        )
        if usage.prompt_tokens:
            call.prompt_tokens = usage.prompt_tokens
            call.cached_tokens, call.output_tokens = usage.cache_read, usage.output
        for block in () if is_broken_off else message.blocks:
            if block.type in _TOOL_CALLS:
                written = block.input if block.arguments == _NOTHING else block.arguments
                called = ToolCall(block.name or "", bytes(written).decode(errors="replace"))
                self.conversation.add_tool_call(call, block.id or "", CalledTool.of(called, time_s))
        point = self.conversation.add_call(point, call, is_kept=not is_broken_off)
        return _Node(point, parent, () if is_broken_off else messages)

    def _messages(self, message: _Message) -> list[Message]:
        return [
            self.conversation.message(message.role, block, is_media=block.type == "image")
            for block in message.blocks
        ]


def _file_name(path: str | None) -> str | None:
    """Return the `TraceFile.name` of a path of any operating system."""
    return None if path is None else PurePosixPath(path.replace("\\", "/")).name.partition(".")[0]


def is_auxiliary(path: Path) -> bool:
    """Whether pi or OpenClaw keeps a file beside its sessions that holds none."""
    if path.name == "sessions.json":
        return path.parent.name == _SESSIONS
    is_own = any(lies_below(path, *directories) for directories in _DIRECTORIES)
    return path.parent.name in _HOMES or (is_own and not lies_below(path, _SESSIONS))


def _headers(file: TraceFile) -> Iterator[_Entry]:
    for _, entry in islice(file.decode(_Entry, hint=_HINT), MAX_PREAMBLE_LINES):
        if entry.type == _HEADER:
            yield entry


def links_of(file: TraceFile) -> FileLinks | None:
    """Return a session's file name and its origin's; None without a header.

    Raises:
        TraceError: A line before the header is not pi's.
    """
    header = next(_headers(file), None)
    return None if header is None else FileLinks(file.name, _file_name(header.parent_session))


def _link(files: Sequence[_Session], streams: Sequence[Stream]) -> None:
    """Drop the calls that branches copied; origins precede their branches."""
    by_file: dict[str, Stream] = {}
    for session, stream in zip(files, streams, strict=True):
        origin = by_file.get(stream.origin_id or "")
        if origin is not None:
            stream.origin_id = origin.session_id
            drop_copied_calls(stream, origin)
        by_file.setdefault(session.file.name, stream)


def read_pi(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: The file; its `children` are sessions branched from it.
        interner: Shared by all files that are read together.
        scope: Ignored: content hashes are comparable between files.
        rng: Ignored: branches follow their origin.

    Raises:
        TraceError: A line is not such an entry or a file is damaged, and `file.on_skipped` is None.
    """
    del scope, rng
    sessions = [_Session(part) for part in (file, *map(file.sibling, file.children))]
    streams = [session.read() for session in sessions]
    _link(sessions, streams)
    reading = transcript_reading(file, [streams], interner=interner)
    return replace(reading, companions=file.children)
