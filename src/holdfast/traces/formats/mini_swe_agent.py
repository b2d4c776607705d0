"""Reader of mini-swe-agent's trajectories: one run a document.

Known: all messages, the commands, and since version 1.14 the provider's usage in each answer's
response. Without usage lengths are estimated. A prompt's length includes its cached tokens, an
answer's its reasoning. Newer versions record the time of each message.

Assumed: a message without a response is an answer if it has the model's role. Without a list of
actions, the single block of shell code in an answer is its command. An answer that the program
could not use is recorded only as a response, and no later prompt repeats it.
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

__all__ = ["LAYOUTS", "is_auxiliary", "read_mini_swe_agent"]

LAYOUTS = (frozenset({"trajectory_format=mini-swe-agent*", "messages"}),)
"""A document with all of these fields is of this format."""

_HINT = "expected one run: {info, messages: [{role, content, …}], trajectory_format}"
_NOTHING = msgspec.Raw(b"null")
_SHELL = "bash"
_Value = TypeVar("_Value")
_CODE = re.compile(r"```(?:bash|sh|mswea_bash_command)\s*\n(.*?)\n```", re.DOTALL)
# Stop reason of an answer without a command: the program asks again.
_UNUSABLE = "unusable"
_RESULTS = frozenset({"user", "tool"})


class _Details(msgspec.Struct):
    cached_tokens: Tokens | None = None


class _Usage(msgspec.Struct):
    """Usage with the names of either of OpenAI's APIs."""

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
    def seen(self) -> list[Any]:
        """The fields that a model sees."""
        fields = (self.content, self.reasoning_content, self.tool_calls, self.output)
        return [self.tool_call_id or self.call_id, *fields]


class _Trajectory(msgspec.Struct):
    messages: list[msgspec.Raw]
    info: msgspec.Raw = _NOTHING
    instance_id: str | None = None


_MESSAGE = msgspec.json.Decoder(_Message)
_RESPONSE = msgspec.json.Decoder(_Response)
_ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


class _Run:
    """A trajectory, built message by message."""

    def __init__(self, file: TraceFile) -> None:
        self._file = file
        self._conversation = Conversation(file)
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
                self._add_message(message, self._response(message, place))
            except TraceError as error:
                self._file.refuse(error)
        for call in self._conversation.calls:
            call.head = f"mini-swe-agent {call.model}"
        return Stream(self._name(), "main", self._conversation.calls)

    def _name(self) -> str:
        """Return BATCH/INSTANCE: several batches may run one instance."""
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
        """Return a provider's response; None if not recorded as an object."""
        if message.object == "response":
            return _Response(message.usage, message.model)
        written = _NOTHING if message.extra is None else message.extra.response
        if bytes(memoryview(written)[:1]) != b"{":
            return None
        return self._part(written, _RESPONSE, f"messages[{place}].extra.response")

    def _add_message(self, message: _Message, response: _Response | None) -> None:
        messages = [self._conversation.message(message.role or "", message.seen)]
        if message.is_answer:
            self._add_answer(message, response, messages)
            return
        if response is not None:
            # The unusable answer that this message rejects.
            self._add_answer(message, response, [])
        self._is_whole = self._is_whole or message.role == "system"
        if message.is_result or message.role == "system":
            self._add_input(message, messages)

    def _add_answer(
        self, message: _Message, response: _Response | None, messages: list[Message]
    ) -> None:
        response = response or _Response()
        call = Call(
            is_whole=self._is_whole,
            model=response.model or self._model,
            end_s=message.time_s,
            answer=messages,
            stop=_UNUSABLE,
        )
        _set_usage(call, response.usage or _Usage())
        if messages:
            for action in self._actions(message):
                tool = CalledTool.of(
                    ToolCall(_SHELL, msgspec.json.encode({"command": action.command}).decode()),
                    message.time_s,
                )
                self._conversation.add_tool_call(call, action.tool_call_id or "", tool)
        self._pending = list(call.tools)
        self._point = self._conversation.add_call(self._point, call, is_kept=bool(messages))

    def _actions(self, message: _Message) -> Sequence[_Action]:
        """Return an answer's commands."""
        if message.extra is not None and message.extra.actions is not None:
            return message.extra.actions
        content = self._part(message.content, _ANYTHING, "content")
        found = [code for text in _texts(content) for code in _CODE.findall(text)]
        return [_Action(found[0])] if len(found) == 1 else ()

    def _add_input(self, message: _Message, messages: list[Message]) -> None:
        is_result = bool(self._pending)
        tool = self._conversation.tools.get(message.tool_call_id or message.call_id or "")
        for ended in self._pending if tool is None else [tool]:
            ended.end_s = message.time_s
            code = None if message.extra is None else message.extra.returncode
            ended.is_error = code != 0 if isinstance(code, int) else None
        if tool is None:
            self._pending = []
        self._point = self._point.after_input(
            messages, message.time_s, "tool_result" if is_result else "user"
        )


def _set_usage(call: Call, usage: _Usage) -> None:
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


def is_auxiliary(path: Path) -> bool:
    """Whether a file holds the patches of a batch, beside the batch's runs."""
    return path.name == "preds.json" and any(path.parent.glob("*/*.traj.json*"))


def read_mini_swe_agent(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: UTF-8 JSON.
        interner: Shared by all files that are read together.
        scope: Ignored: content hashes are comparable between files.
        rng: Ignored: a document holds one session.

    Raises:
        TraceError: The file is not such a document, and `file.on_skipped` is None.
    """
    del scope, rng
    return transcript_reading(file, [[_Run(file).read()]], interner=interner)
