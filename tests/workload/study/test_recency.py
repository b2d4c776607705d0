"""Stack distances against a plain LRU cache of every size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.workload.study.naive import (
    BLOCK_TOKENS,
    load_of,
    lru_hit_tokens,
    prompts_of,
    sessions_like_agents,
)

from holdfast.traces.record import Session
from holdfast.workload.study.fenwick import Fenwick
from holdfast.workload.study.recency import RecencyStack
from holdfast.workload.study.steps import Stepper


def hit_tokens(prompts: list[tuple[int, ...]], cache_tokens: int) -> int:
    stack = RecencyStack()
    num_hit = 0
    for prompt in prompts:
        for reused in stack.touch(np.array(prompt, dtype=np.int64), BLOCK_TOKENS):
            num_fitting = (cache_tokens - reused.tokens_above) // BLOCK_TOKENS
            num_hit += min(reused.num_blocks, max(0, num_fitting))
    return num_hit * BLOCK_TOKENS


def test_depth_is_tokens_sent_since() -> None:
    stack = RecencyStack()
    assert stack.touch(np.array([0, 1, 2]), 10) == []
    # The stack has 0 1 2, the root on top; 0 is shared, and 3 4 move above 1 2.
    (shared,) = stack.touch(np.array([0, 3, 4]), 10)
    assert (shared.last_touch, shared.num_blocks, shared.tokens_above) == (0, 1, 0)
    first, second = stack.touch(np.array([0, 1, 2]), 10)
    assert (first.last_touch, first.num_blocks, first.tokens_above) == (1, 1, 0)
    assert (second.last_touch, second.num_blocks, second.tokens_above) == (0, 2, 30)
    assert stack.left_tokens() == [0, 20, 30]


@given(sessions_like_agents())
def test_hits_equal_plain_lru_of_every_size(sessions: list[Session]) -> None:
    interned = Stepper()
    paths = [
        tuple(path.tolist()) for session in sessions for path in interned.follow(session).paths()
    ]
    num_distinct = len({block for path in paths for block in path})
    for num_blocks in range(num_distinct + 2):
        expected = lru_hit_tokens(prompts_of(sessions), num_blocks)
        assert hit_tokens(paths, num_blocks * BLOCK_TOKENS) == expected


@given(sessions_like_agents())
def test_curve_and_cliff_equal_plain_lru(sessions: list[Session]) -> None:
    load = load_of(sessions, 1)
    prompts = prompts_of(sessions)
    prompt_tokens = sum(turn.prompt_tokens for session in sessions for turn in session.turns)

    def ratio(cache_tokens: int) -> float:
        hits = lru_hit_tokens(prompts, cache_tokens // BLOCK_TOKENS)
        return hits / max(1, prompt_tokens)

    for size, hit_ratio in zip(load.cache.cache_tokens, load.cache.hit_ratio, strict=True):
        assert np.isclose(hit_ratio, ratio(size))
    best = ratio(10**6)
    if best == 0:
        assert load.cliff is None
        return
    assert load.cliff is not None
    assert np.isclose(load.cliff.best_hit_ratio, best)
    for tokens, share in ((load.cliff.edge_tokens, 0.95), (load.cliff.half_tokens, 0.5)):
        assert ratio(tokens) >= share * best - 1e-9
        assert ratio(tokens - 1) < share * best


@given(sessions_like_agents(), st.data())
def test_forgetting_empty_prompts_only_renumbers(
    sessions: list[Session], data: st.DataObject
) -> None:
    stepper = Stepper()
    trimmed, whole = RecencyStack(), RecencyStack()
    number_of: list[int] = []
    paths = (path for session in sessions for path in stepper.follow(session).paths())
    for number, path in enumerate(paths):
        found, expected = trimmed.touch(path, BLOCK_TOKENS), whole.touch(path, BLOCK_TOKENS)
        renamed = [replace(one, last_touch=number_of[one.last_touch]) for one in found]
        assert renamed == expected
        number_of.append(number)
        if data.draw(st.booleans()):
            number_of = [number_of[kept] for kept in trimmed.forget_prompts()]
            assert all(trimmed.left_tokens())
    assert sum(trimmed.left_tokens()) == sum(whole.left_tokens())


@given(sessions_like_agents(), st.data())
def test_removed_blocks_as_if_never_sent(sessions: list[Session], data: st.DataObject) -> None:
    stepper = Stepper()
    paths = [path for session in sessions for path in stepper.follow(session).paths()]
    num_blocks = 1 + max((int(path.max(initial=-1)) for path in paths), default=-1)
    drawn = data.draw(st.lists(st.booleans(), min_size=num_blocks, max_size=num_blocks))
    is_kept = np.array(drawn, dtype=np.bool_)
    numbers = np.where(is_kept, np.cumsum(is_kept) - 1, -1)
    change = data.draw(st.integers(0, len(paths)))
    narrowed, small = RecencyStack(), RecencyStack()
    for path in paths[:change]:
        narrowed.touch(path, BLOCK_TOKENS)
        small.touch(numbers[path][is_kept[path]], BLOCK_TOKENS)
    num_sent = 1 + max((int(path.max(initial=-1)) for path in paths[:change]), default=-1)
    narrowed.renumber(numbers[:num_sent])
    for path in paths[change:]:
        kept = numbers[path][is_kept[path]]
        assert narrowed.touch(kept, BLOCK_TOKENS) == small.touch(kept, BLOCK_TOKENS)
    assert narrowed.left_tokens() == small.left_tokens()


@given(st.lists(st.integers(-50, 50), max_size=40), st.data())
def test_fenwick_sums_equal_naive_sums(values: list[int], data: st.DataObject) -> None:
    tree, plain = Fenwick(), []
    for value in values:
        tree.append(value)
        plain.append(value)
        index = data.draw(st.integers(0, len(plain) - 1))
        tree.add(index, value)
        plain[index] += value
    assert [tree.sum_before(end) for end in range(len(plain) + 1)] == [
        sum(plain[:end]) for end in range(len(plain) + 1)
    ]
