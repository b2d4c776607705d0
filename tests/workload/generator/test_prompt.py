"""Prompts: their lengths, blocks and shared heads."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from holdfast.workload.generator.draws import Draws
from holdfast.workload.generator.parameters import Agent, Head, Role
from holdfast.workload.generator.prompt import Heads, Prompt, PromptMaker

BLOCK_TOKENS = 10


def heads_of(maker: PromptMaker, **role: Any) -> Heads:
    roles = {"": Role(prompt_tokens=0.0, **role)}
    return Heads(maker, Agent(roles=roles, steps={}, first={}))


def draws() -> Draws:
    return Draws(np.random.default_rng(0), (0.0, 100.0), None)


@given(st.lists(st.integers(-60, 90), max_size=12))
def test_extended_prompt_keeps_leading_blocks(amounts: list[int]) -> None:
    maker, prompt, used = PromptMaker(BLOCK_TOKENS), Prompt(0, ()), set[int]()
    for amount in amounts:
        longer = maker.extended(prompt, amount)
        assert longer.num_tokens == max(1, prompt.num_tokens + amount)
        assert len(longer.block_ids) == longer.num_tokens // BLOCK_TOKENS
        num_kept = min(len(prompt.block_ids), len(longer.block_ids))
        assert longer.block_ids[:num_kept] == prompt.block_ids[:num_kept]
        new = set(longer.block_ids[num_kept:])
        assert not new & used
        used |= new
        prompt = longer


def test_cut_keeps_full_blocks_within_tokens() -> None:
    prompt = PromptMaker(BLOCK_TOKENS).extended(Prompt(0, ()), 45)
    assert PromptMaker(BLOCK_TOKENS).cut(prompt, 29) == Prompt(20, prompt.block_ids[:2])
    assert PromptMaker(BLOCK_TOKENS).cut(prompt, 99) == Prompt(40, prompt.block_ids)


def test_first_prompts_share_head_up_to_shorter_one() -> None:
    heads = heads_of(PromptMaker(BLOCK_TOKENS), head_tokens=40.0)
    short, long = (heads.first_prompt("", draws(), tokens) for tokens in (25, 90))
    assert short.block_ids == long.block_ids[:2]
    assert (short.num_tokens, len(long.block_ids)) == (25, 9)
    other = heads.first_prompt("", draws(), 90)
    assert other.block_ids[:4] == long.block_ids[:4]
    assert not set(other.block_ids[4:]) & set(long.block_ids[4:])


def test_head_limits_bound_shared_tokens() -> None:
    maker = PromptMaker(BLOCK_TOKENS)
    for limits, num_shared in (({"min_tokens": 60.0}, 6), ({"max_tokens": 10.0}, 1)):
        heads = heads_of(maker, head_tokens=40.0, heads=(Head(**limits),))
        first, second = (heads.first_prompt("", draws(), 90).block_ids for _ in range(2))
        assert len(set(first) & set(second)) == num_shared


def test_session_shares_only_its_drawn_part_of_a_head() -> None:
    table = (10.0, 80.0)
    heads = heads_of(PromptMaker(BLOCK_TOKENS), head_tokens=table)
    prompts, drawn = [], []
    for seed in range(12):
        used, twin = (Draws(np.random.default_rng(seed), (0.0, 100.0), None) for _ in range(2))
        prompts.append(heads.first_prompt("", used, 90).block_ids)
        twin.choice({"0": 1.0})
        drawn.append(int(twin.value(table)) // BLOCK_TOKENS)
    for first, num_first in zip(prompts, drawn, strict=True):
        for second, num_second in zip(prompts, drawn, strict=True):
            if first is not second:
                assert len(set(first) & set(second)) == min(num_first, num_second)
