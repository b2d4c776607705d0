"""Reader of OpenTelemetry GenAI spans: one span a model call, in spans of agents.

Known: times of calls and answers, lengths (a prompt's with tokens read from and written to a cache,
an answer's with its reasoning), agents, their parents and their ends, and, if content is recorded,
every whole prompt. A sub-agent is closed when its span ends.

Assumed: without content, a prompt not shorter than the same agent's previous one continues it, and
a shorter one shares nothing. The first prompt shares its cached tokens with other sessions of its
model and agent.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.cache_usage import CacheUsage, whole_prompts
from holdfast.traces.formats.chat_messages import (
    content_parts,
    is_tool_result,
    json_or_text,
    message_parts,
    tool_calls,
)
from holdfast.traces.formats.decoding import convert_json, decode_json, within
from holdfast.traces.formats.otel_spans import Attributes, Span, read_span_lines, read_spans
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import (
    Call,
    CalledTool,
    RecordedEvent,
    Stream,
    transcript_reading,
)
from holdfast.traces.history import EMPTY_HISTORY, History, Message, bytes_of_tokens
from holdfast.traces.lineage import PrefixInterner

__all__ = ["LAYOUTS", "LINE_LAYOUTS", "read_otel", "read_otel_lines"]

LAYOUTS = (
    frozenset({"resourceSpans"}),
    frozenset({"spans[].trace_id"}),
    frozenset({"batches[].scopeSpans"}),
    frozenset({"data[].traceID", "data[].spans"}),
)
"""An object with the fields of one of these is an export of spans."""

LINE_LAYOUTS = (*LAYOUTS, frozenset({"context.trace_id", "context.span_id", "start_time"}))
"""A line with the fields of one of these is an export or a span."""

_CALLS = frozenset(
    {
        *("chat", "text_completion", "generate_content"),
        # Outside of the conventions.
        *("completion", "response", "responses", "message", "messages", "converse"),
        *("generate_text", "text_generation", "invoke_model"),
    }
)
_AGENT = "invoke_agent"
_NOT_RECORDED = "not recorded"
# Spans of consecutive calls may overlap by the time of closing one.
_SLACK_S = 0.05
_MESSAGES = msgspec.json.Decoder(list[dict[str, Any]])


@dataclass(slots=True)
class _Agent:
    """One agent's calls.

    Attributes:
        stream: Its calls in sequence.
        root: Id of the outermost agent above it, or its own.
        span: The span of a sub-agent; None for an outermost agent.
        spans: Spans of its calls.
        parallel: Streams of calls that ran at the same time as calls in `stream`.
    """

    stream: Stream
    root: str
    span: Span | None = None
    spans: list[Span] = field(default_factory=list)
    parallel: list[Stream] = field(default_factory=list)

    def stream_of(self, call: Call) -> Stream:
        """Return the stream that a call continues; a new one if all are busy.

        Prefers the stream whose last prompt the call extends, then the first one that is not busy.
        """
        streams = [self.stream, *self.parallel]
        added = _added(call.prompt)
        extended = [one for one in streams if one.calls and one.calls[-1].prompt.digest in added]
        for one in sorted(extended, key=lambda one: added[one.calls[-1].prompt.digest]):
            # A prompt that includes the answer follows it, even if its span ended later.
            if added[one.calls[-1].prompt.digest] > 1 or _is_free(one, call):
                return one
        free = next((one for one in streams if _is_free(one, call)), None)
        return free or self._begin_parallel(call)

    def _begin_parallel(self, call: Call) -> Stream:
        main = self.stream
        stream = Stream(
            f"{main.session_id}/beside-{len(self.parallel) + 1}",
            main.agent,
            parent_id=main.session_id,
            parent_turn=_turn_before(main, call.start_s or 0.0),
        )
        self.parallel.append(stream)
        return stream


class _Trace:
    """The spans of a file and their agents."""

    def __init__(self, file: TraceFile, spans: Iterable[Span]) -> None:
        self._file = file
        self._spans = {(span.trace_id, span.span_id): span for span in spans}
        self._agents: dict[str, _Agent] = {}

    def families(self) -> list[list[Stream]]:
        """Return each outermost agent's streams followed by its sub-agents'."""
        calls = self._model_calls()
        for span in sorted(calls, key=lambda span: span.start_s):
            self._agent(span).spans.append(span)
        for agent in self._agents.values():
            self._take_calls(agent)
        for agent in self._agents.values():
            self._close(agent)
        families: dict[str, list[Stream]] = {}
        for agent in sorted(
            self._agents.values(), key=lambda agent: agent.stream.session_id != agent.root
        ):
            families.setdefault(agent.root, []).extend((agent.stream, *agent.parallel))
        return list(families.values())

    def _model_calls(self) -> list[Span]:
        """Return spans of calls, without those around others: totals and duplicates."""
        calls = [span for span in self._spans.values() if _is_call(span)]
        outer = {(at.trace_id, at.span_id) for span in calls for at in self._above(span)}
        return [span for span in calls if (span.trace_id, span.span_id) not in outer]

    def _agent(self, span: Span) -> _Agent:
        invocations = [at for at in self._above(span) if at.attributes.operation == _AGENT]
        recorded = [at.attributes for at in (span, *invocations)]
        whole = next(
            (at.conversation for at in reversed(recorded) if at.conversation), span.trace_id
        )
        outermost = recorded[-1]
        label = outermost.agent_name or outermost.agent_id or ""
        root = "/".join(
            part for part in (self._file.label, whole, outermost.agent_id or label) if part
        )
        agent = self._agents.setdefault(root, _Agent(Stream(root, label), root))
        for invocation in reversed(invocations[:-1]):
            name = f"{agent.stream.session_id}/{invocation.span_id}"
            if name not in self._agents:
                stream = Stream(
                    name,
                    invocation.attributes.agent_name or invocation.attributes.agent_id or "",
                    parent_id=agent.stream.session_id,
                )
                self._agents[name] = _Agent(stream, root, invocation)
            agent = self._agents[name]
        return agent

    def _close(self, agent: _Agent) -> None:
        """Set a sub-agent's end, and its parent's turns before and after it."""
        stream, span = agent.stream, agent.span
        if span is None:
            return
        stream.events.append(RecordedEvent("close", len(stream.calls), span.end_s))
        parent = self._agents[stream.parent_id or ""].stream
        stream.parent_turn = _turn_before(parent, span.start_s)
        calls = parent.calls
        begun = [(call.start_s or 0.0) >= span.start_s for call in calls]
        following = begun.index(True) if True in begun else len(calls)
        # A parent that continued earlier did not wait.
        if following < len(calls) and (calls[following].start_s or 0.0) >= span.end_s:
            stream.join_turn = following

    def _above(self, span: Span) -> Iterator[Span]:
        """Yield the spans around one, innermost first; stops at a cycle."""
        seen = {span.span_id}
        while (found := self._spans.get((span.trace_id, span.parent_id))) is not None:
            if found.span_id in seen:
                return
            seen.add(found.span_id)
            span = found
            yield span

    def _take_calls(self, agent: _Agent) -> None:
        for span in agent.spans:
            try:
                call = _call(span, keeps_text=self._file.keeps_text)
            except TraceError as error:
                self._file.refuse(error)
                continue
            stream = agent.stream_of(call)
            if span.attributes.input_messages is None:
                _set_prompt_by_length(call, stream.calls[-1] if stream.calls else None, span)
            stream.calls.append(call)


def _added(prompt: History) -> dict[int, int]:
    """Map each prefix of a prompt, by digest, to the number of messages after it."""
    found: dict[int, int] = {}
    node: History | None = prompt
    while node is not None and node.last is not None:
        found[node.digest] = len(found)
        node = node.before
    return found


def _is_free(stream: Stream, call: Call) -> bool:
    """Whether a stream's latest call ended before another one began."""
    if not stream.calls:
        return True
    before = stream.calls[-1]
    if (before.start_s, before.end_s) == (call.start_s, call.end_s):
        return True
    return (before.end_s or 0.0) <= (call.start_s or 0.0) + _SLACK_S


def _turn_before(stream: Stream, time_s: float) -> int | None:
    """Return the latest turn that ended by a time; None for none."""
    num_ended = sum((call.end_s or 0.0) <= time_s for call in stream.calls)
    return num_ended - 1 if num_ended else None


def _is_call(span: Span) -> bool:
    """Whether a span is an answered model call."""
    recorded = span.attributes
    if span.is_error and not recorded.output_tokens and recorded.output_messages is None:
        return False
    if recorded.operation is not None:
        return recorded.operation in _CALLS
    return recorded.input_messages is not None or recorded.input_tokens is not None


def _call(span: Span, *, keeps_text: bool) -> Call:
    recorded = span.attributes
    output = _messages(span, "gen_ai.output.messages", recorded.output_messages)
    usage = CacheUsage(recorded.input_tokens, recorded.cached_tokens, recorded.written_tokens or 0)
    (prompt_tokens,) = whole_prompts([usage])
    call = Call(
        model=recorded.model or "",
        start_s=span.start_s,
        end_s=span.end_s,
        prompt_tokens=prompt_tokens,
        cached_tokens=recorded.cached_tokens,
        output_tokens=recorded.output_tokens,
        answer=[part for each in output for part in message_parts(each, keeps_text=keeps_text)],
        stop=_stop(recorded, output),
        tools=[CalledTool.of(tool) for message in output for tool in tool_calls(message)],
    )
    if recorded.input_messages is None:
        return call
    call.head, call.is_whole = f"otel {recorded.model or ''}", True
    messages = _messages(span, "gen_ai.input.messages", recorded.input_messages)
    for value in (recorded.tool_definitions, recorded.system_instructions):
        if value is not None:
            call.prompt = call.prompt.then(*content_parts("system", value, keeps_text=keeps_text))
    for each in messages:
        call.prompt = call.prompt.then(*message_parts(each, keeps_text=keeps_text))
    is_result = bool(messages) and is_tool_result(messages[-1])
    call.trigger = "tool_result" if is_result else "user"
    return call


def _set_prompt_by_length(call: Call, before: Call | None, span: Span) -> None:
    """Make up a prompt from its length for a call without a recorded prompt."""
    recorded = span.attributes
    num_tokens = call.prompt_tokens or 0
    call.head = f"otel {recorded.model or ''} {recorded.agent_name or ''} by length"
    past = EMPTY_HISTORY
    if before is not None:
        call.trigger = "tool_result" if before.ended_by == "tool" else "user"
        if num_tokens >= (before.prompt_tokens or 0):
            past = before.prompt
    num_bytes = bytes_of_tokens(max(0, num_tokens - (call.cached_tokens or 0)))
    unseen = Message.of(span.trace_id, span.span_id)
    call.prompt = past.then(Message(unseen.digest, num_bytes))


def _messages(span: Span, name: str, value: Any) -> list[dict[str, Any]]:
    """Return messages recorded as a list or as JSON text."""
    error_maker = within(f"attributes.{name}", span.error_maker)
    if isinstance(value, str):
        return decode_json(value, _MESSAGES, error_maker)
    return [] if value is None else convert_json(value, list[dict[str, Any]], error_maker)


def _stop(recorded: Attributes, output: list[dict[str, Any]]) -> str | None:
    reasons = json_or_text(recorded.finish_reasons)
    reasons = [reasons] if isinstance(reasons, str) else reasons
    reasons = [*reasons, *(message.get("finish_reason") for message in output)]
    named = [reason for reason in reasons if reason and isinstance(reason, str)]
    if named:
        return named[-1] if not recorded.finish_reasons else named[0]
    return None if output else _NOT_RECORDED


def read_otel(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: OTLP as JSON, or inference-perf's plain spans.
        interner: Shared by all files that are read together.
        scope: Ignored: content hashes are comparable between files.
        rng: Shuffles the outermost agents' sessions; sub-agents follow theirs. None keeps the
            order of first calls.

    Raises:
        TraceError: The file is not such an export.
    """
    del scope
    return _reading(file, read_spans(file), interner, rng)


def read_otel_lines(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one export or one span a line, as `read_otel` reads a document."""
    del scope
    return _reading(file, read_span_lines(file), interner, rng)


def _reading(
    file: TraceFile, spans: Iterable[Span], interner: PrefixInterner, rng: random.Random | None
) -> Reading:
    try:
        families = _Trace(file, spans).families()
    except RecursionError:
        # Since Python 3.12 C decoders may nest deeper than Python code.
        raise file.error("nested too deeply to be read") from None
    return transcript_reading(file, families, interner=interner, rng=rng)
