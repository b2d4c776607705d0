"""Reader of pi's session files, which OpenClaw writes as well: one entry of a tree a line.

An entry names its parent; files of the first version have no ids, and there each entry follows the
one before. A prompt is the way from the root to its answer, without answers that failed or were
aborted: pi leaves those out of later prompts. Behind a compaction it begins with the summary and
the entries from the first that was kept.

Known: lengths, what was read from the cache, tools with the time of each result, models, branches,
compactions. A prompt's length is fresh, read and written tokens together, an answer's its reasoning
as well.

Assumed: system message and tools, which are not recorded, fill what the first prompt's text does
not. A session that was branched from another (`parentSession`) begins with a copy of it: its
leading answers that are also in that one are no turns of its own. Messages that OpenClaw puts into
a session itself are neither turns nor parts of prompts.
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
    leave_copies,
    seconds,
    transcript_reading,
)
from holdfast.traces.history import Message
from holdfast.traces.lineage import PrefixInterner

__all__ = ["LAYOUTS", "is_aside", "links_of", "read_pi"]

LAYOUTS = (
    frozenset({"type=session", "id", "timestamp", "cwd"}),
    frozenset({"type=message", "id", "parentId", "timestamp", "message.role"}),
)
"""The first line, and a message of a file that lost it."""

_HINT = "expected one entry a line: {type, id, parentId, timestamp, message, …}"
_NOTHING = msgspec.Raw(b"null")
_HEADER = "session"
# pi writes the first, OpenClaw also those of some providers.
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
    """A part of a message; all of it that a model sees."""

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
        told = [text for text in (self.command, self.output, self.summary) if text]
        return [*(self.content or ()), *(_Block("text", text=text) for text in told)]


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
    """An entry: where the conversation stands behind it, and what it added to prompts."""

    point: Point
    parent: str | None
    said: Sequence[Message] = ()


@dataclass(slots=True)
class _Session:
    """One file, put together entry by entry."""

    file: TraceFile
    talk: Conversation = field(init=False)
    header: _Entry = field(default_factory=_Entry)
    nodes: dict[str, _Node] = field(default_factory=dict)
    # Names of entries in the order of the file, the first line's included.
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.talk = Conversation(self.file)

    @property
    def origin(self) -> str | None:
        """Name of the file that this one was branched from."""
        return _name(self.header.parent_session)

    def read(self) -> Stream:
        try:
            for number, entry in self.file.decode(_Entry, hint=_HINT):
                try:
                    self._add(number, entry)
                except TraceError as error:
                    self.file.refuse(error)
        except TraceError as error:
            self.file.refuse(error)
        return Stream(
            self.header.id or self.file.label,
            "main",
            self.talk.calls,
            events=self.talk.events,
            origin_id=self.origin,
        )

    def _add(self, number: int, entry: _Entry) -> None:
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
        # A parent that does not stand before its entry is none, so that no way back is a circle.
        parent = None if before is None else parent
        # The entry stays in the tree even where its message cannot be read.
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
                    return self._answer(message, point, parent, time_s)
                return self._hear(message, point, parent, time_s)
            case "custom_message":
                content = self.file.decode_part(
                    entry.content, _CONTENT, line=number, field="content", hint=_HINT
                )
                return self._hear(_Message("custom", content), point, parent, time_s)
            case "branch_summary" if entry.summary:
                return self._hear(_Message("branchSummary", entry.summary), point, parent, time_s)
            case "compaction":
                summary = self._said(_Message("compactionSummary", entry.summary or ""))
                kept = self._kept(entry, parent)
                point = self.talk.compacted(point, [*summary, *kept], time_s)
                return _Node(point, parent)
        return _Node(point, parent)

    def _kept(self, entry: _Entry, parent: str | None) -> list[Message]:
        """What was said from the first entry that a compaction keeps on."""
        first, index = entry.first_kept_entry_id, entry.first_kept_entry_index
        if first is None and isinstance(index, int) and 0 <= index < len(self.names):
            first = self.names[index]
        kept: list[Sequence[Message]] = []
        while parent is not None and (node := self.nodes.get(parent)) is not None:
            kept.append(node.said)
            if parent == first:
                return [message for said in reversed(kept) for message in said]
            parent = node.parent
        return []

    def _hear(
        self, message: _Message, point: Point, parent: str | None, time_s: float | None
    ) -> _Node:
        if message.exclude_from_context:
            return _Node(point, parent)
        said = self._said(message)
        is_result = message.role == "toolResult"
        if is_result:
            self.talk.returned(message.tool_call_id or "", time_s, is_error=message.is_error)
        # What an extension adds does not change what the request answers.
        trigger = point.trigger if message.role in ("custom", "hookMessage") else "user"
        heard = point.heard(said, time_s, "tool_result" if is_result else trigger)
        return _Node(heard, parent, said)

    def _answer(
        self, message: _Message, point: Point, parent: str | None, time_s: float | None
    ) -> _Node:
        usage = message.usage or _Usage()
        is_broken_off = message.stop_reason in _BROKEN_OFF
        is_answered = usage.prompt_tokens > 0 or (message.blocks and message.stop_reason != "error")
        if message.provider == _OPENCLAW or not is_answered:
            return _Node(point, parent)
        said = self._said(message)
        call = Call(
            head=f"pi {message.provider or ''}/{message.model or ''}",
            model=message.model or "",
            end_s=time_s,
            answer=said,
            stop=message.stop_reason,
        )
        if usage.prompt_tokens:
            call.prompt_tokens = usage.prompt_tokens
            call.cached_tokens, call.output_tokens = usage.cache_read, usage.output
        for block in () if is_broken_off else message.blocks:
            if block.type in _TOOL_CALLS:
                written = block.input if block.arguments == _NOTHING else block.arguments
                called = ToolCall(block.name or "", bytes(written).decode(errors="replace"))
                self.talk.called(call, block.id or "", CalledTool.of(called, time_s))
        point = self.talk.answered(point, call, is_kept=not is_broken_off)
        return _Node(point, parent, () if is_broken_off else said)

    def _said(self, message: _Message) -> list[Message]:
        return [
            self.talk.message(message.role, block, is_media=block.type == "image")
            for block in message.blocks
        ]


def _name(path: str | None) -> str | None:
    """A file's name as `TraceFile.name` gives it, of a path of any machine."""
    return None if path is None else PurePosixPath(path.replace("\\", "/")).name.partition(".")[0]


def is_aside(path: Path) -> bool:
    """Whether a file is one that pi or OpenClaw keep beside sessions and that holds none."""
    if path.name == "sessions.json":
        return path.parent.name == _SESSIONS
    is_own = any(lies_below(path, *directories) for directories in _DIRECTORIES)
    return path.parent.name in _HOMES or (is_own and not lies_below(path, _SESSIONS))


def _headers(file: TraceFile) -> Iterator[_Entry]:
    for _, entry in islice(file.decode(_Entry, hint=_HINT), MAX_PREAMBLE_LINES):
        if entry.type == _HEADER:
            yield entry


def links_of(file: TraceFile) -> FileLinks | None:
    """Return whose session it is, and from which it was branched.

    Raises:
        TraceError: A line before the header is none of pi's.
    """
    header = next(_headers(file), None)
    return None if header is None else FileLinks(file.name, _name(header.parent_session))


def _link(files: Sequence[_Session], streams: Sequence[Stream]) -> None:
    """Leave out of each session what it copied of another; origins stand before their branches."""
    by_file: dict[str, Stream] = {}
    for session, stream in zip(files, streams, strict=True):
        origin = by_file.get(stream.origin_id or "")
        if origin is not None:
            stream.origin_id = origin.session_id
            leave_copies(stream, origin)
        by_file.setdefault(session.file.name, stream)


def read_pi(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one session and its branches; taking their turns adds their chains to `interner`.

    Args:
        file: The file; sessions that were branched from it are its `children`.
        interner: Shared by the files of one reading.
        scope: Not needed: content is comparable between files.
        rng: Not needed: branches stay behind what they were branched from.

    Raises:
        TraceError: A line is no such entry or a file is damaged, and nothing may be left out.
    """
    del scope, rng
    sessions = [_Session(part) for part in (file, *map(file.beside, file.children))]
    streams = [session.read() for session in sessions]
    _link(sessions, streams)
    reading = transcript_reading(file, [streams], interner=interner)
    return replace(reading, companions=file.children)
