"""OpenTelemetry: sessions, agents and tools from GenAI spans.

    from holdfast.client.opentelemetry import HoldfastSpanProcessor

    provider.add_span_processor(HoldfastSpanProcessor())

Requests inside of an `invoke_agent` span are the agent's; `execute_tool` spans are its tools;
`gen_ai.conversation.id` names the conversation. It needs a tracer provider of the SDK, which may
have any other processors, and a client that is attached (`holdfast.client.attach`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.client.scope import Frame, Scope, add_source, explicit, remove_source
from holdfast.client.spans import OpenSpans, SpanInfo

try:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
    from opentelemetry.trace import get_current_span
except ImportError as error:
    raise ImportError(
        "holdfast.client.opentelemetry needs the OpenTelemetry SDK: pip install opentelemetry-sdk"
    ) from error

__all__ = ["HoldfastSpanProcessor"]


class HoldfastSpanProcessor(SpanProcessor):
    """Follows open spans and names the agent of requests that are sent in them.

    Each span costs a few microseconds. Spans that are not sampled are not seen.
    """

    def __init__(self) -> None:
        self._spans = OpenSpans()
        add_source(self._frame)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Take a span that starts; see OpenTelemetry."""
        context = span.get_span_context()
        if context is not None:
            self._spans.start(
                f"{context.span_id:016x}",
                None if span.parent is None else f"{span.parent.span_id:016x}",
                f"{context.trace_id:032x}",
                _describer(span),
                explicit(),
            )

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that ends; see OpenTelemetry."""
        context = span.get_span_context()
        if context is not None:
            self._spans.end(f"{context.span_id:016x}")

    def shutdown(self) -> None:
        """Name no agents any more; see OpenTelemetry."""
        remove_source(self._frame)

    def _frame(self, scope: Scope) -> Frame | None:
        context = get_current_span().get_span_context()
        return self._spans.frame(f"{context.span_id:016x}", scope)


def _describer(span: Span) -> Callable[[], SpanInfo]:
    return lambda: _info(span.attributes or {})


def _info(attributes: Mapping[str, Any]) -> SpanInfo:
    operation = _text(attributes, "gen_ai.operation.name")
    named = _text(attributes, "gen_ai.agent.name") or _text(attributes, "gen_ai.agent.id")
    return SpanInfo(
        agent=named if operation == "invoke_agent" else "",
        tool=_text(attributes, "gen_ai.tool.name") if operation == "execute_tool" else "",
        conversation=_text(attributes, "gen_ai.conversation.id"),
        workflow=(_text(attributes, "gen_ai.workflow.name") or "workflow")
        if operation == "invoke_workflow"
        else "",
    )


def _text(attributes: Mapping[str, Any], key: str) -> str:
    value = attributes.get(key)
    return value.strip() if isinstance(value, str) else ""
