"""Prompts share exactly the prefixes of their trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.bench.prompts import Alphabet, PromptBuilder
from holdfast.errors import ConfigError
from holdfast.traces.record import Session, Turn, common_prefix_length

SMALL = Alphabet(first_token_id=10, num_block_tokens=7, num_tail_tokens=3)


def session_of(*prompts: tuple[list[int], int], block_size_tokens: int = 64) -> Session:
    turns = tuple(
        Turn(0.0, len(blocks) * block_size_tokens + tail, 10, tuple(blocks))
        for blocks, tail in prompts
    )
    return Session("a", block_size_tokens, turns, "test")


prompts = st.tuples(st.lists(st.integers(0, 6**4), max_size=6), st.integers(0, 63))


@given(prompts, prompts, st.sampled_from([4, 8, 64]))
def test_prompts_share_common_blocks_and_less_than_one_more(
    first: tuple[list[int], int], second: tuple[list[int], int], block_tokens: int
) -> None:
    session = session_of(first, second)
    builder = PromptBuilder(block_tokens / 64, SMALL)
    builder.check(session)
    left, right = (builder.build(session, index).token_ids for index in (0, 1))
    blocks = common_prefix_length(first[0], second[0])
    shared = common_prefix_length(left, right)
    if shared < min(len(left), len(right)):
        assert shared // block_tokens == blocks
    assert shared >= blocks * block_tokens


@given(st.lists(st.integers(0, 7**3 - 1), min_size=2, max_size=40, unique=True))
def test_different_blocks_have_different_tokens(ids: list[int]) -> None:
    session = session_of(*[([block], 0) for block in ids])
    builder = PromptBuilder(3 / 64, SMALL)
    spelled = {tuple(builder.build(session, index).token_ids) for index in range(len(ids))}
    assert len(spelled) == len(ids)


@given(prompts, st.sampled_from([1, 4, 64]))
def test_every_token_is_in_the_vocabulary(prompt: tuple[list[int], int], block_tokens: int) -> None:
    built = PromptBuilder(block_tokens / 64).build(session_of(prompt), 0)
    alphabet = Alphabet()
    assert all(alphabet.first_token_id <= t < alphabet.vocab_size for t in built.token_ids)


def test_tails_never_match_even_for_the_same_turn() -> None:
    session = session_of(([1], 32))
    builder = PromptBuilder(0.25)
    first, second = builder.build(session, 0).token_ids, builder.build(session, 0).token_ids
    assert common_prefix_length(first, second) == 16
    assert len(first) == 24


def test_lengths_are_scaled_and_never_empty() -> None:
    session = session_of(([1, 2], 33), ([], 0))
    builder = PromptBuilder(1 / 16)
    first, empty = builder.build(session, 0), builder.build(session, 1)
    assert (len(first.token_ids), first.output_tokens) == (2 * 4 + 2, 1)
    assert len(empty.token_ids) == 1


def test_appended_tokens_exclude_nearest_earlier_prompt() -> None:
    session = session_of(([1, 2, 3], 0), ([1], 0), ([1, 2, 3, 4], 32))
    builder = PromptBuilder(0.25)
    appended = [builder.build(session, index).appended_tokens for index in range(3)]
    assert appended == [48, 0, 24]


def test_block_ids_that_do_not_fit_their_tokens_are_an_error() -> None:
    builder = PromptBuilder(1 / 64, SMALL)
    with pytest.raises(ConfigError, match="give 7 distinct blocks") as caught:
        builder.check(session_of(([6, 7], 0)))
    assert caught.value.hint is not None


def test_block_of_less_than_a_token_is_an_error() -> None:
    with pytest.raises(ConfigError, match="whole number"):
        PromptBuilder(1 / 128).check(session_of(([1], 0)))


@pytest.mark.parametrize("vocab_size", [8, 100, 512, 32_000])
def test_alphabet_stays_within_its_vocabulary(vocab_size: int) -> None:
    alphabet = Alphabet.for_vocabulary(vocab_size)
    assert alphabet.vocab_size == vocab_size
    assert alphabet.num_block_tokens >= 2


def test_vocabulary_too_small_for_prompts_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least 8"):
        Alphabet.for_vocabulary(7)
