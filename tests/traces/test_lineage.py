"""Chained block ids, and the prefix arithmetic beneath them."""

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
def test_the_common_prefix_is_what_a_loop_finds(left: list[int], right: list[int]) -> None:
    assert common_prefix_length(left, right) == naive_prefix_length(left, right)


@given(st.lists(st.tuples(st.integers(0, 1), hashes), min_size=2, max_size=8))
def test_chain_ids_are_equal_exactly_where_scope_and_prefix_are(
    prompts: list[tuple[int, list[int]]],
) -> None:
    interner = PrefixInterner()
    chains = [(scope, prompt, interner.trail(scope).extend(prompt)) for scope, prompt in prompts]
    for scope_a, prompt_a, chain_a in chains:
        for scope_b, prompt_b, chain_b in chains:
            shared = naive_prefix_length(prompt_a, prompt_b) if scope_a == scope_b else 0
            assert chain_a[:shared] == chain_b[:shared]
            assert not set(chain_a[shared:]) & set(chain_b[shared:])


@given(st.lists(hashes, min_size=1, max_size=6))
def test_following_a_session_gives_the_same_ids_as_chaining_each_prompt_anew(
    prompts: list[list[int]],
) -> None:
    interner = PrefixInterner()
    trail = interner.trail(0)
    for prompt in prompts:
        assert trail.extend(prompt) == interner.trail(0).extend(prompt)
