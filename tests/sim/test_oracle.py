"""The oracle of a run: true gaps and prompts."""

from __future__ import annotations

import math

from holdfast.sim.oracle import TraceOracle
from holdfast.sim.replays import Replays, request_id
from holdfast.traces.record import Session, Turn


def oracle_of(*sessions: Session, time_scale: float = 1.0) -> TraceOracle:
    return TraceOracle(Replays(sessions, 1.0, 64), time_scale)


def session_of(name: str, *gaps_s: float) -> Session:
    turns = tuple(
        Turn(gap_s, 64 * (index + 1), 1, tuple(range(index + 1)))
        for index, gap_s in enumerate(gaps_s)
    )
    return Session(name, 64, turns, "test")


def key(block_id: int) -> bytes:
    return block_id.to_bytes(8, "big")


def test_gap_after_turn_is_the_scaled_next_gap() -> None:
    oracle = oracle_of(session_of("a", 0.0, 8.0), session_of("b", 0.0, 2.0, 4.0), time_scale=0.5)
    assert oracle.gap_after_s(request_id(0, 0)) == 4.0
    assert oracle.gap_after_s(request_id(1, 1)) == 2.0


def test_gap_of_an_agent_spans_the_calls_of_others() -> None:
    agents = [("a", 0.0), ("b", 8.0), ("a", 4.0), ("b", 2.0)]
    turns = [Turn(gap_s, 64, 3, (index,), agent=name) for index, (name, gap_s) in enumerate(agents)]
    oracle = TraceOracle(
        Replays([Session("w", 64, tuple(turns), "test")], 1.0, 64), 0.5, answer_s_per_token=1.0
    )
    gaps_s = [oracle.gap_after_s(request_id(0, index)) for index in range(4)]
    assert gaps_s == [4.0 + 3.0 + 2.0, 2.0 + 3.0 + 1.0, math.inf, math.inf]


def test_gap_after_last_turn_is_infinite() -> None:
    oracle = oracle_of(session_of("a", 0.0, 8.0))
    assert oracle.gap_after_s(request_id(0, 1)) == math.inf


def test_prompts_after_turn_are_those_of_later_turns() -> None:
    oracle = oracle_of(session_of("a", 0.0, 1.0, 1.0))
    prompts = [list(prompt) for prompt in oracle.prompts_after(request_id(0, 0))]
    assert prompts == [[key(0), key(1)], [key(0), key(1), key(2)]]
    assert list(oracle.prompts_after(request_id(0, 2))) == []


def test_session_id_of_request() -> None:
    oracle = oracle_of(session_of("a", 0.0), session_of("b", 0.0, 1.0))
    assert oracle.session_id_of(request_id(1, 1)) == "b"


def test_work_left_counts_new_and_output_tokens_from_a_turn_on() -> None:
    # Each turn adds a block of 64 tokens, a quarter of which count, and an output token.
    oracle = oracle_of(session_of("a", 0.0, 1.0, 1.0))
    left = [oracle.work_left(request_id(0, index)) for index in range(3)]
    assert left == [3 * 17.0, 2 * 17.0, 17.0]
