"""Marks: the ends of prompts, to the token, by session.

Prefix hashes cover whole blocks, so they cannot separate two short messages, nor the messages from
the generation prompt (the tokens that a chat template puts after the last message). Marks can.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

__all__ = ["GenerationPrompts", "MarkKind", "PromptMark", "PromptMarks"]

MarkKind = Literal["prompt", "loop", "replaced"]

_MAX_SUFFIX_TOKENS = 32
_MAX_SUFFIXES = 64
_NUM_LAST_TOKENS = 2

S = TypeVar("S")


class PromptMark(NamedTuple):
    """The end of one prompt.

    Attributes:
        num_blocks: Full blocks that certainly precede its generation prompt (count, > 0).
        block_hash: Prefix hash of the last of them.
        end: Token ids after them, up to the prompt's end.
    """

    num_blocks: int
    block_hash: bytes
    end: array[int]

    @classmethod
    def of(
        cls, hashes: Sequence[bytes], tokens: Sequence[int], block_tokens: int
    ) -> PromptMark | None:
        """Mark the end of a prompt; None if it is too short to be distinctive. Pure."""
        num_blocks = min((len(tokens) - _MAX_SUFFIX_TOKENS) // block_tokens, len(hashes))
        if num_blocks <= 0:
            return None
        end = array("q", tokens[num_blocks * block_tokens :])
        return cls(num_blocks, hashes[num_blocks - 1], end)


class GenerationPrompts:
    """Generation prompts of chat templates, learned as the common suffix of prompts.

    Prompts that end with the same two tokens count as of one template; the most recent templates
    are remembered, a bounded number.
    """

    def __init__(self) -> None:
        self._suffixes: OrderedDict[tuple[int, ...], list[int]] = OrderedDict()

    def learn(self, tokens: Sequence[int]) -> None:
        """Learn from a prompt's token ids. Mutates; O(1)."""
        if not tokens:
            return
        end = list(tokens[-_MAX_SUFFIX_TOKENS:])
        last = tuple(end[-_NUM_LAST_TOKENS:])
        known = self._suffixes.pop(last, end)
        shared = 0
        for ours, theirs in zip(reversed(known), reversed(end), strict=False):
            if ours != theirs:
                break
            shared += 1
        self._suffixes[last] = known[-shared:]
        if len(self._suffixes) > _MAX_SUFFIXES:
            self._suffixes.popitem(last=False)

    def num_tokens(self, mark: PromptMark) -> int:
        """Return the length of a marked prompt's generation prompt (tokens). Pure."""
        last = tuple(mark.end[-_NUM_LAST_TOKENS:])
        return min(len(self._suffixes.get(last, ())), len(mark.end))


class PromptMarks(Generic[S]):
    """Sessions by the marks of their prompts; a session has at most one of each kind."""

    def __init__(self) -> None:
        self._by_hash: dict[bytes, dict[tuple[S, MarkKind], PromptMark]] = {}
        self._of: dict[S, dict[MarkKind, PromptMark]] = {}
        self._generation_prompts = GenerationPrompts()

    def learn(self, tokens: Sequence[int]) -> None:
        """Learn from a prompt's token ids, before it is looked up. Mutates."""
        self._generation_prompts.learn(tokens)

    def of(self, session: S, kind: MarkKind) -> PromptMark | None:
        """Return the session's mark of a kind, or None. Pure."""
        return self._of.get(session, {}).get(kind)

    def put(self, session: S, kind: MarkKind, mark: PromptMark | None) -> None:
        """Set, replace or (with None) remove a session's mark of a kind. Mutates."""
        marks = self._of.setdefault(session, {})
        old = marks.pop(kind, None)
        if old is not None:
            same_hash = self._by_hash[old.block_hash]
            del same_hash[session, kind]
            if not same_hash:
                del self._by_hash[old.block_hash]
        if mark is not None:
            marks[kind] = mark
            self._by_hash.setdefault(mark.block_hash, {})[session, kind] = mark

    def drop(self, session: S) -> None:
        """Forget a session. Mutates."""
        for kind in list(self._of.get(session, ())):
            self.put(session, kind, None)
        self._of.pop(session, None)

    def clear(self) -> None:
        """Forget all sessions. Mutates."""
        self._by_hash.clear()
        self._of.clear()

    def repeats(
        self, mark: PromptMark, tokens: Sequence[int], block_tokens: int, *, is_longer: bool = False
    ) -> bool:
        """Whether a prompt with the mark's blocks repeats the marked prompt's end. Pure.

        Of the generation prompt only the first token must be repeated: it ends the last message or
        names the next speaker, while the tokens after it may be left out of history.

        Args:
            mark: The mark.
            tokens: Token ids of the whole prompt.
            block_tokens: Tokens a block.
            is_longer: Whether it must also extend beyond the marked prompt's end.
        """
        num_message_tokens = len(mark.end) - self._generation_prompts.num_tokens(mark)
        start = mark.num_blocks * block_tokens
        num_repeated = min(num_message_tokens + 1, len(mark.end))
        if len(tokens) < start + (len(mark.end) + 1 if is_longer else num_repeated):
            return False
        return array("q", tokens[start : start + num_repeated]) == mark.end[:num_repeated]

    def candidates(
        self, hashes: Sequence[bytes], above: int, depth: int
    ) -> Iterator[tuple[S, MarkKind, PromptMark]]:
        """Yield marks whose blocks a prompt begins with, deepest first. Pure; O(blocks).

        Args:
            hashes: Prefix hashes of the prompt's full blocks.
            above: Depth that marks must exceed (blocks).
            depth: Largest depth of a mark (blocks).
        """
        for block_hash in reversed(hashes[above:depth]):
            for (session, kind), mark in self._by_hash.get(block_hash, {}).items():
                yield session, kind, mark
