"""Ids of block prefixes and common prefix lengths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import common_prefix_length

hashes = st.lists(st.integers(0, 3), max_size=12)


def naive_prefix_length(left: list[int], right: list[int]) -> int:
    shared = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        shared += 1
    return shared


@given(hashes, hashes)
def test_common_prefix_equals_naive_loop(left: list[int], right: list[int]) -> None:
    assert common_prefix_length(left, right) == naive_prefix_length(left, right)


@given(st.lists(st.tuples(st.integers(0, 1), hashes), min_size=2, max_size=8))
def test_ids_equal_exactly_for_equal_scope_and_prefix(
    prompts: list[tuple[int, list[int]]],
) -> None:
    interner = PrefixInterner()
    paths = [(scope, prompt, interner.trail(scope).extend(prompt)) for scope, prompt in prompts]
    for scope_a, prompt_a, ids_a in paths:
        for scope_b, prompt_b, ids_b in paths:
            shared = naive_prefix_length(prompt_a, prompt_b) if scope_a == scope_b else 0
            assert ids_a[:shared] == ids_b[:shared]
            assert not set(ids_a[shared:]) & set(ids_b[shared:])


@given(st.lists(hashes, min_size=1, max_size=6))
def test_trail_gives_ids_of_a_new_trail(
    prompts: list[list[int]],
) -> None:
    interner = PrefixInterner()
    trail = interner.trail(0)
    for prompt in prompts:
        assert trail.extend(prompt) == interner.trail(0).extend(prompt)
