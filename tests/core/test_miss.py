"""How a prompt's missing tokens are divided among reasons."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.miss import MISS_REASONS, KnownPrompt, missed_tokens

LENGTHS = st.integers(0, 400)


@st.composite
def known_prompts(draw: st.DrawFn) -> KnownPrompt:
    reason = st.sampled_from(MISS_REASONS)
    return KnownPrompt(
        seen_tokens=draw(LENGTHS),
        repeated_tokens=draw(LENGTHS),
        changed_tokens=draw(LENGTHS),
        answered_tokens=draw(LENGTHS),
        elsewhere=draw(st.lists(st.tuples(reason, LENGTHS), max_size=2)),
        lost=draw(st.lists(st.tuples(reason, LENGTHS), max_size=3)),
    )


@given(known=known_prompts(), cached=LENGTHS, missing=LENGTHS, block=st.integers(1, 32))
def test_parts_cover_each_missing_token_once(
    known: KnownPrompt, cached: int, missing: int, block: int
) -> None:
    prompt = cached + missing
    parts = missed_tokens(cached, prompt, known.reasons(prompt, block))
    covered = [token for _, first, num in parts for token in range(first, first + num)]
    assert covered == list(range(cached, prompt))
    assert all(num > 0 for _, _, num in parts)


def test_only_the_last_block_of_whole_blocks_is_computed_again() -> None:
    known = KnownPrompt(seen_tokens=64, lost=[("evicted", 64)])
    assert missed_tokens(16, 64, known.reasons(64, 16)) == [
        ("evicted", 16, 32),
        ("below_block_size", 48, 16),
    ]
