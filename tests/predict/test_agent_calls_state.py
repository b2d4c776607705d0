"""Agents' calls as bytes."""

from __future__ import annotations

import random

import msgspec
import pytest

from holdfast.predict.agent_calls import AgentCalls, Workload
from holdfast.predict.agent_calls_state import MAX_TENANT_BYTES, decode_calls, encode_calls


def run(workload: Workload, agents: list[int], workflow: str = "w") -> float:
    now_s = 0.0
    for agent in agents:
        now_s += 10.0
        workload.called(workflow, agent, now_s)
    return now_s


def test_order_is_known_after_decoding() -> None:
    calls = AgentCalls()
    run(calls.of("t"), [1, 9, 2, 3, 9, 4] * 10)
    again = decode_calls(encode_calls(calls)).of("t")
    before = calls.of("t")
    assert again.is_predictable
    assert again.predictability == before.predictability
    assert again.interval_s == before.interval_s
    assert again.intervals.spread == before.intervals.spread
    for context in ((1, 9), (3, 9), (9,), (2,)):
        was = before.order.probabilities(context)
        assert again.order.probabilities(context) == pytest.approx(was, abs=0.02)


def test_first_calls_after_decoding_are_expected() -> None:
    calls = AgentCalls()
    run(calls.of("t"), [1, 2, 3] * 12)
    again = decode_calls(encode_calls(calls)).of("t")
    again.called("new", 1, 5.0)
    assert [call.agent for call in again.upcoming(0.5, 5.0)] == [2, 3]


def test_tenants_stay_apart() -> None:
    calls = AgentCalls()
    run(calls.of("t"), [1, 2, 3] * 12)
    again = decode_calls(encode_calls(calls))
    assert not again.of("u").is_predictable


def test_bytes_of_a_tenant_are_bounded() -> None:
    rng = random.Random(1)
    calls = AgentCalls()
    agents = [rng.getrandbits(56) for _ in range(1000)]
    for number in range(200):
        run(calls.of("t"), [rng.choice(agents) for _ in range(100)], f"w{number}")
    data = encode_calls(calls)
    assert MAX_TENANT_BYTES / 4 < len(data) <= MAX_TENANT_BYTES + 100
    assert len(decode_calls(data).of("t").order) > 100


def test_workload_of_64_workflows_is_kept_whole() -> None:
    calls = AgentCalls()
    for number in range(64):
        agents = [(number << 48) + agent + 1 for agent in range(10)]
        run(calls.of("t"), agents * 4, f"w{number}")
    data = encode_calls(calls)
    assert len(data) <= MAX_TENANT_BYTES
    assert len(decode_calls(data).of("t").order) == 640


@pytest.mark.parametrize("damage", [b"", b"\x00", b"x" * 40])
def test_other_bytes_are_refused(damage: bytes) -> None:
    with pytest.raises((ValueError, msgspec.MsgspecError)):
        decode_calls(damage)
