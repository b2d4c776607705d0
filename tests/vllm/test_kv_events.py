"""KV events as vLLM's own scheduler publishes them, read by the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.vllm.conftest import Rig
from tests.waiting import until

from holdfast.gateway.event_residency import EventResidency
from holdfast.gateway.kv_events import KvEvent, decode_batch, engine_session_id

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

BLOCK_TOKENS = 16
A, B = engine_session_id("a"), engine_session_id("b")


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("vllm")
    from vllm.config.kv_events import KVEventsConfig
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    from holdfast.vllm.simulator import workerless

    plain = workerless._vllm_config

    def publishing(shape: workerless.EngineShape) -> Any:
        config = plain(shape)
        config.kv_events_config = KVEventsConfig(
            enable_kv_cache_events=True, publisher="zmq", endpoint=f"ipc://{tmp_path}/events"
        )
        return config

    monkeypatch.setattr(workerless, "_vllm_config", publishing)
    built = Rig(AsyncScheduler, 8)
    yield built
    built.scheduler.kv_event_publisher.shutdown()


def published(rig: Rig, num_events: int) -> list[KvEvent]:
    """All events that the publisher has sent, once there are so many."""

    def sent() -> list[KvEvent]:
        buffer = list(rig.scheduler.kv_event_publisher._buffer)
        events = [event for _, payload in buffer for event in decode_batch(payload).events]
        return events if len(events) >= num_events else []

    return until(sent)


def residency_of(events: list[KvEvent]) -> EventResidency:
    residency = EventResidency()
    residency.is_current = True
    for event in events:
        residency.apply(event)
    return residency


def names_sessions() -> bool:
    from vllm.distributed.kv_events import BlockStored

    return "session_id" in BlockStored.__struct_fields__


def test_events_name_the_session_of_stored_blocks(rig: Rig) -> None:
    rig.send("r", "abc", num_outputs=2, session_id=A)
    rig.finish()
    residency = residency_of(published(rig, 1))
    if not names_sessions():
        assert residency.resident_tokens(A) is None
        return
    assert residency.resident_tokens(A) == 3 * BLOCK_TOKENS
    assert residency.resident_tokens(B) is None


def test_blocks_of_another_session_count_where_used(rig: Rig) -> None:
    rig.send("r", "abc", num_outputs=2, session_id=A)
    rig.finish()
    rig.send("s", "abd", num_outputs=2, session_id=B)
    rig.finish()
    residency = residency_of(published(rig, 2))
    if names_sessions():
        assert residency.resident_tokens(B) == 3 * BLOCK_TOKENS


def test_evicted_blocks_are_reported(rig: Rig) -> None:
    rig.send("r", "abcd", num_outputs=2, session_id=A)
    rig.finish()
    rig.send("s", "uvwxyz", num_outputs=2, session_id=B)
    rig.finish()
    events = published(rig, 3)
    assert {event.kind for event in events} == {"BlockStored", "BlockRemoved"}
    if not names_sessions():
        return
    residency = residency_of(events)
    assert (residency.resident_tokens(A) or 0) < 4 * BLOCK_TOKENS
    assert residency.resident_tokens(B) == 6 * BLOCK_TOKENS
