"""OpenTelemetry spans in files: OTLP's JSON, plain spans, and Jaeger's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.decoding import ErrorMaker, convert_json, within
from holdfast.traces.formats.otel_dialects import conventional, event_attributes
from holdfast.traces.formats.quantities import Tokens
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import seconds

__all__ = ["Attributes", "Span", "read_span_lines", "read_spans"]

_HINT = "expected OTLP as JSON, {resourceSpans: […]}, or plain spans, {spans: […]}"
_NS_PER_S = 1_000_000_000
_US_PER_S = 1_000_000
_ERRORS = frozenset({2, "STATUS_CODE_ERROR", "ERROR"})

_Microseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]
_Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Attributes(msgspec.Struct):
    """A span's attributes of a model call, by their names in the conventions."""

    operation: str | None = msgspec.field(default=None, name="gen_ai.operation.name")
    conversation: str | None = msgspec.field(default=None, name="gen_ai.conversation.id")
    agent_id: str | None = msgspec.field(default=None, name="gen_ai.agent.id")
    agent_name: str | None = msgspec.field(default=None, name="gen_ai.agent.name")
    model: str | None = msgspec.field(default=None, name="gen_ai.request.model")
    input_tokens: Tokens | None = msgspec.field(default=None, name="gen_ai.usage.input_tokens")
    output_tokens: Tokens | None = msgspec.field(default=None, name="gen_ai.usage.output_tokens")
    cached_tokens: Tokens | None = msgspec.field(
        default=None, name="gen_ai.usage.cache_read.input_tokens"
    )
    written_tokens: Tokens | None = msgspec.field(
        default=None, name="gen_ai.usage.cache_creation.input_tokens"
    )
    finish_reasons: str | list[str] = msgspec.field(
        default_factory=list, name="gen_ai.response.finish_reasons"
    )
    tool_definitions: Any = msgspec.field(default=None, name="gen_ai.tool.definitions")
    system_instructions: Any = msgspec.field(default=None, name="gen_ai.system_instructions")
    input_messages: Any = msgspec.field(default=None, name="gen_ai.input.messages")
    output_messages: Any = msgspec.field(default=None, name="gen_ai.output.messages")


@dataclass(frozen=True, slots=True)
class Span:
    """One span.

    Attributes:
        trace_id, span_id, parent_id: Its ids; `parent_id` is "" for a root.
        start_s, end_s: On one clock for all spans of a file.
        attributes: Those of a model call.
        is_error: Whether it records a failure.
        error_maker: Makes errors that name the span.
    """

    trace_id: str
    span_id: str
    parent_id: str
    start_s: float
    end_s: float
    attributes: Attributes
    is_error: bool
    error_maker: ErrorMaker


class _Value(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    int_value: int | None = None
    double_value: float | None = None
    bool_value: bool | None = None
    array_value: _Array | None = None
    kvlist_value: _KeyValues | None = None

    def plain(self) -> object:
        """Return the value as in plain JSON."""
        if self.array_value is not None:
            return [value.plain() for value in self.array_value.values]
        if self.kvlist_value is not None:
            return _plain(self.kvlist_value.values)
        values = (self.string_value, self.int_value, self.double_value, self.bool_value)
        return next((value for value in values if value is not None), None)


class _Array(msgspec.Struct):
    values: list[_Value] = []


class _KeyValue(msgspec.Struct):
    key: str
    value: _Value = msgspec.field(default_factory=_Value)


class _KeyValues(msgspec.Struct):
    values: list[_KeyValue] = []


class _Event(msgspec.Struct):
    name: str = ""
    attributes: list[_KeyValue] = []


class _Status(msgspec.Struct):
    code: int | str = 0
    status_code: str = ""

    @property
    def is_error(self) -> bool:
        return bool(_ERRORS & {self.code, self.status_code})


class _OtlpSpan(msgspec.Struct, rename="camel"):
    trace_id: str
    span_id: str
    start_time_unix_nano: _Nanoseconds
    end_time_unix_nano: _Nanoseconds
    parent_span_id: str | None = None
    attributes: list[_KeyValue] = []
    events: list[_Event] = []
    status: _Status | None = None

    def recorded(self) -> dict[str, object]:
        events = ((event.name, _plain(event.attributes)) for event in self.events)
        return event_attributes(events) | _plain(self.attributes)

    @property
    def times_s(self) -> tuple[float, float]:
        return self.start_time_unix_nano / _NS_PER_S, self.end_time_unix_nano / _NS_PER_S


class _ScopeSpans(msgspec.Struct):
    spans: list[_OtlpSpan] = []


class _ResourceSpans(msgspec.Struct, rename="camel"):
    scope_spans: list[_ScopeSpans] = []
    # The older name.
    instrumentation_library_spans: list[_ScopeSpans] = []


class _PlainEvent(msgspec.Struct):
    name: str = ""
    attributes: dict[str, Any] | None = None


class _PlainSpan(msgspec.Struct):
    trace_id: str
    span_id: str
    start_time: datetime
    end_time: datetime
    parent_span_id: str | None = None
    attributes: dict[str, Any] | None = None
    events: list[_PlainEvent] | None = None
    status: _Status | None = None

    def recorded(self) -> dict[str, object]:
        events = ((event.name, event.attributes or {}) for event in self.events or ())
        return event_attributes(events) | (self.attributes or {})

    @property
    def times_s(self) -> tuple[float, float]:
        return seconds(self.start_time) or 0.0, seconds(self.end_time) or 0.0


class _Tag(msgspec.Struct):
    key: str
    value: Any = None


class _Log(msgspec.Struct):
    fields: list[_Tag] = []


class _JaegerReference(msgspec.Struct, rename={"span_id": "spanID", "kind": "refType"}):
    span_id: str
    kind: str = ""


class _JaegerSpan(
    msgspec.Struct,
    rename={"trace_id": "traceID", "span_id": "spanID", "start_us": "startTime"},
):
    """A span of Jaeger's, with times in microseconds."""

    trace_id: str
    span_id: str
    start_us: _Microseconds
    duration: _Microseconds
    references: list[_JaegerReference] | None = None
    tags: list[_Tag] | None = None
    logs: list[_Log] | None = None

    @property
    def parent_span_id(self) -> str | None:
        above = [at.span_id for at in self.references or () if at.kind == "CHILD_OF"]
        return next(iter(above), None)

    @property
    def status(self) -> _Status:
        code = _tags(self.tags).get("otel.status_code")
        return _Status(status_code=code if isinstance(code, str) else "")

    def recorded(self) -> dict[str, object]:
        logged = [_tags(log.fields) for log in self.logs or ()]
        events = ((str(fields.pop("event", "")), fields) for fields in logged)
        return event_attributes(events) | _tags(self.tags)

    @property
    def times_s(self) -> tuple[float, float]:
        return self.start_us / _US_PER_S, (self.start_us + self.duration) / _US_PER_S


class _JaegerTrace(msgspec.Struct):
    spans: list[_JaegerSpan] = []


def _tags(tags: list[_Tag] | None) -> dict[str, object]:
    return {tag.key: tag.value for tag in tags or ()}


class _Context(msgspec.Struct):
    trace_id: str
    span_id: str


class _Line(msgspec.Struct, rename={"resource_spans": "resourceSpans"}):
    """An export, or one span as OpenTelemetry's Python SDK and Phoenix write it."""

    resource_spans: list[_ResourceSpans] = []
    spans: list[_PlainSpan] = []
    context: _Context | None = None
    parent_id: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    attributes: dict[str, Any] | None = None
    events: list[_PlainEvent] | None = None
    status: _Status | None = None
    status_code: str = ""

    def export(self) -> _Export:
        """Return it as an export; drops a span without an end."""
        context, start, end = self.context, self.start_time, self.end_time
        if context is None or start is None or end is None:
            return _Export(self.resource_spans, self.spans)
        status = self.status or _Status(status_code=self.status_code)
        ids = (context.trace_id, context.span_id)
        return _Export(
            spans=[
                _PlainSpan(*ids, start, end, self.parent_id, self.attributes, self.events, status)
            ]
        )


class _Export(msgspec.Struct, rename={"resource_spans": "resourceSpans"}):
    resource_spans: list[_ResourceSpans] = []
    spans: list[_PlainSpan] = []
    # Tempo's name, and Jaeger's traces.
    batches: list[_ResourceSpans] = []
    data: list[_JaegerTrace] = []


def read_spans(file: TraceFile) -> Iterator[Span]:
    """Yield the spans of a document.

    Raises:
        TraceError: The file is not such an export; or an attribute has the wrong type, and
            `file.on_skipped` is None.
    """
    yield from _spans(file, None, file.document(_Export, hint=_HINT, strict=False))


def read_span_lines(file: TraceFile) -> Iterator[Span]:
    """Yield the spans of a file with one export or one span a line.

    Raises:
        TraceError: A line is not such an export, or an attribute has the wrong type, and
            `file.on_skipped` is None.
    """
    for line, recorded in file.decode(_Line, hint=_HINT, strict=False):
        yield from _spans(file, line, recorded.export())


def _spans(file: TraceFile, line: int | None, export: _Export) -> Iterator[Span]:
    for place, span in _recorded(export):
        error_maker = within(place, file.error_maker(line))
        attributes, renamed = conventional(span.recorded())
        as_recorded = _renaming(renamed, within("attributes", error_maker))
        try:
            decoded = convert_json(attributes, Attributes, as_recorded, repairs=file.repairs)
        except TraceError as error:
            file.refuse(error)
            continue
        start_s, end_s = span.times_s
        yield Span(
            span.trace_id,
            span.span_id,
            span.parent_span_id or "",
            start_s,
            end_s,
            decoded,
            span.status is not None and span.status.is_error,
            error_maker,
        )


def _renaming(renamed: Mapping[str, str], error_maker: ErrorMaker) -> ErrorMaker:
    """Return an error maker that uses the recorded names of attributes."""

    def make(message: str, field: str, hint: str | None) -> TraceError:
        return error_maker(message, renamed.get(field, field), hint)

    return make


_RecordedSpan = _OtlpSpan | _PlainSpan | _JaegerSpan


def _recorded(export: _Export) -> Iterator[tuple[str, _RecordedSpan]]:
    """Yield each span with its path in the export."""
    for index, plain in enumerate(export.spans):
        yield f"spans[{index}]", plain
    for number, trace in enumerate(export.data):
        for index, jaeger in enumerate(trace.spans):
            yield f"data[{number}].spans[{index}]", jaeger
    for place, resources in (("resourceSpans", export.resource_spans), ("batches", export.batches)):
        for resource, resource_spans in enumerate(resources):
            for inside, span in _scoped(resource_spans):
                yield f"{place}[{resource}].{inside}", span


def _scoped(resource_spans: _ResourceSpans) -> Iterator[tuple[str, _OtlpSpan]]:
    for name, scopes in (
        ("scopeSpans", resource_spans.scope_spans),
        ("instrumentationLibrarySpans", resource_spans.instrumentation_library_spans),
    ):
        for scope, scope_spans in enumerate(scopes):
            for index, span in enumerate(scope_spans.spans):
                yield f"{name}[{scope}].spans[{index}]", span


def _plain(attributes: list[_KeyValue]) -> dict[str, object]:
    return {attribute.key: attribute.value.plain() for attribute in attributes}
