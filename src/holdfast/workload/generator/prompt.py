"""Prompts in the making: how long they are, and which blocks they have."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.workload.generator.draws import Draws
from holdfast.workload.generator.parameters import Agent, Head, Role

__all__ = ["Heads", "Prompt", "PromptMaker"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt.

    Attributes:
        num_tokens: Its length.
        block_ids: Its full blocks, as in `Turn`.
    """

    num_tokens: int
    block_ids: tuple[int, ...]


class PromptMaker:
    """Makes prompts of other prompts; blocks that nobody has sent get ids that nobody has.

    Args:
        block_size_tokens: Tokens in a block, >= 1.
    """

    def __init__(self, block_size_tokens: int) -> None:
        self.block_size_tokens = block_size_tokens
        self._num_ids = 0

    def fresh(self, num_blocks: int) -> tuple[int, ...]:
        """New ids, one after the other; mutates."""
        first, self._num_ids = self._num_ids, self._num_ids + max(0, num_blocks)
        return tuple(range(first, self._num_ids))

    def extended(
        self, prompt: Prompt, added_tokens: float, opening: tuple[int, ...] = ()
    ) -> Prompt:
        """The prompt with more behind it, or with its end taken off where that is negative.

        Args:
            prompt: Not changed.
            added_tokens: How much more.
            opening: Blocks that what is added begins with; the prompt must end with a full block.
        """
        num_tokens = max(1, prompt.num_tokens + round(added_tokens))
        num_blocks = num_tokens // self.block_size_tokens
        known = (prompt.block_ids + opening)[:num_blocks]
        return Prompt(num_tokens, known + self.fresh(num_blocks - len(known)))

    def cut(self, prompt: Prompt, kept_tokens: float) -> Prompt:
        """The prompt's leading full blocks within so many tokens (>= 0). Pure."""
        num_blocks = min(len(prompt.block_ids), int(kept_tokens) // self.block_size_tokens)
        return Prompt(num_blocks * self.block_size_tokens, prompt.block_ids[:num_blocks])


class Heads:
    """The beginnings that the sessions of one agent share, for each of its roles.

    Of a head as many blocks exist as any session has used; they are the same for all.
    """

    def __init__(self, maker: PromptMaker, agent: Agent) -> None:
        self._maker = maker
        self._agent = agent
        self._blocks: dict[tuple[str, str], tuple[int, ...]] = {}

    def first_prompt(self, role_name: str, draws: Draws, prompt_tokens: float) -> Prompt:
        """A role's prompt of so many tokens before anything was said; mutates."""
        role = self._agent.roles[role_name]
        place, head = _chosen(role, draws)
        shared = min(max(draws.value(role.head_tokens), head.min_tokens), head.max_tokens)
        num_shared = int(min(shared, prompt_tokens)) // self._maker.block_size_tokens
        opening = self._shared_blocks(role_name, place, num_shared)
        return self._maker.extended(Prompt(0, ()), prompt_tokens, opening)

    def _shared_blocks(self, role_name: str, place: str, num_blocks: int) -> tuple[int, ...]:
        """The first blocks of a head, more of it where there is not enough yet."""
        known = self._blocks.get((role_name, place), ())
        known += self._maker.fresh(num_blocks - len(known))
        self._blocks[role_name, place] = known
        return known[:num_blocks]


def _chosen(role: Role, draws: Draws) -> tuple[str, Head]:
    weights = {str(place): head.weight for place, head in enumerate(role.heads)}
    place = draws.choice(weights)
    return place, role.heads[int(place)]
