"""Makes block ids from shared prefix lengths, for recordings without hashes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from holdfast.traces.lineage import PrefixInterner

__all__ = ["PrefixLengths"]


class PrefixLengths:
    """Makes block ids that prompts share exactly as far as their recorded lengths.

    First prompts share at most as much as the shortest first prompt of their group: system message
    and tools, not the history of a resumed conversation. `note_first` therefore takes all first
    prompts before `of` makes any ids.

    Args:
        interner: Provides a new id for each new block.
        block_tokens: Tokens in a block.
    """

    def __init__(self, interner: PrefixInterner, *, block_tokens: int) -> None:
        self._interner = interner
        self._block_tokens = block_tokens
        self._heads: dict[Hashable, tuple[int, ...]] = {}
        self._shortest_tokens: dict[Hashable, int] = {}

    def note_first(self, group: Hashable, prompt_tokens: int) -> None:
        """Note the length of a stream's first prompt.

        Args:
            group: Equal for streams with the same system message and tools.
            prompt_tokens: Length of the whole prompt.
        """
        shortest = self._shortest_tokens.get(group, prompt_tokens)
        self._shortest_tokens[group] = min(shortest, prompt_tokens)

    def of(self, group: Hashable, prompts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
        """Yield the block ids of each prompt of a stream; call it once a stream.

        Args:
            group: The group of the stream's first prompt.
            prompts: Length of each prompt and the leading tokens that it shares with the one
                before; for the first, with the first prompts of its group.
        """
        ids: tuple[int, ...] | None = None
        for prompt_tokens, shared_tokens in prompts:
            if ids is None:
                ids = self._head(group, shared_tokens)
            else:
                ids = ids[: min(shared_tokens, prompt_tokens) // self._block_tokens]
            num_new = prompt_tokens // self._block_tokens - len(ids)
            ids = (*ids, *self._interner.fresh(num_new))
            yield ids

    def _head(self, group: Hashable, shared_tokens: int) -> tuple[int, ...]:
        """The blocks that the first prompt shares with its group; makes missing ones."""
        num_tokens = min(shared_tokens, self._shortest_tokens[group])
        num_blocks = num_tokens // self._block_tokens
        head = self._heads.get(group, ())
        if num_blocks > len(head):
            head = self._heads[group] = (*head, *self._interner.fresh(num_blocks - len(head)))
        return head[:num_blocks]
