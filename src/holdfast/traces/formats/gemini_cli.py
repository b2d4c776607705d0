"""Reader of Gemini CLI's chats: a document a session, since 2026 a record a line.

A document holds the messages at its last write. Lines hold each version of a message, rewinds of
the conversation (`$rewindTo`, a fork), and its replacement (`$set` of `messages`, a compaction if
messages are gone).

Known: lengths, cached tokens, tools with the time of each result, models. A prompt's length is
`tokens.input`, cached tokens included; an answer's is `tokens.output` plus `tokens.thoughts`. A
sub-agent's recording is in a directory of its parent's session id, and the parent's call names it.

Assumed: an answer ends at the time of its message. An answer written together with its tools'
results, as older versions do, ends at its last thought; its gap counts as estimated. A message of
the model without a model and tokens is the program's. System message and tools are not recorded;
they fill the part of the first prompt that has no text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.client_files import lies_below
from holdfast.traces.formats.conversation import Conversation, Point, link_sub_agents
from holdfast.traces.formats.gemini_cli_records import ENDINGS, SPEAKERS, Line, Record, Session
from holdfast.traces.formats.gemini_parts import (
    FunctionCall,
    Part,
    messages_of,
    parts_of,
    set_usage,
)
from holdfast.traces.formats.reading import FileLinks, Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import Call, Stream, seconds, transcript_reading
from holdfast.traces.history import Message
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.storage import COMPRESSIONS

__all__ = [
    "LAYOUTS",
    "LINE_LAYOUTS",
    "companions_of",
    "is_auxiliary",
    "links_of",
    "links_of_lines",
    "read_gemini_cli",
    "read_gemini_cli_lines",
]

LAYOUTS = (frozenset({"sessionId", "projectHash", "messages"}),)
"""A document with all of these fields is of this format."""

LINE_LAYOUTS = (frozenset({"sessionId", "projectHash"}),)
"""The first line of a file of lines."""

_HINT = "expected a session {sessionId, messages: [{id, type, timestamp, content, tokens, …}]}"
_LINE_HINT = "expected one record a line: {sessionId, projectHash, …} or {id, type, timestamp, …}"
_CHATS = "chats"
_SUB_AGENT = "subagent"


_RECORD = msgspec.json.Decoder(Record)
_LINE = msgspec.json.Decoder(Line)


@dataclass(slots=True)
class _Entry:
    """A message of the current conversation, and the point after it."""

    record: Record
    point: Point


@dataclass(slots=True)
class _Chat:
    """One recording, built record by record."""

    file: TraceFile
    conversation: Conversation = field(init=False)
    session: Session = field(default_factory=Session)
    entries: list[_Entry] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    # By message id: the call's number, from 1, and the call.
    calls: dict[str, tuple[int, Call]] = field(default_factory=dict)
    start: Point = field(default_factory=Point)
    num_estimated_gaps: int = 0

    def __post_init__(self) -> None:
        self.conversation = Conversation(self.file)

    def stream(self) -> Stream:
        """Return the stream read so far."""
        is_sub_agent = self.session.kind == _SUB_AGENT
        return Stream(
            self.session.session_id or self.file.label,
            "" if is_sub_agent else "main",
            self.conversation.calls,
            parent_id=_parent(self.file) if is_sub_agent else None,
            events=self.conversation.events,
            num_estimated_gaps=self.num_estimated_gaps,
        )

    def read_document(self) -> Stream:
        self.session = self.file.document(Session, hint=_HINT)
        for place, message in enumerate(self.session.messages or ()):
            try:
                self._add_message(self._record(message, f"messages[{place}]"), place)
            except TraceError as error:
                self.file.refuse(error)
        return self.stream()

    def read_lines(self) -> Stream:
        try:
            for number, line in self.file.lines():
                try:
                    self._add_line(number, line)
                except TraceError as error:
                    self.file.refuse(error)
        except TraceError as error:
            self.file.refuse(error)
        return self.stream()

    def _add_line(self, number: int, data: bytes) -> None:
        written = msgspec.Raw(data)
        line = self.file.decode_part(written, _LINE, line=number, field="", hint=_LINE_HINT)
        if line.rewind_to is not None:
            self._rewind(line.rewind_to)
        elif line.id is not None:
            self._add_message(self._record(written, "", number), number)
        elif line.changes is not None:
            self.session = _merged(self.session, line.changes)
            if line.changes.messages is not None:
                self._replace(number, line.changes.messages)
        elif line.session_id is not None:
            self.session = _merged(self.session, line)
            for place, message in enumerate(line.messages or ()):
                self._add_message(self._record(message, f"messages[{place}]", number), place)

    def _record(self, message: msgspec.Raw, field: str, number: int | None = None) -> Record:
        hint = _LINE_HINT if number else _HINT
        return self.file.decode_part(message, _RECORD, line=number, field=field, hint=hint)

    def _add_message(self, record: Record, number: int) -> None:
        """Add a message, or a new version of one."""
        if record.type not in SPEAKERS:
            return
        record.id = record.id or f"message {number}"
        at = self.positions.setdefault(record.id, len(self.entries))
        if at == len(self.entries):
            self.entries.append(_Entry(record, self.start))
        self.entries[at].record = record
        if record.id in self.calls:
            self._update(record, self.calls[record.id][1])
        self._recompute(at)

    def _rewind(self, name: str) -> None:
        at = self.positions.get(name, 0)
        del self.entries[at:]
        self._index()

    def _index(self) -> None:
        self.positions = {entry.record.id or "": at for at, entry in enumerate(self.entries)}

    def _replace(self, number: int, messages: Sequence[msgspec.Raw]) -> None:
        records = [
            self._record(message, f"$set.messages[{place}]", number)
            for place, message in enumerate(messages)
        ]
        records = [record for record in records if record.type in SPEAKERS]
        self.start = Point(num_calls=len(self.conversation.calls))
        if self.positions.keys() - {record.id for record in records}:
            self.start = self.conversation.compact(self.start, (), None)
        self.entries = [_Entry(record, self.start) for record in records]
        self._index()
        self._recompute(0)

    def _recompute(self, at: int) -> None:
        """Recompute the points after each message from index `at` on."""
        point = self.entries[at - 1].point if at else self.start
        for entry in self.entries[at:]:
            point = entry.point = self._after(entry.record, point)

    def _after(self, record: Record, point: Point) -> Point:
        time_s = seconds(record.timestamp)
        if record.type == "user":
            return self._add_input(record, point, time_s)
        answer = self._answer_messages(record)
        if record.id in self.calls:
            num_calls, call = self.calls[record.id]
            history = point.history.then(*answer)
            point = replace(
                point, history=history, time_s=call.end_s, trigger="user", num_calls=num_calls
            )
        elif record.is_call:
            call = Call(model=record.model or "")
            self._update(record, call)
            point = self.conversation.add_call(point, call)
            self.calls[record.id or ""] = (point.num_calls, call)
        else:
            point = point.after_input(answer, time_s)
        return self._add_results(record, point)

    def _add_input(self, record: Record, point: Point, time_s: float | None) -> Point:
        """Add input; skips results that the calls' own records already have."""
        is_result = False
        new: list[Part] = []
        for part in parts_of(record.content):
            response = part.function_response
            is_result = is_result or response is not None
            tool = None if response is None else self.conversation.tools.get(response.id or "")
            if tool is None or tool.end_s is None:
                new.append(part)
            if response is not None and tool is not None and tool.end_s is None:
                tool.end_s = time_s
        messages = messages_of(self.conversation, "user", new)
        return point.after_input(messages, time_s, "tool_result" if is_result else "user")

    def _answer_messages(self, record: Record) -> list[Message]:
        """Return an answer's messages, its text as one: later versions split it."""
        said = [part for part in parts_of(record.content) if not part.thought]
        text = "".join(part.text for part in said if part.text is not None).strip()
        parts = [Part(text=text)] if text else []
        parts += [part for part in said if part.is_media]
        parts += [
            Part(function_call=FunctionCall(call.id, call.name, call.args)) for call in record.calls
        ]
        return list(messages_of(self.conversation, "model", parts))

    def _update(self, record: Record, call: Call) -> None:
        """Update a call from a version of its message."""
        call.answer, call.tools = self._answer_messages(record), []
        call.end_s = self._end_s(record)
        set_usage(call, record.tokens.usage if record.tokens else None)
        for made in record.calls:
            tool = made.as_called_tool(call.end_s)
            tool.session_id = made.agent_id
            if made.status in ENDINGS:
                tool.end_s, tool.is_error = seconds(made.timestamp), ENDINGS[made.status]
            self.conversation.add_tool_call(call, made.id or "", tool)

    def _end_s(self, record: Record) -> float | None:
        """Return the end of an answer; None if not recorded."""
        end_s = seconds(record.timestamp)
        ends = [seconds(call.timestamp) for call in record.tool_calls or ()]
        if end_s is None or not ends or any(end is None or end > end_s for end in ends):
            return end_s
        if record.id not in self.calls:
            self.num_estimated_gaps += 1
        thoughts = [seconds(thought.timestamp) for thought in record.thoughts or ()]
        return max((time for time in thoughts if time is not None), default=end_s)

    def _add_results(self, record: Record, point: Point) -> Point:
        """Add the results of an answer's tools."""
        for call in record.tool_calls or ():
            responses = messages_of(self.conversation, "user", call.responses)
            if call.status in ENDINGS:
                times = [time for time in (point.time_s, seconds(call.timestamp)) if time]
                point = point.after_input(responses, max(times, default=None), "tool_result")
        return point


def _merged(session: Session, changes: Session) -> Session:
    return Session(changes.session_id or session.session_id, changes.kind or session.kind)


def _parent(file: TraceFile) -> str | None:
    """Return the session whose directory holds a sub-agent's recording."""
    directory = Path(file.source).parent
    return directory.name if directory.parent.name == _CHATS else None


def companions_of(path: Path) -> tuple[Path, ...]:
    """Return the older document of a session that is now recorded as lines."""
    base, dot, rest = path.name.partition(".jsonl")
    if not dot or path.parent.name != _CHATS:
        return ()
    names = dict.fromkeys((f"{base}.json{rest}", *(f"{base}.json{end}" for end in COMPRESSIONS)))
    return tuple(document for name in names if (document := path.with_name(name)).is_file())


def is_auxiliary(path: Path) -> bool:
    """Whether Gemini CLI keeps a file beside its sessions that holds none."""
    is_known = path.name == "logs.json" or path.name.startswith("checkpoint")
    if is_known and path.with_name(_CHATS).is_dir():
        return True
    is_session = lies_below(path, _CHATS)
    return path.parent.name == ".gemini" or (lies_below(path, ".gemini", "tmp") and not is_session)


def _links(file: TraceFile, session: Session, agents: Iterator[str]) -> FileLinks:
    is_sub_agent = session.kind == _SUB_AGENT
    parent = _parent(file) if is_sub_agent else None
    return FileLinks(session.session_id or file.name, parent, tuple(dict.fromkeys(agents)))


def _agents(messages: Sequence[msgspec.Raw]) -> Iterator[str]:
    """Yield the sub-agents in tool calls; skips unreadable messages."""
    for message in messages:
        try:
            record = _RECORD.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        for call in record.tool_calls or ():
            if call.agent_id is not None:
                yield call.agent_id


def links_of(file: TraceFile) -> FileLinks:
    """Return a document's session, its parent and its sub-agents.

    Raises:
        TraceError: The file is not such a document.
    """
    session = file.document(Session, hint=_HINT)
    return _links(file, session, _agents(session.messages or ()))


def links_of_lines(file: TraceFile) -> FileLinks:
    """Return the session, the parent and the sub-agents of a file of lines.

    Raises:
        TraceError: The file cannot be read.
    """
    lines = [msgspec.Raw(line) for _, line in file.lines()]
    session = Session()
    for line in lines[:1]:
        session = file.decode_part(line, _LINE, line=1, field="", hint=_LINE_HINT)
    return _links(file, session, _agents(lines))


def read_gemini_cli(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: The file; its `children` are recordings of sub-agents.
        interner: Shared by all files that are read together.
        scope: Ignored: content hashes are comparable between files.
        rng: Ignored: sub-agents follow their main agent.

    Raises:
        TraceError: The file is not such a document, and `file.on_skipped` is None.
    """
    del scope, rng
    return _reading(file, _Chat(file).read_document(), interner)


def read_gemini_cli_lines(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read a recording of lines as `read_gemini_cli` reads a document."""
    del scope, rng
    return _reading(file, _Chat(file).read_lines(), interner)


def _reading(file: TraceFile, main: Stream, interner: PrefixInterner) -> Reading:
    streams = [main]
    for child in map(file.sibling, file.children):
        try:
            chat = _Chat(child)
            is_document = ".jsonl" not in Path(child.source).name
            streams.append(chat.read_document() if is_document else chat.read_lines())
        except TraceError as error:
            child.refuse(error)
    link_sub_agents(streams)
    for stream in streams:
        for call in stream.calls:
            call.head = f"gemini-cli {call.model} {stream.agent}"
    companions = companions_of(Path(file.source))
    reading = transcript_reading(file, [streams], interner=interner)
    return replace(reading, companions=(*companions, *file.children))
