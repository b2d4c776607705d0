"""Block ids made up from shared lengths, for recordings that have no hashes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from holdfast.traces.lineage import PrefixInterner

__all__ = ["PrefixLengths"]


class PrefixLengths:
    """Makes up blocks that are shared exactly as far as the lengths say.

    First prompts share as far as both lengths go, and no further than the shortest first prompt of
    their group: what they have in common is system message and tools, not the history of a resumed
    conversation. So all first prompts are noted before the ids of any are asked for.

    Args:
        interner: Gives the ids; one of its own for each block that is new.
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
            group: Streams with equal groups begin with the same system message and tools.
            prompt_tokens: Of the whole prompt.
        """
        shortest = self._shortest_tokens.get(group, prompt_tokens)
        self._shortest_tokens[group] = min(shortest, prompt_tokens)

    def of(self, group: Hashable, prompts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
        """Yield the ids of the full blocks of each of a stream's prompts; each stream once.

        Args:
            group: As noted for its first prompt.
            prompts: Of each its length, and how many leading tokens it shares with the one before;
                of the first, with those of its group. In tokens.
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
        """What the first prompt shares with others of its group, as far as one was made up yet."""
        num_tokens = min(shared_tokens, self._shortest_tokens[group])
        num_blocks = num_tokens // self._block_tokens
        head = self._heads.get(group, ())
        if num_blocks > len(head):
            head = self._heads[group] = (*head, *self._interner.fresh(num_blocks - len(head)))
        return head[:num_blocks]
