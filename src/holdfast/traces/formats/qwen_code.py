"""Reader of Qwen Code's sessions: Claude Code's envelope, Gemini API messages.

A record names its parent, so a file is a tree: a rewind starts a branch (a fork). A compression
holds the history that replaces the earlier one. Records of the model without usage after an answer
are parts of it, such as sub-agents' tool calls.

Known: lengths, cached tokens, tools with the time of each result, models. A prompt's length is
`promptTokenCount`, cached tokens included; an answer's is `candidatesTokenCount`, plus
`thoughtsTokenCount` if the total shows that it is not included. A sub-agent's file is in a
directory of its session's id, and names that session.

Assumed: system message and tools are not recorded; they fill the part of the first prompt that has
no text. A session branched from another (`forkedFrom`) begins with a copy of it: leading answers
that are also in its origin are not its turns.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.client_files import lies_below
from holdfast.traces.formats.conversation import Conversation, Point, link_sub_agents
from holdfast.traces.formats.gemini_parts import (
    Content,
    Part,
    Usage,
    messages_of,
    parts_of,
    set_usage,
)
from holdfast.traces.formats.quantities import Tokens
from holdfast.traces.formats.reading import FileLinks, Reading
from holdfast.traces.formats.trace_file import MAX_PREAMBLE_LINES, TraceFile
from holdfast.traces.formats.transcript import (
    Call,
    Stream,
    drop_copied_calls,
    seconds,
    transcript_reading,
)
from holdfast.traces.history import Message
from holdfast.traces.lineage import PrefixInterner

__all__ = ["LAYOUTS", "is_auxiliary", "links_of", "read_qwen_code"]

LAYOUTS = (
    frozenset({"type", "uuid", "parentUuid", "sessionId", "cwd", "message.parts"}),
    frozenset({"type", "uuid", "parentUuid", "sessionId", "cwd", "systemPayload"}),
)
"""A record of a message, and one of an event."""

_HINT = "expected one record a line: {type, uuid, parentUuid, sessionId, message: {parts}, …}"
_NOTHING = msgspec.Raw(b"null")
_COMPRESSION = "chat_compression"
_BOOTSTRAP = "agent_bootstrap"
_PARENT = "parent_session"
# The program's own messages do not change the trigger.
_AUTOMATIC = frozenset({"mid_turn_user_message", "notification", "goal_runtime"})
_SESSIONS = ("chats", "subagents")
_DIRECTORIES = ("projects", "tmp", "todos")
_Value = TypeVar("_Value")


class _UsageMetadata(msgspec.Struct, rename="camel"):
    prompt_token_count: Tokens | None = None
    candidates_token_count: Tokens | None = None
    cached_content_token_count: Tokens | None = None
    thoughts_token_count: Tokens | None = None
    total_token_count: int | None = None

    @property
    def usage(self) -> Usage:
        return Usage(
            self.prompt_token_count,
            self.cached_content_token_count,
            self.candidates_token_count,
            self.thoughts_token_count,
            self.total_token_count,
        )


class _Message(msgspec.Struct):
    parts: Content = None
    role: str | None = None


class _Forked(msgspec.Struct, rename="camel"):
    session_id: str | None = None


class _Payload(msgspec.Struct, rename="camel"):
    compressed_history: list[_Message] | None = None
    history: list[_Message] | None = None
    parent_session_id: str | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    """The metadata file beside a sub-agent's file."""

    tool_use_id: str | None = None
    parent_agent_id: str | None = None
    is_backgrounded: bool | None = None


class _Record(msgspec.Struct, rename="camel"):
    type: str = ""
    subtype: str | None = None
    uuid: str | None = None
    parent_uuid: str | None = None
    session_id: str | None = None
    timestamp: datetime | None = None
    version: str | None = None
    model: str | None = None
    agent_id: str | None = None
    agent_name: str | None = None
    is_sidechain: bool | None = None
    forked_from: _Forked | None = None
    message: msgspec.Raw = _NOTHING
    usage_metadata: msgspec.Raw = _NOTHING
    tool_call_result: msgspec.Raw = _NOTHING
    system_payload: msgspec.Raw = _NOTHING

    @property
    def name(self) -> str:
        """The id of its agent's session."""
        session = self.session_id or ""
        return f"{session}/{self.agent_id or ''}" if self.is_sidechain else session


_MESSAGE = msgspec.json.Decoder(_Message | None)
_USAGE = msgspec.json.Decoder(_UsageMetadata | None)
_ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_PAYLOAD = msgspec.json.Decoder(_Payload | None)


@dataclass(frozen=True, slots=True)
class _Node:
    """The point after a record, and whether the record is part of an answer."""

    point: Point
    is_answer: bool = False


@dataclass(slots=True)
class _Session:
    """One file, built record by record."""

    file: TraceFile
    conversation: Conversation = field(init=False)
    first: _Record = field(default_factory=_Record)
    parent_id: str | None = None
    nodes: dict[str, _Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.conversation = Conversation(self.file)

    def read(self) -> Stream:
        try:
            for number, record in self.file.decode(_Record, hint=_HINT):
                try:
                    self._add_record(number, record)
                except TraceError as error:
                    self.file.refuse(error)
        except TraceError as error:
            self.file.refuse(error)
        first = self.first
        agent = (first.agent_name or "") if first.is_sidechain else "main"
        for call in self.conversation.calls:
            call.head = f"qwen-code {first.version or ''} {call.model} {agent}"
        return Stream(
            first.name or self.file.label,
            agent,
            self.conversation.calls,
            parent_id=first.session_id if first.is_sidechain else self.parent_id,
            events=self.conversation.events,
            origin_id=first.forked_from.session_id if first.forked_from else None,
        )

    def _add_record(self, number: int, record: _Record) -> None:
        if record.uuid is None or record.uuid in self.nodes:
            return
        if self.first.uuid is None:
            self.first = record
        parent = record.parent_uuid or ""
        node = self.nodes.get(parent, _Node(Point(is_new=parent != "")))
        # The record stays in the tree even if its message is unreadable.
        self.nodes[record.uuid] = node
        self.nodes[record.uuid] = self._after(number, record, node)

    def _after(self, number: int, record: _Record, node: _Node) -> _Node:
        if record.type == "system":
            return self._add_system_record(number, record, node)
        message = self._part(number, record.message, _MESSAGE, "message")
        parts = parts_of(message.parts if message else None)
        if record.type == "assistant":
            return self._add_answer(number, record, node, parts)
        trigger = node.point.trigger if record.subtype in _AUTOMATIC else "user"
        if record.type == "tool_result":
            trigger = "tool_result"
            self._add_results(number, record, parts)
        messages = messages_of(self.conversation, "user", parts)
        return _Node(node.point.after_input(messages, seconds(record.timestamp), trigger))

    def _part(
        self, number: int, part: msgspec.Raw, decoder: msgspec.json.Decoder[_Value], name: str
    ) -> _Value:
        return self.file.decode_part(part, decoder, line=number, field=name, hint=_HINT)

    def _add_system_record(self, number: int, record: _Record, node: _Node) -> _Node:
        if record.subtype not in (_COMPRESSION, _BOOTSTRAP, _PARENT):
            return node
        payload = self._part(number, record.system_payload, _PAYLOAD, "systemPayload")
        payload = payload or _Payload()
        self.parent_id = payload.parent_session_id or self.parent_id
        if record.subtype == _COMPRESSION:
            if payload.compressed_history is None:
                # It failed, or does not record the new history.
                return node
            messages = self._messages(payload.compressed_history)
            return _Node(self.conversation.compact(node.point, messages, seconds(record.timestamp)))
        return replace(node, point=node.point.after_input(self._messages(payload.history), None))

    def _messages(self, messages: Sequence[_Message] | None) -> Iterator[Message]:
        for message in messages or ():
            yield from messages_of(
                self.conversation, message.role or "user", parts_of(message.parts)
            )

    def _add_answer(
        self, number: int, record: _Record, node: _Node, parts: Sequence[Part]
    ) -> _Node:
        usage = self._part(number, record.usage_metadata, _USAGE, "usageMetadata")
        if not parts and usage is None:
            return node
        time_s = seconds(record.timestamp)
        answer = list(messages_of(self.conversation, "model", parts))
        point = node.point
        if node.is_answer and usage is None:
            call = self.conversation.calls[point.num_calls - 1]
            call.end_s = time_s
            call.answer += answer
            point = replace(point, history=point.history.then(*answer), time_s=time_s)
        else:
            call = Call(model=record.model or "", end_s=time_s, answer=answer)
            set_usage(call, usage.usage if usage else None)
            point = self.conversation.add_call(point, call)
        for part in parts:
            if part.function_call is not None:
                tool = part.function_call.as_called_tool(time_s)
                self.conversation.add_tool_call(call, part.function_call.id or "", tool)
        return _Node(point, is_answer=True)

    def _add_results(self, number: int, record: _Record, parts: Sequence[Part]) -> None:
        result = self._part(number, record.tool_call_result, _ANYTHING, "toolCallResult")
        status = result.get("status") if isinstance(result, dict) else None
        is_error = status == "error" if status in ("success", "error") else None
        for part in parts:
            if part.function_response is not None:
                name = part.function_response.id or ""
                self.conversation.note_tool_result(
                    name, seconds(record.timestamp), is_error=is_error
                )


def is_auxiliary(path: Path) -> bool:
    """Whether Qwen Code keeps a file beside its sessions that holds none."""
    is_below = any(lies_below(path, name) for name in _SESSIONS)
    if path.name.endswith((".meta.json", ".runtime.json")):
        return is_below
    is_session = is_below and (path.name.startswith("session-") or ".jsonl" in path.name)
    return path.parent.name == ".qwen" or (
        any(lies_below(path, ".qwen", name) for name in _DIRECTORIES) and not is_session
    )


def links_of(file: TraceFile) -> FileLinks | None:
    """Return a file's session and its parent or origin; None if not recorded.

    Raises:
        TraceError: A line before the first record is not Qwen Code's.
    """
    links: FileLinks | None = None
    for _, record in islice(file.decode(_Record, hint=_HINT), MAX_PREAMBLE_LINES):
        if links is None and record.session_id is not None:
            parent = record.session_id if record.is_sidechain else None
            if record.forked_from is not None:
                parent = record.forked_from.session_id
            links = FileLinks(record.name, parent)
        if links is not None and record.subtype == _PARENT:
            with suppress(msgspec.MsgspecError):
                payload = _PAYLOAD.decode(record.system_payload) or _Payload()
                links = replace(links, parent=payload.parent_session_id)
    return links


def _add_metadata(
    session: _Session, stream: Stream, sessions_by_id: Mapping[str, _Session]
) -> None:
    """Set a sub-agent's parent and call from the metadata file beside its file."""
    if not session.first.is_sidechain or not isinstance(session.file.content, Path):
        return
    path = session.file.content
    beside = path.with_name(f"{path.name.partition('.jsonl')[0]}.meta.json")
    try:
        metadata = TraceFile(str(beside), beside).document(_Metadata)
    except TraceError:
        # Missing or damaged metadata is ignored.
        return
    if metadata.parent_agent_id is not None:
        stream.parent_id = f"{session.first.session_id or ''}/{metadata.parent_agent_id}"
    caller = sessions_by_id.get(stream.parent_id or "")
    tool = None if caller is None else caller.conversation.tools.get(metadata.tool_use_id or "")
    if tool is not None:
        tool.session_id = stream.session_id
        tool.is_background = tool.is_background or metadata.is_backgrounded is True


def read_qwen_code(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: The file; its `children` are files of sub-agents and branches.
        interner: Shared by all files that are read together.
        scope: Ignored: content hashes are comparable between files.
        rng: Ignored: sub-agents follow their main agent.

    Raises:
        TraceError: A line is not such a record or a file is damaged, and `file.on_skipped` is None.
    """
    del scope, rng
    sessions = [_Session(part) for part in (file, *map(file.sibling, file.children))]
    streams = [session.read() for session in sessions]
    by_id = {stream.session_id: at for at, stream in reversed([*enumerate(streams)])}
    sessions_by_id = {name: sessions[at] for name, at in by_id.items()}
    for at, (session, stream) in enumerate(zip(sessions, streams, strict=True)):
        _add_metadata(session, stream, sessions_by_id)
        if by_id.get(stream.origin_id or "", at) < at:
            drop_copied_calls(stream, streams[by_id[stream.origin_id or ""]])
    link_sub_agents(streams)
    reading = transcript_reading(file, [streams], interner=interner)
    return replace(reading, companions=file.children)
