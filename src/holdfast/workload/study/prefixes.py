"""What prompts repeat of their own session, its family and strangers; the head they share.

As a cache that never evicts would see it, sessions one after the other.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec
import numpy as np

from holdfast.workload.study.distribution import Distribution, distribution_of
from holdfast.workload.study.steps import Blocks, SteppedSession, reach

__all__ = ["Head", "PrefixMeter", "Prefixes"]


class Head(msgspec.Struct, frozen=True):
    """Sessions whose first prompts begin alike: here with the same block.

    Attributes:
        num_sessions: How many.
        shared_by_all_tokens: What all of these prompts begin with.
        shared_by_two_tokens: The most that any two of them begin with; 0 for one session.
    """

    num_sessions: int
    shared_by_all_tokens: int
    shared_by_two_tokens: int


class Prefixes(msgspec.Struct, frozen=True):
    """Where the tokens of all prompts had been sent before.

    Attributes:
        prompt_tokens: Of all turns.
        own_tokens: In full blocks that the same session had sent.
        family_tokens: In others that its parent, its sub-agents or theirs had sent last.
        foreign_tokens: In others that another session had sent last.
        new_tokens: The rest, blocks that are not full included.
        own_share: Of each turn but the first of a session, `own_tokens` relative to its prompt.
        head_tokens: Of each session, the part of its first prompt that another session's first
            prompt begins with as well: system message and tools, or a conversation resumed.
        heads: First prompts that begin alike, those of most sessions first.
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
    """Counts over sessions; keeps the blocks of their first prompts.

    Args:
        alike_tokens: First prompts have the same head that share more than this (>= 0), or all
            that they share with anybody.
    """

    def __init__(self, alike_tokens: int = 0) -> None:
        self._alike_tokens = alike_tokens
        self._tokens: Counter[str] = Counter()
        self._own_share: list[float] = []
        self._first_prompts: list[tuple[Blocks, int]] = []
        self._num_users = np.zeros(1, dtype=np.int64)

    def add(self, session: SteppedSession) -> None:
        """Take a session."""
        first = next(session.paths())
        self._first_prompts.append((first, session.block_tokens))
        self._num_users = reach(self._num_users, int(first.max(initial=-1)) + 1, 0)
        self._num_users[first] += 1
        for place, step in enumerate(session.steps):
            self._tokens["prompt"] += step.turn.prompt_tokens
            self._tokens["own"] += step.num_own * session.block_tokens
            self._tokens["family"] += step.num_family * session.block_tokens
            self._tokens["foreign"] += step.num_foreign * session.block_tokens
            if place > 0 and step.turn.prompt_tokens > 0:
                own = step.num_own * session.block_tokens
                self._own_share.append(own / step.turn.prompt_tokens)

    def result(self) -> Prefixes:
        """What was found so far."""
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
        """A block is preceded by blocks that at least as many prompts begin with."""
        groups: defaultdict[int, list[tuple[Blocks, int]]] = defaultdict(list)
        for first, block_tokens in self._first_prompts:
            if len(first):
                num_shared = int(np.count_nonzero(self._num_users[first] > 1))
                place = max(0, min(self._alike_tokens // block_tokens, num_shared - 1))
                groups[int(first[place])].append((first, block_tokens))
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
