"""Admission at the gateway, in blocks of 256 tokens of one byte, on a clock of the test's."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.identity import Identity
from holdfast.gateway.admission import EngineAdmission
from holdfast.gateway.prompt_path import PromptPath
from holdfast.tool_calls.turn_end import TurnEnd

BLOCK_TOKENS = 256
TOOL = TurnEnd("tool")
PREFILL_S = 0.1  # of a block


def path(session: str, num_blocks: int) -> PromptPath:
    """A prompt of which each longer one of the same session is a continuation."""
    return PromptPath.of((f"{session}{n}".encode() for n in range(num_blocks)), BLOCK_TOKENS)


class Gate:
    """An engine that computes one prompt after the other, and its admission."""

    def __init__(self, num_blocks: int, **settings_: Any) -> None:
        self.admission = EngineAdmission(num_blocks * BLOCK_TOKENS, 1.0, **settings_)
        self.now_s = 0.0
        self.numbers: dict[str, int] = {}

    def arrive(self, session: str, num_blocks: int) -> str:
        number = self.numbers[session] = self.numbers.get(session, -1) + 1
        name = f"{session}/{number}"
        self.admission.arrived(name, path(session, num_blocks), Identity(session), self.now_s)
        return name

    def take(self, after_s: float = 0.0) -> list[str]:
        self.now_s += after_s
        return self.admission.take(self.now_s)

    def serve(self, session: str, num_blocks: int, num_new: int) -> None:
        """A turn from its arrival to its end, alone in the engine."""
        name = self.arrive(session, num_blocks)
        assert self.take() == [name]
        self.now_s += PREFILL_S * num_new
        self.admission.started(name, self.now_s)
        self.now_s += 0.1
        self.admission.ended(name, self.now_s, 10, TOOL)


def warmed(num_blocks: int, **settings_: Any) -> Gate:
    """A gate that knows what computing costs."""
    gate = Gate(num_blocks, **settings_)
    for n in range(8):
        gate.serve(f"w{n}", 10, 10)
        gate.admission.gone(Identity(f"w{n}"))
    return gate


def test_nothing_is_held_while_everything_fits() -> None:
    gate = warmed(100)
    names = [gate.arrive(f"s{n}", 20) for n in range(4)]
    assert gate.take() == names
    assert gate.admission.next_s(gate.now_s) == math.inf


def test_a_cold_turn_waits_for_a_session_at_its_tool() -> None:
    gate = warmed(100)
    gate.serve("a", 70, 70)
    gate.arrive("b", 60)
    assert gate.arrive("a", 72) == "a/1"
    assert gate.take(0.1) == ["a/1"]
    assert gate.admission.held == ["b/0"]
    assert gate.admission.held_tokens >= 60 * BLOCK_TOKENS
    assert gate.admission.next_s(gate.now_s) == pytest.approx(gate.now_s + 0.25)


def test_an_idle_engine_is_never_left_idle() -> None:
    gate = warmed(100)
    gate.serve("a", 70, 70)
    assert gate.arrive("b", 60) == "b/0"
    assert gate.take(0.1) == ["b/0"]


def test_a_held_turn_goes_when_its_wait_bound_ends() -> None:
    gate = warmed(100)
    gate.serve("r", 10, 10)
    gate.serve("a", 70, 70)
    gate.arrive("r", 12)
    gate.take()
    gate.arrive("b", 60)
    assert gate.take() == []
    # 72 cold blocks of 0.1 s each are in the engine, itself included: twice that, and no longer.
    assert gate.take(10.0) == []
    assert gate.take(5.0) == ["b/0"]


def test_a_client_that_leaves_frees_what_it_held() -> None:
    gate = warmed(100)
    gate.serve("a", 70, 70)
    gate.arrive("a", 72)
    gate.take()
    gate.arrive("b", 60)
    gate.arrive("c", 60)
    assert gate.take() == []
    gate.admission.ended("b/0", gate.now_s)
    assert gate.admission.held == ["c/0"]
    gate.admission.ended("a/1", gate.now_s)  # broken off, without usage
    assert gate.take() == ["c/0"]


def test_sessions_count_as_gone_after_their_lease() -> None:
    gate = warmed(100, lease_s=5.0)
    gate.serve("a", 70, 70)
    gate.serve("r", 10, 10)
    gate.arrive("r", 12)
    gate.take(5.0)
    gate.arrive("b", 60)
    assert gate.take() == ["b/0"]


def test_a_session_that_moved_away_leaves_its_space() -> None:
    gate = warmed(100)
    gate.serve("a", 60, 60)
    gate.serve("r", 10, 10)
    gate.arrive("r", 12)
    gate.take()
    gate.arrive("b", 60)
    assert gate.take() == []
    gate.admission.gone(Identity("a"))
    assert gate.take() == ["b/0"]


def test_longer_tokens_mean_a_larger_cache() -> None:
    gate = warmed(100)
    gate.serve("a", 70, 70)
    gate.arrive("a", 72)
    gate.take()
    gate.arrive("b", 60)
    assert gate.take() == []
    gate.admission.learn_bytes_per_token(1.6)
    assert gate.take() == ["b/0"]


@pytest.mark.parametrize(
    ("reported_blocks", "sent"), [(None, "a/1"), (45, "a/1"), (41, "a/1"), (5, "c/1")]
)
def test_a_turn_whose_blocks_the_engine_evicted_counts_as_cold(
    reported_blocks: int | None, sent: str
) -> None:
    gate = warmed(100)
    for session in "ac":
        gate.serve(session, 45, 45)
    gate.serve("r", 5, 5)
    gate.arrive("r", 8)
    gate.take()
    reported = None if reported_blocks is None else reported_blocks * BLOCK_TOKENS
    gate.admission.arrived("a/1", path("a", 60), Identity("a"), gate.now_s, lambda: reported)
    gate.arrive("c", 60)
    assert gate.take() == [sent]  # there is space for one of them


def test_no_more_sessions_are_remembered_than_blocks() -> None:
    gate = Gate(64, lease_s=1.0)
    for number in range(2_200):
        gate.serve(f"s{number}", 1, 1)
    assert len(gate.admission._runtime.sessions) <= 2_048


def test_unknown_turns_are_ignored() -> None:
    gate = Gate(10)
    gate.admission.started("unknown", 1.0)
    gate.admission.ended("unknown", 1.0)
    assert gate.take() == []


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(["arrive", "start", "end", "leave", "wait"]), st.integers(0, 9)),
        max_size=60,
    )
)
def test_whatever_happens_everything_goes_and_nothing_stays(
    steps: list[tuple[str, int]],
) -> None:
    gate = Gate(40)
    sent: list[str] = []
    lengths: dict[str, int] = {}
    for action, number in steps:
        if action == "arrive":
            session = f"s{number}"
            lengths[session] = min(lengths.get(session, 5 + 3 * number) + number, 39)
            gate.arrive(session, lengths[session])
        elif action == "leave" and gate.admission.held:
            gate.admission.ended(gate.admission.held[0], gate.now_s)
        elif sent and action in ("start", "end"):
            name = sent[number % len(sent)]
            gate.admission.started(name, gate.now_s)
            if action == "end":
                sent.remove(name)
                gate.admission.ended(name, gate.now_s, number, TOOL if number % 2 else None)
        sent += gate.take(0.1 * number)
    for _ in range(1000):
        if not sent and not gate.admission.held:
            break
        for name in sent:
            gate.admission.ended(name, gate.now_s)
        sent = gate.take(1.0)
    assert not gate.admission.held
    cache = gate.admission._cache
    assert cache.queue.num_free_blocks == cache.num_blocks
    cache.queue.check_integrity()
