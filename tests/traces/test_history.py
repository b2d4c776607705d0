"""Prompts made of messages, and the blocks that they share."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.traces.history import (
    BLOCK_TOKENS,
    EMPTY_HISTORY,
    History,
    Message,
    Placement,
    PromptLayout,
    bytes_of_tokens,
    estimated_tokens,
)
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session, Turn, common_prefix_length


def said(*sizes: tuple[int, int]) -> History:
    """Messages by number and length in bytes."""
    return EMPTY_HISTORY.then(*(Message(number, num_bytes) for number, num_bytes in sizes))


def place(
    layout: PromptLayout,
    history: History,
    tokens: int | None,
    *,
    cached: int = 0,
    head: str | None = None,
) -> Placement:
    """Place a prompt; without a head its messages are the whole prompt."""
    return layout.place(
        history,
        head=head or "whole",
        is_whole=head is None,
        prompt_tokens=tokens,
        cached_tokens=cached,
    )


def shared(left: Placement, right: Placement) -> int:
    return common_prefix_length(left.block_hashes, right.block_hashes)


def test_message_identified_by_role_and_content() -> None:
    assert Message.of("user", ["a"]) == Message.of("user", ["a"])
    assert Message.of("user", ["a"]) != Message.of("tool", ["a"])
    assert Message.of("user", ["a"]) != Message.of("user", ["b"])


def test_media_have_equal_length() -> None:
    short, long = (Message.of("user", "x" * size, is_media=True) for size in (1, 10_000))
    assert short.num_bytes == long.num_bytes
    assert short.digest != long.digest


@given(st.integers(0, 1 << 24))
def test_estimate_inverts_bytes_of_tokens(num_tokens: int) -> None:
    assert estimated_tokens(bytes_of_tokens(num_tokens)) == num_tokens


def test_histories_share_their_past() -> None:
    past = said((1, 10), (2, 10))
    assert past.then(Message(3, 1)).before is past
    assert past.num_estimated_tokens == 6
    assert said((1, 10), (2, 10)).digest == past.digest != said((2, 10), (1, 10)).digest


def test_recorded_length_divided_by_message_bytes() -> None:
    # 10 blocks: the messages end at 160 and 640 tokens.
    layout = PromptLayout("s")
    both = place(layout, said((1, 100), (2, 300)), 640)
    assert place(layout, said((1, 100), (3, 5)), 640).block_hashes[:2] == both.block_hashes[:2]
    assert shared(both, place(layout, said((1, 100), (4, 5)), 640)) == 160 // BLOCK_TOKENS


def test_added_length_goes_to_new_messages() -> None:
    layout = PromptLayout("s")
    first = place(layout, said((1, 100)), 640)
    second = place(layout, said((1, 100), (2, 1), (3, 1)), 1280)
    branch = place(layout, said((1, 100), (2, 1), (4, 1)), 1280)
    back = place(layout, said((1, 100), (2, 1), (3, 1)), 1280)
    assert (shared(first, second), shared(second, branch), shared(second, back)) == (10, 15, 20)


def test_unrecorded_length_estimated_after_known_messages() -> None:
    layout = PromptLayout("s")
    place(layout, said((1, 100)), 640)
    assert place(layout, said((1, 100), (2, 400)), None).num_tokens == 740


def test_empty_prompt_has_one_token() -> None:
    assert place(PromptLayout("s"), EMPTY_HISTORY, None).num_tokens == 1


def test_head_is_first_prompt_less_its_messages() -> None:
    layout = PromptLayout("s")
    first = place(layout, said((1, 256)), 704, head="h")
    other = place(layout, said((2, 256)), 704, head="h")
    assert shared(first, other) == 10
    assert shared(first, place(layout, said((1, 256)), 704, head="g")) == 0


def test_sessions_share_head_that_both_read_from_cache() -> None:
    def first(session: str, cached: int, message: int = 1) -> Placement:
        history = said((message, 256))
        return place(PromptLayout(session), history, 704, head="h", cached=cached)

    assert shared(first("a", 256), first("b", 128)) == 2
    assert shared(first("a", 256), first("b", 0)) == 0
    assert shared(first("a", 0), first("b", 0)) == 0
    # Cached tokens of the messages do not belong to the head.
    assert shared(first("a", 704), first("b", 704)) == 11
    assert shared(first("a", 704), first("b", 704, message=2)) == 10


def test_shortened_prompt_shares_cached_tokens() -> None:
    layout = PromptLayout("s")
    whole = place(layout, said((1, 1), (2, 1)), 1280)
    less = place(layout, said((1, 1), (2, 1), (3, 1)), 1200, cached=700)
    more = place(layout, said((1, 1), (2, 1), (3, 1), (4, 1)), 1280)
    branch = place(layout, said((1, 1), (2, 1), (5, 1)), 1280)
    # The second and third message now share the 560 tokens after the first.
    assert (shared(whole, less), shared(less, more), shared(less, branch)) == (10, 18, 14)


def test_prompt_shortened_in_first_message_keeps_head() -> None:
    layout = PromptLayout("s")
    whole = place(layout, said((1, 4), (2, 4)), 642, head="h")
    assert shared(whole, place(layout, said((1, 4), (2, 4)), 641, head="h", cached=1)) == 10
    layout = PromptLayout("s")
    whole = place(layout, said((1, 1), (2, 1)), 1280)
    assert shared(whole, place(layout, said((1, 1), (2, 1)), 1200, cached=100)) == 0


def test_shortened_prompt_shares_what_fits_if_cached_unknown() -> None:
    layout = PromptLayout("s")
    whole = place(layout, said((1, 1), (2, 1)), 1280)
    assert shared(whole, place(layout, said((1, 1), (2, 1), (3, 1)), 1200)) == 10


def test_prompt_shorter_than_its_head_is_cut() -> None:
    layout = PromptLayout("s")
    first = place(layout, said((1, 4)), 1280, head="h")
    less = place(layout, said((2, 4)), 640, head="h")
    assert shared(first, less) == len(less.block_hashes) == 10


def test_prompt_grown_without_message_gets_new_blocks() -> None:
    layout = PromptLayout("s")
    first = place(layout, said((1, 4)), 640)
    longer = place(layout, said((1, 4)), 1280)
    assert (shared(first, longer), len(longer.block_hashes)) == (10, 20)
    assert shared(longer, place(layout, said((1, 4)), 1920)) == 10
    assert shared(longer, place(layout, said((1, 4), (2, 4)), 1280)) == 10


_PROMPTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.lists(st.integers(1, 3), max_size=5),
        st.one_of(st.none(), st.integers(1, 2000)),
        st.integers(0, 2000),
        st.sampled_from([None, "h"]),
    ),
    min_size=1,
    max_size=20,
)


@given(_PROMPTS)
def test_equal_ids_mean_equal_prefixes(assert_prefix_identity: Any, prompts: Any) -> None:
    interner = PrefixInterner()
    layouts = {name: (PromptLayout(name), interner.trail(0)) for name in ("a", "b")}
    sessions = []
    for name, numbers, tokens, cached, head in prompts:
        layout, trail = layouts[name]
        history = said(*((number, 100 * number) for number in numbers))
        placed = place(layout, history, tokens, cached=cached, head=head)
        turn = Turn(0.0, placed.num_tokens, 1, trail.extend(placed.block_hashes))
        sessions.append(Session(name, BLOCK_TOKENS, (turn,), "test"))
    assert_prefix_identity(sessions)


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 900)), min_size=1, max_size=12),
    st.sampled_from([None, "h"]),
)
def test_growing_conversation_shares_each_prompt_whole(
    growth: list[tuple[int, int]], head: str | None
) -> None:
    layout, history, tokens = PromptLayout("s"), EMPTY_HISTORY, 1
    before: Placement | None = None
    for number, (num_bytes, num_tokens) in enumerate(growth):
        history, tokens = history.then(Message(number, num_bytes)), tokens + num_tokens
        placed = place(layout, history, tokens, head=head)
        assert len(placed.block_hashes) == tokens // BLOCK_TOKENS
        if before is not None:
            assert shared(before, placed) == len(before.block_hashes)
        before = placed


def test_fork_shares_head_of_its_origin() -> None:
    history = said((1, 40), (2, 40))
    one, other, fork = (
        place(layout, history, 640, head="h")
        for layout in (PromptLayout("s"), PromptLayout("t"), PromptLayout("f", "s"))
    )
    assert shared(one, other) == 0
    assert shared(one, fork) == len(one.block_hashes)


@given(st.lists(st.lists(st.integers(1, 4), max_size=6), min_size=1, max_size=20))
def test_repeated_prompt_has_equal_blocks(prompts: list[list[int]]) -> None:
    layout = PromptLayout("s")
    earlier: dict[tuple[int, ...], Placement] = {}
    for numbers in prompts:
        history = said(*((number, 100 * number) for number in numbers))
        placed = place(layout, history, None)
        assert earlier.setdefault(tuple(numbers), placed) == placed


@pytest.mark.parametrize("head", [None, "h"])
def test_equal_calls_make_equal_blocks(head: str | None) -> None:
    def blocks() -> list[list[int]]:
        layout = PromptLayout("s")
        return [
            place(layout, said((1, 5), (number, 9)), 640 - number, head=head).block_hashes
            for number in range(4)
        ]

    assert blocks() == blocks()
