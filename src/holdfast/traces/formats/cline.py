"""Reader of Cline's sessions since version 4: one document a session.

Known: lengths, cached tokens, tools with the time of each result, models. A sub-agent's session
id begins with its main agent's (`MAIN__AGENT`).

Assumed: the time of a model's message is the end of its answer. A prompt's length is
`inputTokens`, cached tokens included, unless it is less than the cached tokens. Tools are not
recorded; they fill the part of the first prompt that has no text. A compacted history is in
another file and shows only in the next prompt's length.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from holdfast.errors import TraceError
from holdfast.tool_calls.syntax import ToolCall
from holdfast.traces.formats.client_files import lies_below
from holdfast.traces.formats.conversation import Conversation, Point
from holdfast.traces.formats.quantities import Milliseconds, Tokens
from holdfast.traces.formats.reading import FileLinks, Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import Call, CalledTool, Stream, transcript_reading
from holdfast.traces.history import Message
from holdfast.traces.lineage import PrefixInterner

__all__ = ["LAYOUTS", "is_auxiliary", "links_of", "read_cline"]

LAYOUTS = (frozenset({"version", "sessionId", "messages", "agent=lead|subagent|teammate"}),)
"""A document with all of these fields is of this format."""

_HINT = "expected one session: {version, sessionId, agent, messages: [{role, content, ts, …}]}"
_NOTHING = msgspec.Raw(b"null")
_MEDIA = frozenset({"image", "document"})
_MESSAGES = ".messages.json"
_MAIN = "lead"


class _Metrics(msgspec.Struct, rename="camel"):
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cache_read_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None

    @property
    def prompt_tokens(self) -> int:
        cached = (self.cache_read_tokens or 0) + (self.cache_write_tokens or 0)
        prompt = self.input_tokens or 0
        return prompt if cached <= prompt else prompt + cached


class _Block(msgspec.Struct, omit_defaults=True):
    """A part of a message: the fields that a model sees."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    path: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NOTHING
    tool_use_id: str | None = None
    is_error: bool | None = None
    content: msgspec.Raw = _NOTHING
    source: msgspec.Raw = _NOTHING
    data: msgspec.Raw = _NOTHING


class _Model(msgspec.Struct):
    id: str | None = None
    provider: str | None = None


class _Message(msgspec.Struct, rename={"model": "modelInfo"}):
    role: str | None = None
    content: str | list[_Block] | None = None
    ts: Milliseconds | None = None
    model: _Model | None = None
    metrics: _Metrics | None = None

    @property
    def blocks(self) -> list[_Block]:
        if isinstance(self.content, str):
            return [_Block("text", text=self.content)]
        return self.content or []

    @property
    def time_s(self) -> float | None:
        return None if self.ts is None else self.ts / 1000


class _Head(msgspec.Struct, rename={"session_id": "sessionId"}):
    session_id: str | None = None
    agent: str | None = None

    @property
    def parent_id(self) -> str | None:
        """The main agent's session; None for that session itself."""
        main, divider, _ = (self.session_id or "").partition("__")
        return main if divider and self.agent != _MAIN else None


class _Session(_Head, kw_only=True):
    messages: list[msgspec.Raw]
    system_prompt: str | None = None


_MESSAGE = msgspec.json.Decoder(_Message)
_ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class _Chat:
    """A session, built message by message."""

    def __init__(self, file: TraceFile) -> None:
        self._file = file
        self._conversation = Conversation(file)
        self._point = Point()

    def read(self) -> Stream:
        session = self._file.document(_Session, hint=_HINT)
        if session.system_prompt:
            messages = self._conversation.message("system", session.system_prompt)
            self._point = self._point.after_input([messages], None)
        for place, written in enumerate(session.messages):
            field = f"messages[{place}]"
            try:
                message = self._file.decode_part(
                    written, _MESSAGE, line=None, field=field, hint=_HINT
                )
                self._add_message(message)
            except TraceError as error:
                self._file.refuse(error)
        agent = "main" if session.agent == _MAIN else session.agent or ""
        for call in self._conversation.calls:
            call.head = f"cline {call.head} {agent}"
        return Stream(
            session.session_id or self._file.name,
            agent,
            self._conversation.calls,
            parent_id=session.parent_id,
        )

    def _add_message(self, message: _Message) -> None:
        messages = list(self._messages(message))
        if message.role == "assistant":
            self._add_answer(message, messages)
            return
        results = [block for block in message.blocks if block.type == "tool_result"]
        for block in results:
            is_error = block.is_error is True
            self._conversation.note_tool_result(
                block.tool_use_id or "", message.time_s, is_error=is_error
            )
        self._point = self._point.after_input(
            messages, message.time_s, "tool_result" if results else "user"
        )

    def _add_answer(self, message: _Message, messages: list[Message]) -> None:
        metrics, model = message.metrics or _Metrics(), message.model or _Model()
        call = Call(
            head=f"{model.provider or ''}/{model.id or ''}",
            model=model.id or "",
            end_s=message.time_s,
            answer=messages,
        )
        if metrics.prompt_tokens:
            call.prompt_tokens = metrics.prompt_tokens
            call.cached_tokens = metrics.cache_read_tokens
            call.output_tokens = metrics.output_tokens
        for block in message.blocks:
            if block.type == "tool_use":
                tool_call = ToolCall(block.name or "", self._arguments(block.input))
                self._conversation.add_tool_call(
                    call, block.id or "", CalledTool.of(tool_call, message.time_s)
                )
        self._point = self._conversation.add_call(self._point, call)

    def _arguments(self, written: msgspec.Raw) -> str:
        """Return a tool call's arguments; several commands in one call are one script."""
        value = self._file.decode_part(written, _ANYTHING, line=None, field="input", hint=_HINT)
        commands = value.get("commands") if isinstance(value, dict) else None
        if not isinstance(commands, list):
            return bytes(written).decode(errors="replace")
        script = "\n".join(command for command in commands if isinstance(command, str))
        return msgspec.json.encode({"command": script}).decode()

    def _messages(self, message: _Message) -> Iterator[Message]:
        for block in message.blocks:
            yield self._conversation.message(
                message.role or "", block, is_media=block.type in _MEDIA
            )


def is_auxiliary(path: Path) -> bool:
    """Whether Cline keeps a file beside its sessions that holds none."""
    if _MESSAGES in path.name:
        return False
    is_beside = path.with_name(f"{path.parent.name}{_MESSAGES}").is_file()
    return is_beside or lies_below(path, ".cline", "data")


def links_of(file: TraceFile) -> FileLinks:
    """Return the session of a document, and its parent.

    Raises:
        TraceError: The file is not such a document.
    """
    head = file.document(_Head, hint=_HINT)
    return FileLinks(head.session_id or file.name, head.parent_id)


def read_cline(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: UTF-8 JSON; its `children` are sub-agents' sessions.
        interner: Shared by all files that are read together.
        scope: Ignored: content hashes are comparable between files.
        rng: Ignored: sub-agents follow their main agent.

    Raises:
        TraceError: The file is not such a document, and `file.on_skipped` is None.
    """
    del scope, rng
    streams = [_Chat(file).read(), *_children(file)]
    reading = transcript_reading(file, [streams], interner=interner)
    return replace(reading, companions=file.children)


def _children(file: TraceFile) -> Sequence[Stream]:
    found: list[Stream] = []
    for child in map(file.sibling, file.children):
        try:
            found.append(_Chat(child).read())
        except TraceError as error:
            child.refuse(error)
    return found
