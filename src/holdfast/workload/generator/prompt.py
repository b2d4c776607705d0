"""Makes prompts: their lengths and their blocks."""

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
        block_ids: Its full blocks, as `Turn.block_ids`.
    """

    num_tokens: int
    block_ids: tuple[int, ...]


class PromptMaker:
    """Makes prompts from other prompts; each new block gets a new id.

    Args:
        block_size_tokens: Tokens in a block, >= 1.
    """

    def __init__(self, block_size_tokens: int) -> None:
        self.block_size_tokens = block_size_tokens
        self._num_ids = 0

    def fresh(self, num_blocks: int) -> tuple[int, ...]:
        """Return consecutive new ids; mutates."""
        first, self._num_ids = self._num_ids, self._num_ids + max(0, num_blocks)
        return tuple(range(first, self._num_ids))

    def extended(
        self, prompt: Prompt, added_tokens: float, opening: tuple[int, ...] = ()
    ) -> Prompt:
        """Return the prompt with tokens added at its end, or removed if negative.

        Args:
            prompt: Not changed.
            added_tokens: Number of added tokens.
            opening: First blocks of the added tokens; the prompt must end with a full block.
        """
        num_tokens = max(1, prompt.num_tokens + round(added_tokens))
        num_blocks = num_tokens // self.block_size_tokens
        known = (prompt.block_ids + opening)[:num_blocks]
        return Prompt(num_tokens, known + self.fresh(num_blocks - len(known)))

    def cut(self, prompt: Prompt, kept_tokens: float) -> Prompt:
        """The prompt's leading full blocks within `kept_tokens` (>= 0). Pure."""
        num_blocks = min(len(prompt.block_ids), int(kept_tokens) // self.block_size_tokens)
        return Prompt(num_blocks * self.block_size_tokens, prompt.block_ids[:num_blocks])


class Heads:
    """The heads that the sessions of one agent share, for each of its roles.

    A head has as many blocks as the longest use of it so far.
    """

    def __init__(self, maker: PromptMaker, agent: Agent) -> None:
        self._maker = maker
        self._agent = agent
        self._blocks: dict[tuple[str, str], tuple[int, ...]] = {}

    def first_prompt(self, role_name: str, draws: Draws, prompt_tokens: float) -> Prompt:
        """Make a role's prompt of `prompt_tokens` before the conversation; mutates."""
        role = self._agent.roles[role_name]
        head_name, head = _chosen(role, draws)
        shared = min(max(draws.value(role.head_tokens), head.min_tokens), head.max_tokens)
        num_shared = int(min(shared, prompt_tokens)) // self._maker.block_size_tokens
        opening = self._shared_blocks(role_name, head_name, num_shared)
        return self._maker.extended(Prompt(0, ()), prompt_tokens, opening)

    def _shared_blocks(self, role_name: str, head_name: str, num_blocks: int) -> tuple[int, ...]:
        """The first blocks of a head; makes missing ones."""
        known = self._blocks.get((role_name, head_name), ())
        known += self._maker.fresh(num_blocks - len(known))
        self._blocks[role_name, head_name] = known
        return known[:num_blocks]


def _chosen(role: Role, draws: Draws) -> tuple[str, Head]:
    weights = {str(index): head.weight for index, head in enumerate(role.heads)}
    name = draws.choice(weights)
    return name, role.heads[int(name)]
