"""Block keys of an engine with another block size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError
from holdfast.sim.blocks import BlockGrid
from holdfast.traces.record import Turn
from holdfast.traces.scaling import TokenScale


def grid(trace_tokens: int, engine_tokens: int) -> BlockGrid:
    return BlockGrid(TokenScale(64, trace_tokens), engine_tokens)


def turn(*ids: int) -> Turn:
    return Turn(0.0, 64 * len(ids), 1, ids)


def test_equal_block_sizes_give_one_key_a_block() -> None:
    assert grid(64, 64).keys(turn(7, 9)) == [(7).to_bytes(8, "big"), (9).to_bytes(8, "big")]


def test_larger_engine_block_keyed_by_its_last_trace_block() -> None:
    keys = grid(4, 16).keys(turn(1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert keys == [(4).to_bytes(8, "big"), (8).to_bytes(8, "big")]


def test_smaller_engine_blocks_divide_trace_block() -> None:
    keys = grid(64, 16).keys(turn(3))
    assert len(set(keys)) == 4


def test_incompatible_size_refused_with_a_valid_one() -> None:
    with pytest.raises(ConfigError, match="multiple") as caught:
        grid(64, 48)
    assert caught.value.hint == "--block-size 64 fits"


@given(
    st.sampled_from([(64, 64), (4, 32), (64, 16)]),
    st.lists(st.integers(0, 3), max_size=20),
    st.lists(st.integers(0, 3), max_size=20),
)
def test_shared_keys_equal_shared_engine_blocks(
    sizes: tuple[int, int], left: list[int], right: list[int]
) -> None:
    trace, engine = sizes
    shared = 0
    while shared < min(len(left), len(right)) and left[shared] == right[shared]:
        shared += 1
    numbers: dict[tuple[int, ...], int] = {}

    def with_prefix_ids(ids: list[int]) -> Turn:
        prefixes = [tuple(ids[: i + 1]) for i in range(len(ids))]
        return turn(*(numbers.setdefault(prefix, len(numbers)) for prefix in prefixes))

    first, second = (
        grid(trace, engine).keys(with_prefix_ids(left)),
        grid(trace, engine).keys(with_prefix_ids(right)),
    )
    num_equal = sum(a == b for a, b in zip(first, second, strict=False))
    assert num_equal == shared * trace // engine
    assert first[:num_equal] == second[:num_equal]
