"""Reader of OpenTelemetry GenAI spans: one span a model call, inside spans of agents.

Known: when each call was sent and answered, lengths (of a prompt with what came from a cache, of an
answer with its reasoning), who called whom and when that ended, and where instrumentation records
content the whole prompt of every call. An agent that was called is closed when its span ends.

Assumed: without content a prompt that is not shorter than the same agent's last one continues
it, and a shorter one shares nothing. The first then shares with other sessions of its model and
agent what the provider read from its cache.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdfast.core.tool_syntax import ToolCall
from holdfast.errors import TraceError
from holdfast.traces.formats.decoding import convert_json, decode_json, within
from holdfast.traces.formats.otel_spans import Attributes, Span, read_span_lines, read_spans
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import (
    Call,
    CalledTool,
    Happening,
    Stream,
    transcript_reading,
)
from holdfast.traces.history import EMPTY_HISTORY, Message, bytes_of_tokens
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Trigger

__all__ = ["LAYOUTS", "read_otel", "read_otel_lines"]

LAYOUTS = (frozenset({"resourceSpans"}), frozenset({"spans[].trace_id"}))
"""An object with one of these fields is an export of spans."""

_CALLS = frozenset({"chat", "text_completion", "generate_content"})
_AGENT = "invoke_agent"
_RESULT_PARTS = frozenset({"tool_call_response", "tool_result"})
_CALL_PARTS = frozenset({"tool_call", "tool_use"})
_NOT_RECORDED = "not recorded"
_MESSAGES = msgspec.json.Decoder(list[dict[str, Any]])
_ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


@dataclass(slots=True)
class _Agent:
    """One agent's calls; `root` is the name of the outermost agent that it worked for.

    `span` is the call of an agent that works for another one.
    """

    stream: Stream
    root: str
    span: Span | None = None
    spans: list[Span] = field(default_factory=list)


class _Trace:
    """The spans of a file, and the agents that they show."""

    def __init__(self, file: TraceFile, spans: Iterable[Span]) -> None:
        self._file = file
        self._spans = {(span.trace_id, span.span_id): span for span in spans}
        self._agents: dict[str, _Agent] = {}

    def families(self) -> list[list[Stream]]:
        """Each outermost agent's stream, then those of the agents that worked for it."""
        calls = [span for span in self._spans.values() if _is_call(span.attributes)]
        for span in sorted(calls, key=lambda span: span.start_s):
            self._agent(span).spans.append(span)
        for agent in self._agents.values():
            agent.stream.calls = list(self._calls(agent.spans))
        for agent in self._agents.values():
            self._end(agent)
        families: dict[str, list[Stream]] = {}
        for agent in sorted(
            self._agents.values(), key=lambda agent: agent.stream.session_id != agent.root
        ):
            families.setdefault(agent.root, []).append(agent.stream)
        return list(families.values())

    def _agent(self, span: Span) -> _Agent:
        invocations = [at for at in self._above(span) if at.attributes.operation == _AGENT]
        said = [at.attributes for at in (span, *invocations)]
        whole = next((at.conversation for at in reversed(said) if at.conversation), span.trace_id)
        outermost = said[-1]
        label = outermost.agent_name or outermost.agent_id or ""
        root = "/".join(
            part for part in (self._file.name, whole, outermost.agent_id or label) if part
        )
        agent = self._agents.setdefault(root, _Agent(Stream(root, label), root))
        for invocation in reversed(invocations[:-1]):
            name = f"{agent.stream.session_id}/{invocation.span_id}"
            if name not in self._agents:
                started = [at.end_s <= invocation.start_s for at in agent.spans]
                stream = Stream(
                    name,
                    invocation.attributes.agent_name or invocation.attributes.agent_id or "",
                    parent_id=agent.stream.session_id,
                    parent_turn=sum(started) - 1 if any(started) else None,
                )
                self._agents[name] = _Agent(stream, root, invocation)
            agent = self._agents[name]
        return agent

    def _end(self, agent: _Agent) -> None:
        """Find out what followed the end of an agent that works for another one."""
        stream, span = agent.stream, agent.span
        if span is None:
            return
        stream.events.append(Happening("close", len(stream.calls), span.end_s))
        calls = self._agents[stream.parent_id or ""].stream.calls
        begun = [(call.start_s or 0.0) >= span.start_s for call in calls]
        following = begun.index(True) if True in begun else len(calls)
        # A parent that went on before did not wait.
        if following < len(calls) and (calls[following].start_s or 0.0) >= span.end_s:
            stream.join_turn = following

    def _above(self, span: Span) -> Iterator[Span]:
        """The spans around one, innermost first; a circle ends where it closes."""
        seen = {span.span_id}
        while (found := self._spans.get((span.trace_id, span.parent_id))) is not None:
            if found.span_id in seen:
                return
            seen.add(found.span_id)
            span = found
            yield span

    def _calls(self, spans: list[Span]) -> Iterator[Call]:
        before: Call | None = None
        for span in spans:
            try:
                before = _call(span, before, keeps_text=self._file.keeps_text)
            except TraceError as error:
                self._file.refuse(error)
            else:
                yield before


def _is_call(attributes: Attributes) -> bool:
    if attributes.operation is not None:
        return attributes.operation in _CALLS
    tokens = (attributes.input_tokens, attributes.prompt_tokens)
    return attributes.input_messages is not None or any(count is not None for count in tokens)


def _call(span: Span, before: Call | None, *, keeps_text: bool) -> Call:
    said = span.attributes
    output = _messages(span, "gen_ai.output.messages", said.output_messages)
    call = Call(
        model=said.model or "",
        start_s=span.start_s,
        end_s=span.end_s,
        prompt_tokens=said.prompt_tokens if said.input_tokens is None else said.input_tokens,
        cached_tokens=said.cached_tokens,
        output_tokens=(
            said.completion_tokens if said.output_tokens is None else said.output_tokens
        ),
        answer=[Message.of(_role(each), each, keeps_text=keeps_text) for each in output],
        stop=_stop(said, output),
        tools=[CalledTool.of(tool) for message in output for tool in _tool_calls(message)],
    )
    if said.input_messages is None:
        _continue(call, before, span)
        return call
    call.head, call.is_whole = f"otel {said.model or ''}", True
    messages = _messages(span, "gen_ai.input.messages", said.input_messages)
    for value in (said.tool_definitions, said.system_instructions):
        if value is not None:
            call.prompt = call.prompt.then(Message.of("system", value, keeps_text=keeps_text))
    call.prompt = call.prompt.then(
        *(Message.of(_role(each), each, keeps_text=keeps_text) for each in messages)
    )
    call.trigger = _trigger(messages)
    return call


def _role(message: dict[str, Any]) -> str:
    role = message.get("role")
    return role if isinstance(role, str) else ""


def _continue(call: Call, before: Call | None, span: Span) -> None:
    """Give a call whose prompt was not recorded one that goes by its length."""
    said = span.attributes
    num_tokens = call.prompt_tokens or 0
    call.head = f"otel {said.model or ''} {said.agent_name or ''} by length"
    past = EMPTY_HISTORY
    if before is not None:
        call.trigger = "tool_result" if before.ended_by == "tool" else "user"
        if num_tokens >= (before.prompt_tokens or 0):
            past = before.prompt
    num_bytes = bytes_of_tokens(max(0, num_tokens - (call.cached_tokens or 0)))
    unseen = Message.of(span.trace_id, span.span_id)
    call.prompt = past.then(Message(unseen.digest, num_bytes))


def _messages(span: Span, name: str, value: Any) -> list[dict[str, Any]]:
    """Messages, which some record as a list and others as its text."""
    error_maker = within(f"attributes.{name}", span.error_maker)
    if isinstance(value, str):
        return decode_json(value.encode(), _MESSAGES, error_maker)
    return [] if value is None else convert_json(value, list[dict[str, Any]], error_maker)


def _parts(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("parts", "content", "tool_calls"):
        parts = message.get(name)
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                yield {"type": "tool_call"} | part if name == "tool_calls" else part


def _trigger(messages: list[dict[str, Any]]) -> Trigger:
    if not messages:
        return "user"
    is_result = messages[-1].get("role") == "tool" or any(
        part.get("type") in _RESULT_PARTS for part in _parts(messages[-1])
    )
    return "tool_result" if is_result else "user"


def _stop(said: Attributes, output: list[dict[str, Any]]) -> str | None:
    reasons = said.finish_reasons
    if reasons:
        return reasons if isinstance(reasons, str) else reasons[-1]
    recorded = [message.get("finish_reason") for message in output]
    if recorded and isinstance(recorded[-1], str):
        return recorded[-1]
    return None if output else _NOT_RECORDED


def _tool_calls(message: dict[str, Any]) -> Iterator[ToolCall]:
    for part in _parts(message):
        if part.get("type") not in (*_CALL_PARTS, "function"):
            continue
        function = part.get("function")
        call = function if isinstance(function, dict) else part
        name, arguments = call.get("name"), call.get("arguments", call.get("input"))
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        if isinstance(name, str):
            yield ToolCall(name, arguments)


def read_otel(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read a document of spans; taking its sessions adds their chains to `interner`.

    Args:
        file: OTLP as JSON, or inference-perf's plain spans.
        interner: Shared by the files of one reading.
        scope: Not needed: content is comparable between files.
        rng: Shuffles the outermost agents' sessions, the others staying behind them; None keeps
            the order of their first calls.

    Raises:
        TraceError: It is no such export.
    """
    del scope
    return _reading(file, read_spans(file), interner, rng)


def read_otel_lines(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read a file with one export a line; as `read_otel`."""
    del scope
    return _reading(file, read_span_lines(file), interner, rng)


def _reading(
    file: TraceFile, spans: Iterable[Span], interner: PrefixInterner, rng: random.Random | None
) -> Reading:
    try:
        families = _Trace(file, spans).families()
    except RecursionError:
        # From Python 3.12 on decoders written in C go deeper than code in Python may.
        raise file.error("nested too deeply to be read") from None
    return transcript_reading(file, families, interner=interner, rng=rng)
