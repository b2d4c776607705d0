"""Kept and repeated blocks of prompts, against naive searches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from tests.workload.study.naive import (
    BLOCK_TOKENS,
    session_of,
    sessions_like_agents,
    shared_blocks,
)

from holdfast.traces.record import Session, Turn
from holdfast.workload.study.prefixes import PrefixMeter
from holdfast.workload.study.steps import Stepper


def prompt(*block_ids: int, agent: str = "") -> Turn:
    return Turn(0.0, len(block_ids) * BLOCK_TOKENS + 5, 1, block_ids, agent=agent)


@given(sessions_like_agents())
def test_paths_of_steps_are_the_prompts(sessions: list[Session]) -> None:
    stepper = Stepper()
    numbers: dict[int, int] = {}
    for session in sessions:
        stepped = stepper.follow(session)
        for turn, path in zip(session.turns, stepped.paths(), strict=True):
            for block_id, number in zip(turn.block_ids, path.tolist(), strict=True):
                assert numbers.setdefault(block_id, number) == number
    assert sorted(numbers.values()) == list(range(len(numbers)))


@given(sessions_like_agents())
def test_senders_equal_naive_search(sessions: list[Session]) -> None:
    stepper = Stepper()
    earlier: list[tuple[int, ...]] = []
    for session in sessions:
        own: list[tuple[int, ...]] = []
        for turn, step in zip(session.turns, stepper.follow(session).steps, strict=True):
            ids = turn.block_ids
            num_own = max((shared_blocks(ids, past) for past in own), default=0)
            num_seen = max((shared_blocks(ids, past) for past in (*own, *earlier)), default=0)
            assert step.num_kept == (shared_blocks(ids, own[-1]) if own else 0)
            assert (step.num_own, step.num_family) == (num_own, 0)
            assert step.num_foreign == num_seen - num_own
            own.append(ids)
        earlier += own


def test_blocks_of_parent_count_as_family() -> None:
    stepper = Stepper()
    main = session_of("main", prompt(1, 2, 3))
    steps = [
        stepper.follow(session).steps[0]
        for session in (
            main,
            session_of("sub", prompt(1, 2, 9), parent="main", at=0),
            session_of("other", prompt(1, 2, 3, 4)),
        )
    ]
    assert [(step.num_family, step.num_foreign) for step in steps] == [(0, 0), (2, 0), (0, 3)]


def test_ids_of_different_readings_never_equal() -> None:
    stepper = Stepper()
    stepper.follow(session_of("main", prompt(1, 2)), reading=0)
    called = session_of("sub", prompt(1, 2), parent="main", at=0)
    stepped = stepper.follow(called, reading=1)
    assert stepped.parent is None
    assert stepped.steps[0].num_foreign == 0


@given(sessions_like_agents())
def test_tokens_by_sender_equal_naive_search(sessions: list[Session]) -> None:
    stepper, meter = Stepper(), PrefixMeter()
    for session in sessions:
        meter.add(stepper.follow(session))
    found = meter.result()
    sent: list[tuple[int, tuple[int, ...]]] = []
    sums = {"own": 0, "foreign": 0}
    for number, session in enumerate(sessions):
        for turn in session.turns:
            own = [ids for sender, ids in sent if sender == number]
            num_own = max((shared_blocks(turn.block_ids, ids) for ids in own), default=0)
            num_all = max((shared_blocks(turn.block_ids, ids) for _, ids in sent), default=0)
            sums["own"] += num_own * BLOCK_TOKENS
            sums["foreign"] += (num_all - num_own) * BLOCK_TOKENS
            sent.append((number, turn.block_ids))
    total = sum(turn.prompt_tokens for session in sessions for turn in session.turns)
    assert (found.own_tokens, found.foreign_tokens) == (sums["own"], sums["foreign"])
    assert found.new_tokens == total - sums["own"] - sums["foreign"]
    firsts = [session.turns[0].block_ids for session in sessions]
    heads = [
        BLOCK_TOKENS * max((shared_blocks(a, b) for j, b in enumerate(firsts) if j != i), default=0)
        for i, a in enumerate(firsts)
    ]
    assert found.head_tokens.mean == np.mean(heads)


def test_heads_grouped_by_first_block() -> None:
    stepper, meter = Stepper(), PrefixMeter()
    for name, ids in (("a", (1, 2, 3)), ("b", (1, 2, 4)), ("c", (1, 5)), ("d", (6,))):
        meter.add(stepper.follow(session_of(name, prompt(*ids), prompt(*ids, 77))))
    heads = meter.result().heads
    assert [(head.num_sessions, head.shared_by_all_tokens) for head in heads] == [(3, 10), (1, 10)]
    assert [head.shared_by_two_tokens for head in heads] == [20, 0]


def test_step_keeps_turn_without_blocks() -> None:
    turn = replace(prompt(1, 2), tool_name="Bash", tool_command="git fetch")
    (step,) = Stepper().follow(session_of("a", turn)).steps
    assert step.turn == replace(turn, block_ids=())
