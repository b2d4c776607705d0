"""Mooncake's rows that hold only additions to the previous prompt."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import TraceError
from holdfast.traces.formats.prompt_deltas import PromptDeltas
from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session, common_prefix_length


def row(
    session: str, hash_ids: list[int], length: int, answer: int = 100, **fields: Any
) -> dict[str, Any]:
    return {
        "session_id": session,
        "input_length": length,
        "output_length": answer,
        "hash_ids": hash_ids,
    } | fields


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*rows: dict[str, Any]) -> list[Session]:
        return list(read_sessions(write_lines("m.jsonl", *rows)))

    return build


def lengths(session: Session) -> list[int]:
    return [turn.prompt_tokens for turn in session.turns]


def shared(left: Session, right: Session, left_turn: int = 0, right_turn: int = 0) -> int:
    return common_prefix_length(left.turns[left_turn].block_ids, right.turns[right_turn].block_ids)


def additions() -> list[dict[str, Any]]:
    return [
        row("a", [0, 1, 2, 30], 1600, 200, timestamp=0.0),
        row("a", [31, 32], 1000, 300, delay=2500.0),
        row("a", [33], 400, 50, delay=500.0),
        row("b", [0, 1, 2, 40], 1700, 60, timestamp=10.0),
        row("b", [41], 500, 70, delay=1500.0),
    ]


def test_rows_without_repeats_extend_the_last_prompt(read: Any) -> None:
    one, two = read(*additions())
    assert lengths(one) == [1600, 1600 + 200 + 1000, 2800 + 300 + 400]
    assert lengths(two) == [1700, 1700 + 60 + 500]
    assert [turn.gap_s for turn in one.turns] == [0.0, 2.5, 0.5]
    assert [turn.output_tokens for turn in one.turns] == [200, 300, 50]


def test_each_prompt_begins_with_the_previous_one(read: Any) -> None:
    one, two = read(*additions())
    for session in (one, two):
        for before, turn in pairwise(session.turns):
            assert turn.block_ids[: len(before.block_ids)] == before.block_ids
            assert len(turn.block_ids) == turn.prompt_tokens // 512
    # Both record three full blocks; their partial ones differ.
    assert shared(one, two) == 3
    assert shared(one, two, 2, 1) == 3


def test_recorded_whole_prompts_stay_as_they_are(read: Any) -> None:
    (session,) = read(
        row("a", [0, 1], 1024), row("a", [0, 1, 2], 1536), row("a", [7, 8, 9], 1536, delay=5)
    )
    assert lengths(session) == [1024, 1536, 1536]


def test_one_session_with_whole_prompts_decides_for_its_file(read: Any) -> None:
    # The second session has a compaction between its two prompts.
    _, compacted = read(
        row("a", [0, 1], 1024),
        row("a", [0, 1, 2], 1536),
        row("b", [3, 4], 1024),
        row("b", [5], 512),
    )
    assert lengths(compacted) == [1024, 512]


def test_rows_with_request_ids_are_whole_prompts(read: Any) -> None:
    (session,) = read(
        row("a", [0, 1], 1024, request_id="x"), row("a", [5], 512, request_id="y", wait_for=["x"])
    )
    assert lengths(session) == [1024, 512]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("message_array_with_responses", [1024, 512]),
        ("deltas_without_responses", [1024, 1024 + 100 + 512]),
        ("deltas_with_responses", [1024, 1024 + 512]),
    ],
)
def test_context_mode_decides_what_rows_hold(read: Any, mode: str, expected: list[int]) -> None:
    (session,) = read(
        row("a", [0, 1], 1024, context_mode=mode), row("a", [0], 512, context_mode=mode)
    )
    assert lengths(session) == expected


def test_additions_with_answers_are_shared_between_sessions(read: Any) -> None:
    mode: dict[str, Any] = {"context_mode": "deltas_with_responses"}
    one, two = read(
        *(row(name, [0, 1], 700, **mode) for name in "ab"),
        *(row(name, [2, 3], 700, **mode) for name in "ab"),
    )
    assert shared(one, two, 1, 1) == 1400 // 512


def test_additions_without_hashes_share_what_they_repeat(read: Any) -> None:
    rows = [row("a", [], 1000, 24), row("a", [], 512, delay=2), row("b", [], 1000)]
    for one in rows:
        del one["hash_ids"]
    one, two = read(*rows)
    assert lengths(one) == [1000, 1536]
    assert one.turns[1].block_ids[:1] == one.turns[0].block_ids
    assert shared(one, two) == 0


def test_too_long_additions_are_an_error_with_the_session(read: Any) -> None:
    rows = [row("a", [], 1 << 24), row("a", [], 1 << 24)]
    for one in rows:
        del one["hash_ids"]
    with pytest.raises(TraceError, match=r"m\.jsonl: session 'a', input_length: its rows add up"):
        read(*rows)


PIECES = st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=8)


@given(PIECES, st.sampled_from([1, 4, 16]))
def test_full_blocks_stay_and_as_many_as_fit(pieces: Any, size: int) -> None:
    prompt = PromptDeltas("s", size)
    before: list[int] = []
    for num_tokens, is_answer in pieces:
        if is_answer:
            prompt.add_unnamed(num_tokens)
        else:
            prompt.add(range(-(-num_tokens // size)), num_tokens)
        hashes = prompt.hashes()
        assert hashes[: len(before)] == before
        assert len(hashes) == prompt.num_tokens // size
        before = hashes
    assert prompt.num_tokens == sum(num_tokens for num_tokens, _ in pieces)
