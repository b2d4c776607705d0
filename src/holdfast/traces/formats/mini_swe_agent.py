"""Reader of mini-swe-agent's trajectories: one run a document, with all messages of its chat.

Known: everything that was said, the commands, and from version 1.14 on what the provider counted
of each answer, in its response. Without that lengths are estimated. A prompt's length includes what
came from the cache, an answer's its reasoning. Newer versions record when each message was made.

Assumed: a message without a response is an answer if the model's role says so. Where no list of
actions is recorded, the one block of shell code in an answer is the command that was run. An answer
that the program could not use is only known by its response, and no later prompt repeats it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from holdfast.errors import TraceError
from holdfast.tool_calls.syntax import ToolCall
from holdfast.traces.formats.conversation import Conversation, Point
from holdfast.traces.formats.quantities import Seconds, Tokens
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import Call, CalledTool, Stream, transcript_reading
from holdfast.traces.history import Message
from holdfast.traces.lineage import PrefixInterner

__all__ = ["LAYOUTS", "is_aside", "read_mini_swe_agent"]

LAYOUTS = (frozenset({"trajectory_format=mini-swe-agent*", "messages"}),)
"""A document with all of these fields is of this format."""

_HINT = "expected one run: {info, messages: [{role, content, …}], trajectory_format}"
_NOTHING = msgspec.Raw(b"null")
_SHELL = "bash"
_Value = TypeVar("_Value")
_CODE = re.compile(r"```(?:bash|sh|mswea_bash_command)\s*\n(.*?)\n```", re.DOTALL)
# What an answer ends with that runs no command: the program asks again.
_UNUSABLE = "unusable"
_RESULTS = frozenset({"user", "tool"})


class _Details(msgspec.Struct):
    cached_tokens: Tokens | None = None


class _Usage(msgspec.Struct):
    """In the words of either API of OpenAI's."""

    prompt_tokens: Tokens | None = None
    input_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None


class _Response(msgspec.Struct):
    usage: _Usage | None = None
    model: str | None = None


class _Action(msgspec.Struct):
    command: str | None = None
    tool_call_id: str | None = None


class _Extra(msgspec.Struct):
    actions: list[_Action] | None = None
    response: msgspec.Raw = _NOTHING
    timestamp: Seconds | None = None
    returncode: Any = None


class _Message(msgspec.Struct):
    role: str | None = None
    type: str | None = None
    object: str | None = None
    content: msgspec.Raw = _NOTHING
    reasoning_content: msgspec.Raw = _NOTHING
    tool_calls: msgspec.Raw = _NOTHING
    tool_call_id: str | None = None
    call_id: str | None = None
    output: msgspec.Raw = _NOTHING
    usage: _Usage | None = None
    model: str | None = None
    timestamp: Seconds | None = None
    extra: _Extra | None = None

    @property
    def is_answer(self) -> bool:
        return self.role == "assistant" or self.object == "response"

    @property
    def is_result(self) -> bool:
        return self.type == "function_call_output" or self.role in _RESULTS

    @property
    def time_s(self) -> float | None:
        return self.timestamp if self.extra is None else self.extra.timestamp or self.timestamp

    @property
    def said(self) -> list[Any]:
        """All of it that a model sees."""
        seen = (self.content, self.reasoning_content, self.tool_calls, self.output)
        return [self.tool_call_id or self.call_id, *seen]


class _Trajectory(msgspec.Struct):
    messages: list[msgspec.Raw]
    info: msgspec.Raw = _NOTHING
    instance_id: str | None = None


_MESSAGE = msgspec.json.Decoder(_Message)
_RESPONSE = msgspec.json.Decoder(_Response)
_ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class _Run:
    """A trajectory, put together message by message."""

    def __init__(self, file: TraceFile) -> None:
        self._file = file
        self._talk = Conversation(file)
        self._trajectory = file.document(_Trajectory, hint=_HINT)
        self._model = self._configured_model()
        self._point = Point()
        # Whether the system message is among the messages.
        self._is_whole = False
        self._pending: list[CalledTool] = []

    def read(self) -> Stream:
        for place, written in enumerate(self._trajectory.messages):
            try:
                message = self._part(written, _MESSAGE, f"messages[{place}]")
                self._add(message, self._response(message, place))
            except TraceError as error:
                self._file.refuse(error)
        for call in self._talk.calls:
            call.head = f"mini-swe-agent {call.model}"
        return Stream(self._name(), "main", self._talk.calls)

    def _name(self) -> str:
        """The instance, behind the batch that it was run in: others have it as well."""
        name = self._trajectory.instance_id or self._file.name
        directory = Path(self._file.source).parent
        batch = directory.parent.name if directory.name == name else directory.name
        return f"{batch}/{name}" if batch else name

    def _part(self, part: msgspec.Raw, decoder: msgspec.json.Decoder[_Value], field: str) -> _Value:
        return self._file.decode_part(part, decoder, line=None, field=field, hint=_HINT)

    def _configured_model(self) -> str:
        info = self._part(self._trajectory.info, _ANYTHING, "info")
        for name in ("config", "model", "model_name"):
            info = info.get(name) if isinstance(info, dict) else info
        return info if isinstance(info, str) else ""

    def _response(self, message: _Message, place: int) -> _Response | None:
        """What a provider answered; None where it is not recorded, or only as text."""
        if message.object == "response":
            return _Response(message.usage, message.model)
        written = _NOTHING if message.extra is None else message.extra.response
        if bytes(memoryview(written)[:1]) != b"{":
            return None
        return self._part(written, _RESPONSE, f"messages[{place}].extra.response")

    def _add(self, message: _Message, response: _Response | None) -> None:
        said = [self._talk.message(message.role or "", message.said)]
        if message.is_answer:
            self._answer(message, response, said)
            return
        if response is not None:
            # The answer that this message complains about.
            self._answer(message, response, [])
        self._is_whole = self._is_whole or message.role == "system"
        if message.is_result or message.role == "system":
            self._hear(message, said)

    def _answer(self, message: _Message, response: _Response | None, said: list[Message]) -> None:
        response = response or _Response()
        call = Call(
            is_whole=self._is_whole,
            model=response.model or self._model,
            end_s=message.time_s,
            answer=said,
            stop=_UNUSABLE,
        )
        _use(call, response.usage or _Usage())
        if said:
            for action in self._actions(message):
                tool = CalledTool.of(
                    ToolCall(_SHELL, msgspec.json.encode({"command": action.command}).decode()),
                    message.time_s,
                )
                self._talk.called(call, action.tool_call_id or "", tool)
        self._pending = list(call.tools)
        self._point = self._talk.answered(self._point, call, is_kept=bool(said))

    def _actions(self, message: _Message) -> Sequence[_Action]:
        """The commands that an answer runs."""
        if message.extra is not None and message.extra.actions is not None:
            return message.extra.actions
        content = self._part(message.content, _ANYTHING, "content")
        found = [code for text in _texts(content) for code in _CODE.findall(text)]
        return [_Action(found[0])] if len(found) == 1 else ()

    def _hear(self, message: _Message, said: list[Message]) -> None:
        is_result = bool(self._pending)
        tool = self._talk.tools.get(message.tool_call_id or message.call_id or "")
        for ended in self._pending if tool is None else [tool]:
            ended.end_s = message.time_s
            code = None if message.extra is None else message.extra.returncode
            ended.is_error = code != 0 if isinstance(code, int) else None
        if tool is None:
            self._pending = []
        self._point = self._point.heard(
            said, message.time_s, "tool_result" if is_result else "user"
        )


def _use(call: Call, usage: _Usage) -> None:
    details = usage.prompt_tokens_details or usage.input_tokens_details or _Details()
    call.prompt_tokens = usage.prompt_tokens or usage.input_tokens
    if call.prompt_tokens:
        call.cached_tokens = details.cached_tokens
        call.output_tokens = usage.completion_tokens or usage.output_tokens


def _texts(content: Any) -> Iterator[str]:
    for part in content if isinstance(content, list) else [content]:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            yield text


def is_aside(path: Path) -> bool:
    """Whether a file holds the patches of a batch of runs, which lie beside it."""
    return path.name == "preds.json" and any(path.parent.glob("*/*.traj.json*"))


def read_mini_swe_agent(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one run; taking its session adds its chain to `interner`.

    Args:
        file: UTF-8 JSON.
        interner: Shared by the files of one reading.
        scope: Not needed: content is comparable between files.
        rng: Not needed: a document holds one session.

    Raises:
        TraceError: It is no such document, and nothing may be left out.
    """
    del scope, rng
    return transcript_reading(file, [[_Run(file).read()]], interner=interner)
