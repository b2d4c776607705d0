"""Measures repeated prompt tokens by their last sender, and shared heads.

The figures are those of a cache that never evicts, with sessions one after another.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec
import numpy as np

from holdfast.workload.study.distribution import Distribution, distribution_of
from holdfast.workload.study.steps import Blocks, SteppedSession, reach

__all__ = ["Head", "PrefixMeter", "Prefixes"]


class Head(msgspec.Struct, frozen=True):
    """A group of sessions whose first prompts start with the same block.

    Attributes:
        num_sessions: Number of sessions.
        shared_by_all_tokens: Prefix that all of their first prompts share.
        shared_by_two_tokens: Longest prefix that any two of them share; 0 for one session.
    """

    num_sessions: int
    shared_by_all_tokens: int
    shared_by_two_tokens: int


class Prefixes(msgspec.Struct, frozen=True):
    """Prompt tokens by their last sender.

    Attributes:
        prompt_tokens: Prompt tokens of all turns.
        own_tokens: Tokens in full blocks that the same session sent before.
        family_tokens: Tokens in other blocks, last sent by its parent, its sub-agents or theirs.
        foreign_tokens: Tokens in other blocks, last sent by another session.
        new_tokens: All other tokens, partial blocks included.
        own_share: `own_tokens` of each turn after a session's first, relative to its prompt.
        head_tokens: Prefix of each session's first prompt that another session's first prompt
            shares: system message and tools, or a resumed conversation.
        heads: Shared heads, by descending number of sessions.
    """

    prompt_tokens: int
    own_tokens: int
    family_tokens: int
    foreign_tokens: int
    new_tokens: int
    own_share: Distribution
    head_tokens: Distribution
    heads: tuple[Head, ...]


class PrefixMeter:
    """Accumulates sessions; keeps the blocks of their first prompts.

    Args:
        alike_tokens: First prompts have the same head if they share more than this (>= 0), or all
            that they share with any other.
    """

    def __init__(self, alike_tokens: int = 0) -> None:
        self._alike_tokens = alike_tokens
        self._tokens: Counter[str] = Counter()
        self._own_share: list[float] = []
        self._first_prompts: list[tuple[Blocks, int]] = []
        self._num_users = np.zeros(1, dtype=np.int64)

    def add(self, session: SteppedSession) -> None:
        """Add a session."""
        first = next(session.paths())
        self._first_prompts.append((first, session.block_tokens))
        self._num_users = reach(self._num_users, int(first.max(initial=-1)) + 1, 0)
        self._num_users[first] += 1
        for turn_index, step in enumerate(session.steps):
            self._tokens["prompt"] += step.turn.prompt_tokens
            self._tokens["own"] += step.num_own * session.block_tokens
            self._tokens["family"] += step.num_family * session.block_tokens
            self._tokens["foreign"] += step.num_foreign * session.block_tokens
            if turn_index > 0 and step.turn.prompt_tokens > 0:
                own = step.num_own * session.block_tokens
                self._own_share.append(own / step.turn.prompt_tokens)

    def result(self) -> Prefixes:
        """The result for the sessions added so far."""
        tokens = self._tokens
        repeated = tokens["own"] + tokens["family"] + tokens["foreign"]
        return Prefixes(
            prompt_tokens=tokens["prompt"],
            own_tokens=tokens["own"],
            family_tokens=tokens["family"],
            foreign_tokens=tokens["foreign"],
            new_tokens=tokens["prompt"] - repeated,
            own_share=distribution_of(self._own_share),
            head_tokens=distribution_of(
                [
                    int(np.count_nonzero(self._num_users[first] > 1)) * block_tokens
                    for first, block_tokens in self._first_prompts
                ]
            ),
            heads=self._heads(),
        )

    def _heads(self) -> tuple[Head, ...]:
        """Group first prompts by a shared block; a parent has all users of its children."""
        groups: defaultdict[int, list[tuple[Blocks, int]]] = defaultdict(list)
        for first, block_tokens in self._first_prompts:
            if len(first):
                num_shared = int(np.count_nonzero(self._num_users[first] > 1))
                depth = max(0, min(self._alike_tokens // block_tokens, num_shared - 1))
                groups[int(first[depth])].append((first, block_tokens))
        heads = []
        for members in groups.values():
            users = [self._num_users[first] for first, _ in members]
            block_tokens = members[0][1]
            by_all = int(np.count_nonzero(users[0] >= len(members)))
            by_two = max(int(np.count_nonzero(each > 1)) for each in users)
            heads.append(Head(len(members), by_all * block_tokens, by_two * block_tokens))
        return tuple(
            sorted(heads, key=lambda head: (-head.num_sessions, -head.shared_by_all_tokens))
        )
