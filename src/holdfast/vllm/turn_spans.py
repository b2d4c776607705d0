"""OpenTelemetry spans of turns, with the reasons of their misses.

A span begins when its turn arrives at the engine and ends with the answer. It follows
OpenTelemetry's conventions for generative AI, with Holdfast's own attributes beside them, and
continues the trace whose W3C headers the request has. The SDK's own variables say where spans go:
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`.

Process: engine core. Imports nothing of vLLM, which brings the SDK.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import holdfast
from holdfast.core.miss import Attribution
from holdfast.core.turn import Turn

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["NoTurnSpans", "TurnSpans", "turn_spans_of"]

_NS_A_S: Final = 1_000_000_000
_CLOSE_S: Final = 2.0
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_logger = logging.getLogger(__name__)


class NoTurnSpans:
    """Stands in for `TurnSpans` where the operator wants none."""

    def started(self, turn: Turn, waited_s: float) -> None:
        """Ignore it."""

    def ended(
        self, turn: Turn, output_tokens: int, now_s: float, headers: Mapping[str, str] | None
    ) -> None:
        """Ignore it."""

    def close(self) -> None:
        """Close nothing."""


class TurnSpans:
    """Gives each turn that ends a span; never raises.

    A thread of the SDK's sends them.

    Args:
        provider: Of the SDK; shut down by `close`.
        model: The model's name.
        engine: Number of the engine among the server's data-parallel ones.
    """

    def __init__(self, provider: TracerProvider, model: str, engine: int) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("holdfast", holdfast.__version__)
        self._kind = SpanKind.INTERNAL  # the server's request is the caller's client span
        self._extract = TraceContextTextMapPropagator().extract
        self._model = model
        self._engine = engine
        self._waited_s: dict[str, float] = {}
        self._has_failed = False

    def started(self, turn: Turn, waited_s: float) -> None:
        """Take in how long a turn has waited (s). Mutates."""
        self._waited_s[turn.request_id] = waited_s

    def ended(
        self, turn: Turn, output_tokens: int, now_s: float, headers: Mapping[str, str] | None
    ) -> None:
        """Record the span of a turn that ends now. Mutates.

        Args:
            turn: The turn.
            output_tokens: Length of its answer (count).
            now_s: Time now (s, host's clock).
            headers: W3C trace headers of its request, if it has any.
        """
        waited_s = self._waited_s.pop(turn.request_id, None)
        try:
            ended_ns = time.time_ns()
            span = self._tracer.start_span(
                f"chat {self._model}",
                context=self._extract(headers or {}),
                kind=self._kind,
                attributes=self._attributes(turn, output_tokens, waited_s),
                start_time=ended_ns - round((now_s - turn.arrived_s) * _NS_A_S),
            )
            span.end(ended_ns)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                _logger.exception("Holdfast cannot record spans of turns; requests go on.")

    def close(self) -> None:
        """Send what is pending; waits two seconds at most for a collector. Mutates."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)
        if closing.is_alive():
            _logger.warning("the last spans of turns were not sent: the collector does not answer")

    def _attributes(
        self, turn: Turn, output_tokens: int, waited_s: float | None
    ) -> dict[str, str | int | float]:
        session, identity = turn.session, turn.session.identity
        found: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": identity.adapter or self._model,
            "gen_ai.conversation.id": identity.session_id,
            "gen_ai.agent.id": identity.agent_id,
            "gen_ai.usage.output_tokens": output_tokens,
            "holdfast.engine": self._engine,
            "holdfast.session": session.number,
            "holdfast.turn": session.num_turns,
            "holdfast.because": turn.because,
            "holdfast.waited_s": waited_s,
        }
        if turn.attribution is not None:
            found |= _attributed(turn.attribution)
        return {name: value for name, value in found.items() if value is not None}


def turn_spans_of(*, is_wanted: bool, model: str, engine: int) -> TurnSpans | NoTurnSpans:
    """Spans sent as the SDK's variables say; a null object if there are none.

    Args:
        is_wanted: Whether the operator wants them.
        model: The model's name.
        engine: Number of the engine among the server's data-parallel ones.
    """
    if not is_wanted:
        return NoTurnSpans()
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(_exporter()))
    except (ImportError, ValueError) as error:
        _logger.warning(
            "turn_spans: no spans of turns are sent (%s): pip install opentelemetry-exporter-otlp,"
            " and check the OTEL_* variables; requests are served as usual",
            error,
        )
        return NoTurnSpans()
    return TurnSpans(provider, model, engine)


def _exporter() -> Any:
    """The SDK's exporter for the protocol that its variables name; gRPC by default."""
    protocol = next((value for name in _PROTOCOLS if (value := os.environ.get(name))), "grpc")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http()


def _attributed(attribution: Attribution) -> dict[str, Any]:
    """Attributes that say why a turn missed; with cached tokens they are its prompt."""
    known, eviction = attribution.known, attribution.known.eviction
    found: dict[str, Any] = {
        "gen_ai.usage.input_tokens": attribution.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": attribution.cached_tokens,
        **{f"holdfast.missed.{reason}": num for reason, num in attribution.missed.items()},
        **{f"holdfast.lost_s.{reason}": lost_s for reason, lost_s in attribution.lost_s.items()},
        "holdfast.mutated_at_tokens": known.mutated_at_tokens,
    }
    if eviction is not None:
        found["holdfast.evicted.reason"] = eviction.reason
        found["holdfast.evicted.idle_s"] = eviction.idle_s
        found["holdfast.evicted.expected_s"] = attribution.expected_s
        found["holdfast.evicted.taken_by"] = eviction.taken_by
    return found
