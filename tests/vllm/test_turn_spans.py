"""Spans of turns on vLLM's own scheduler, as the SDK's in-memory exporter gets them."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from holdfast.vllm.turn_spans import NoTurnSpans, TurnSpans, turn_spans_of

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def watched(rig: Rig) -> InMemorySpanExporter:
    """Receives the spans of an engine's turns."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    rig.scheduler._reports._spans = TurnSpans(provider, "m", 3)
    return exporter


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_span_says_why_its_turn_missed(make_rig: RigMaker) -> None:
    rig = make_rig(12)
    exporter = watched(rig)
    rig.turn("1", "abcdef", session_id="s", xargs={"holdfast_agent_id": "writer"})
    rig.turn("2", "uvwxyzmnopq")
    rig.turn("3", "abcdef", session_id="s")
    first, _, last = exporter.get_finished_spans()
    found = attributes_of(first)
    assert first.name == "chat m" and found["gen_ai.agent.id"] == "writer"
    assert found["holdfast.missed.never_seen"] == found["gen_ai.usage.input_tokens"] == 100
    found = attributes_of(last)
    missed = {name: num for name, num in found.items() if name.startswith("holdfast.missed.")}
    assert missed == {"holdfast.missed.evicted": 96, "holdfast.missed.below_block_size": 4}
    assert found["gen_ai.usage.cache_read.input_tokens"] == 0
    assert found["gen_ai.usage.output_tokens"] == 8
    assert found["holdfast.lost_s.evicted"] > 0
    assert (found["gen_ai.conversation.id"], found["holdfast.turn"]) == ("s", 2)
    assert (found["holdfast.engine"], found["holdfast.evicted.reason"]) == (3, "tool")
    assert found["holdfast.waited_s"] >= 0


def test_a_span_lasts_from_arrival_to_answer(rig: Rig) -> None:
    exporter = watched(rig)
    request = rig.engine.request("1", [b"a"], 20, 3)
    request.trace_headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    began_s = rig.now_s
    rig.hand_in(request)
    rig.finish()
    (span,) = exporter.get_finished_spans()
    assert span.start_time is not None and span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(rig.now_s - began_s, abs=0.02)
    assert abs(span.end_time - time.time_ns()) < 60e9
    assert span.parent is not None and span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE and f"{span.parent.span_id:016x}" == CALLER


def test_an_aborted_turn_has_a_span_without_misses(rig: Rig) -> None:
    exporter = watched(rig)
    rig.send("1", "abc")
    rig.abort("1")
    (span,) = exporter.get_finished_spans()
    assert not any("missed" in name for name in attributes_of(span))


def test_spans_that_fail_end_no_turn(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    watched(rig)
    rig.scheduler._reports._spans._tracer = None
    with caplog.at_level(logging.ERROR):
        rig.turn("1", "abc")
        rig.turn("2", "abc")
    assert [one.levelname for one in caplog.records] == ["ERROR"]
    assert "holdfast_fallbacks" not in "".join(rig.metrics)


def test_a_collector_that_hangs_holds_no_engine_up(caplog: pytest.LogCaptureFixture) -> None:
    hangs = threading.Event()
    provider = TracerProvider()
    provider.shutdown = hangs.wait  # type: ignore[assignment]
    TurnSpans(provider, "m", 0).close()
    hangs.set()
    assert "does not answer" in caplog.records[-1].message


def test_no_spans_are_sent_unless_wanted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(rig.scheduler._reports._spans, NoTurnSpans)
    spans = turn_spans_of(is_wanted=True, model="m", engine=0)
    assert isinstance(spans, TurnSpans)
    spans.close()
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert isinstance(turn_spans_of(is_wanted=True, model="m", engine=0), NoTurnSpans)
    assert "opentelemetry" in caplog.records[-1].message
