"""Reader of Mooncake's arrivals."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import TraceError
from holdfast.traces.formats.mooncake import read_mooncake
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.io import read_sessions
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session, common_prefix_length


def arrival(timestamp: int, hash_ids: list[int], **fields: Any) -> dict[str, Any]:
    return {
        "timestamp": timestamp,
        "input_length": 512 * len(hash_ids),
        "output_length": 9,
        "hash_ids": hash_ids,
    } | fields


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*arrivals: dict[str, Any], seed: int | None = None) -> list[Session]:
        return list(read_sessions(write_lines("conversation.jsonl", *arrivals), seed=seed))

    return build


def test_request_is_a_session_of_one_turn_at_its_arrival(read: Any) -> None:
    (session,) = read(arrival(2500, [1, 2], output_length=4))
    (turn,) = session.turns
    assert session.start_s == 2.5
    assert (turn.prompt_tokens, turn.output_tokens, len(turn.block_ids)) == (1024, 4, 2)
    assert session.block_size_tokens == 512


def test_hash_of_a_partial_last_block_is_dropped(read: Any) -> None:
    (session,) = read(arrival(0, [1, 2], input_length=1000))
    assert len(session.turns[0].block_ids) == 1


def test_equal_hashes_are_shared_after_equal_prefixes(read: Any) -> None:
    one, other = read(arrival(0, [1, 2, 3]), arrival(0, [1, 2, 4]))
    assert common_prefix_length(one.turns[0].block_ids, other.turns[0].block_ids) == 2


def test_equal_hashes_after_different_prefixes_are_not_shared(read: Any) -> None:
    one, other = read(arrival(0, [1, 3]), arrival(0, [2, 3]))
    assert not set(one.turns[0].block_ids) & set(other.turns[0].block_ids)


def test_hashes_of_different_files_are_not_shared(write_lines: Any) -> None:
    path = write_lines("a.jsonl", arrival(0, [1]))
    write_lines("b.jsonl", arrival(0, [1]))
    one, other = read_sessions(path.parent)
    assert one.turns[0].block_ids != other.turns[0].block_ids


def test_sessions_come_in_the_order_of_their_arrival(read: Any) -> None:
    sessions = read(arrival(3000, [1]), arrival(1000, [2]))
    assert [session.start_s for session in sessions] == [1.0, 3.0]


def test_seed_chooses_the_first_arrival(read: Any) -> None:
    arrivals = [arrival(1000 * n, [n]) for n in range(20)]
    first = {read(*arrivals, seed=seed)[0].start_s for seed in range(8)}
    assert len(first) > 1


def test_earlier_arrivals_follow_one_recording_length_later(read: Any) -> None:
    arrivals = [arrival(1000 * n, [n]) for n in range(20)]
    sessions = read(*arrivals, seed=0)
    assert len({session.session_id for session in sessions}) == 20
    for before, after in pairwise(sessions):
        assert after.start_s - before.start_s == 1.0


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (arrival(0, [1, 2, 3], input_length=1024), "line 2, hash_ids: 3 blocks .* at most 2"),
        (arrival(-1, [1]), "line 2, timestamp: Expected `float` >= 0"),
        (arrival(0, [], input_length=0), "line 2, input_length: Expected `int` >= 1"),
        ({**arrival(0, [1]), "hash_ids": ["x"]}, r"line 2, hash_ids\[0\]: Expected `int`"),
    ],
    ids=["blocks", "time", "empty", "type"],
)
def test_a_bad_line_is_an_error_that_names_line_and_field(
    read: Any, second: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=rf"conversation\.jsonl: {message}"):
        read(arrival(0, [1]), second)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=20))
def test_equal_ids_mean_equal_prefixes(assert_prefix_identity: Any, prompts: Any) -> None:
    lines = [msgspec.json.encode(arrival(0, hash_ids)) for hash_ids in prompts]
    file = TraceFile("test", b"\n".join(lines))
    assert_prefix_identity(read_mooncake(file, interner=PrefixInterner(), scope=1).sessions)
