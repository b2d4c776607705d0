"""Entries of Claude Code's session files, each decoded on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from holdfast.errors import TraceError
from holdfast.tool_calls.syntax import ToolCall
from holdfast.tool_calls.tool_kind import tool_kind
from holdfast.traces.formats.quantities import Tokens
from holdfast.traces.formats.reading import FileLinks
from holdfast.traces.formats.trace_file import MAX_PREAMBLE_LINES, TraceFile
from holdfast.traces.formats.transcript import CalledTool, seconds
from holdfast.traces.history import Message

__all__ = ["LAYOUTS", "Entry", "Launch", "Usage", "links_of", "own_name", "read_entries"]

_NOTES = (
    "last-prompt|custom-title|ai-title|agent-name|agent-color|agent-setting|permission-mode|mode|"
    "task-summary|tag|pr-link|worktree-state|content-replacement|attribution-snapshot"
)
LAYOUTS = (
    frozenset({"type", "uuid", "parentUuid", "sessionId", "isSidechain"}),
    frozenset({"type", "uuid", "parentUuid", "sessionId", "message.content"}),
    frozenset({"type", "summary", "leafUuid"}),
    frozenset({"type", "messageId", "snapshot"}),
    frozenset({f"type={_NOTES}", "sessionId"}),
    frozenset({"type=queue-operation", "operation", "timestamp", "sessionId"}),
)
"""An entry of a conversation, and lines that precede the first entry or stand alone."""

_HINT = "expected one entry a line: {type, uuid, parentUuid, sessionId, timestamp, message, …}"
_NOTHING = msgspec.Raw(b"null")
_MEDIA = frozenset({"image", "document"})
_SYNTHETIC = "<synthetic>"
_SPEAKERS = frozenset({"user", "assistant"})
_BOUNDARY = "compact_boundary"
_LAUNCHED = "async_launched"
_SUB_AGENT_FILE = "agent-"
# Its result names the run; the sub-agents' files are in a directory of the run's name.
_WORKFLOW = "Workflow"


class Usage(msgspec.Struct):
    """The provider's counts; uncached, written and read tokens make up a prompt."""

    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None

    @property
    def prompt_tokens(self) -> int:
        """Length of the whole prompt; 0 if not recorded."""
        parts = (self.input_tokens, self.cache_creation_input_tokens, self.cache_read_input_tokens)
        return sum(part or 0 for part in parts)


class _Block(msgspec.Struct, omit_defaults=True):
    """A part of a message: the fields that a model sees."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NOTHING
    tool_use_id: str | None = None
    is_error: bool | None = None
    content: msgspec.Raw = _NOTHING
    source: msgspec.Raw = _NOTHING


class _Message(msgspec.Struct):
    content: str | list[_Block]
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: Usage | None = None


class _Line(msgspec.Struct, rename="camel"):
    type: str = ""
    subtype: str | None = None
    uuid: str | None = None
    parent_uuid: str | None = None
    session_id: str | None = None
    agent_id: str | None = None
    request_id: str | None = None
    version: str | None = None
    timestamp: datetime | None = None
    is_sidechain: bool = False
    is_meta: bool = False
    is_compact_summary: bool = False
    is_api_error_message: bool = False
    message: msgspec.Raw = _NOTHING
    attachment: msgspec.Raw = _NOTHING
    tool_use_result: msgspec.Raw = _NOTHING


_MESSAGE = msgspec.json.Decoder(_Message)
_ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Launch:
    """A tool call that starts a sub-agent.

    Attributes:
        tool_id: The call's id.
        agent: Type of the sub-agent; "" if not recorded.
        opening: Its first input.
    """

    tool_id: str
    agent: str
    opening: Message


@dataclass(slots=True)
class Entry:
    """One entry, its text hashed.

    Attributes:
        uuid, parent_uuid, session_id, agent_id, version, is_sidechain: As recorded, "" for none.
        time_s: Its time in unix seconds; None if not recorded.
        is_answer: Whether the model wrote it; otherwise its messages are input.
        is_automatic: Whether the program wrote it without the user.
        is_compaction: Whether a summary replaces the history here.
        messages: Its parts; empty for entries that only the program uses.
        answer_id: Equal for all entries of one answer.
        model, stop, usage: Of an answer.
        tools: Tool calls of an answer, with their ids.
        launches: Tool calls that start sub-agents.
        results: By call id, whether its result is an error.
        returned: Names of the sub-agents whose start or result this is, and the call's id; None for
            other entries.
        is_launched: Whether that sub-agent continues in the background.
    """

    uuid: str
    parent_uuid: str
    session_id: str
    agent_id: str
    version: str
    is_sidechain: bool
    time_s: float | None
    is_answer: bool = False
    is_automatic: bool = False
    is_compaction: bool = False
    messages: list[Message] = field(default_factory=list)
    answer_id: str = ""
    model: str = ""
    stop: str | None = None
    usage: Usage | None = None
    tools: list[tuple[str, CalledTool]] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    results: dict[str, bool] = field(default_factory=dict)
    returned: tuple[list[str], str] | None = None
    is_launched: bool = False


def read_entries(file: TraceFile) -> Iterator[Entry]:
    """Yield the entries that have an id.

    With `file.on_skipped`, an entry with a wrong message is yielded without it, so that its
    children keep their history.

    Raises:
        TraceError: A line is not such an entry, and `file.on_skipped` is None.
    """
    for number, line in file.decode(_Line, hint=_HINT):
        if line.uuid is not None:
            entry = _entry(line, line.uuid)
            try:
                _add_message(entry, line, file, number)
            except TraceError as error:
                file.refuse(error)
                entry = _entry(line, line.uuid)
            yield entry
        elif line.type in _SPEAKERS:
            file.refuse(file.error("expected an id", line=number, field="uuid", hint=_HINT))


def links_of(file: TraceFile) -> FileLinks | None:
    """Return the session or sub-agent of a file; None if no entry names one.

    The file name identifies a sub-agent's file: a session's file may begin with a sub-agent, too.

    Raises:
        TraceError: A line before the first entry is not Claude Code's.
    """
    names: list[str] = []
    for _, line in islice(file.decode(_Line, hint=_HINT), MAX_PREAMBLE_LINES):
        if line.uuid is None or line.session_id is None:
            continue
        if not names and line.is_sidechain and file.name.startswith(_SUB_AGENT_FILE):
            return FileLinks(f"{line.session_id}/{line.agent_id or file.name}", line.session_id)
        names.append(line.session_id)
    return FileLinks(own_name(file, names)) if names else None


def own_name(file: TraceFile, names: Sequence[str]) -> str:
    """Return a file's session id, given those of its entries; "" for none. Pure.

    A resumed session's file may begin with entries of the earlier session, but has its own name.
    """
    return file.name if file.name in names else next(iter(names), "")


def _entry(line: _Line, uuid: str) -> Entry:
    """Return a line's entry without its message."""
    return Entry(
        uuid=uuid,
        parent_uuid=line.parent_uuid or "",
        session_id=line.session_id or "",
        agent_id=line.agent_id or "",
        version=line.version or "",
        is_sidechain=line.is_sidechain,
        time_s=seconds(line.timestamp),
        is_automatic=line.is_meta or line.type == "attachment",
        is_compaction=line.is_compact_summary or line.subtype == _BOUNDARY,
    )


def _add_message(entry: Entry, line: _Line, file: TraceFile, number: int) -> None:
    """Add a line's message to its entry."""
    if line.type == "attachment":
        entry.messages.append(Message.of("user", line.attachment, keeps_text=file.keeps_text))
    if line.type not in _SPEAKERS:
        return
    message = file.decode_part(line.message, _MESSAGE, line=number, field="message", hint=_HINT)
    if line.is_api_error_message or message.model == _SYNTHETIC:
        return
    content = message.content
    blocks = [_Block("text", text=content)] if isinstance(content, str) else content
    entry.messages = [
        Message.of(line.type, block, is_media=block.type in _MEDIA, keeps_text=file.keeps_text)
        for block in blocks
    ]
    if line.type == "user":
        entry.results = {
            block.tool_use_id or "": block.is_error is True
            for block in blocks
            if block.type == "tool_result"
        }
        values = {
            name: _text(line.tool_use_result, name, file, number, "toolUseResult")
            for name in ("agentId", "runId", "transcriptDir", "status")
        }
        entry.is_launched = values.pop("status") == _LAUNCHED
        names = [name.rstrip("/").rpartition("/")[2] for name in values.values() if name]
        if entry.results and names:
            entry.returned = (list(dict.fromkeys(names)), next(iter(entry.results)))
        return
    entry.is_answer = True
    entry.answer_id = message.id or line.request_id or entry.uuid
    entry.model = message.model or ""
    entry.stop, entry.usage = message.stop_reason, message.usage
    for block in blocks:
        if block.type == "tool_use":
            call = ToolCall(block.name or "", bytes(block.input).decode(errors="replace"))
            entry.tools.append((block.id or "", CalledTool.of(call, entry.time_s)))
            if tool_kind(call.name) == "sub_agent" or call.name == _WORKFLOW:
                entry.launches.append(_launch(block, file, number))


def _launch(block: _Block, file: TraceFile, number: int) -> Launch:
    where = "message.content.input"
    agent = _text(block.input, "subagent_type", file, number, where)
    opening = _text(block.input, "prompt", file, number, where)
    opening_message = Message.of("user", _Block("text", text=opening or ""))
    return Launch(block.id or "", agent or "", opening_message)


def _text(value: msgspec.Raw, name: str, file: TraceFile, number: int, where: str) -> str | None:
    """Return a text field of a value; None if it has no such field."""
    decoded = file.decode_part(value, _ANYTHING, line=number, field=where)
    text = decoded.get(name) if isinstance(decoded, dict) else None
    return text if isinstance(text, str) else None
