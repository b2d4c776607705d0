"""Where prompts end, to the token, and which sessions a longer prompt may belong to.

Prefix hashes cover whole blocks, so they cannot tell a short message from another one, nor the
generation prompt (what a chat template puts after the last message) from what was said. Marks can.
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
        num_blocks: Full blocks that surely precede its generation prompt (count, > 0).
        block_hash: Prefix hash of the last of them.
        end: Token ids from there to the prompt's end.
    """

    num_blocks: int
    block_hash: bytes
    end: array[int]

    @classmethod
    def of(
        cls, hashes: Sequence[bytes], tokens: Sequence[int], block_tokens: int
    ) -> PromptMark | None:
        """Mark the end of a prompt; None where it is too short to tell it from others. Pure."""
        num_blocks = min((len(tokens) - _MAX_SUFFIX_TOKENS) // block_tokens, len(hashes))
        if num_blocks <= 0:
            return None
        end = array("q", tokens[num_blocks * block_tokens :])
        return cls(num_blocks, hashes[num_blocks - 1], end)


class GenerationPrompts:
    """What chat templates put after the last message, learned as what prompts end with alike.

    Prompts that end with the same two tokens are taken to be of one template; a bounded number of
    such ends is remembered, those seen last.
    """

    def __init__(self) -> None:
        self._suffixes: OrderedDict[tuple[int, ...], list[int]] = OrderedDict()

    def learn(self, tokens: Sequence[int]) -> None:
        """See a prompt (token ids). Mutates; O(1)."""
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
        """Tokens of the generation prompt at the end of a marked prompt (count). Pure."""
        last = tuple(mark.end[-_NUM_LAST_TOKENS:])
        return min(len(self._suffixes.get(last, ())), len(mark.end))


class PromptMarks(Generic[S]):
    """Sessions by the marks of their prompts; of each kind a session has one at most."""

    def __init__(self) -> None:
        self._by_hash: dict[bytes, dict[tuple[S, MarkKind], PromptMark]] = {}
        self._of: dict[S, dict[MarkKind, PromptMark]] = {}
        self._generation_prompts = GenerationPrompts()

    def learn(self, tokens: Sequence[int]) -> None:
        """See a prompt (token ids) before it is looked up. Mutates."""
        self._generation_prompts.learn(tokens)

    def of(self, session: S, kind: MarkKind) -> PromptMark | None:
        """The session's mark of a kind. Pure."""
        return self._of.get(session, {}).get(kind)

    def put(self, session: S, kind: MarkKind, mark: PromptMark | None) -> None:
        """Set, replace or (with None) take away a session's mark of a kind. Mutates."""
        marks = self._of.setdefault(session, {})
        old = marks.pop(kind, None)
        if old is not None:
            at = self._by_hash[old.block_hash]
            del at[session, kind]
            if not at:
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
        """Whether a prompt with the mark's blocks goes on as the marked prompt does. Pure.

        Up to its generation prompt, of which only the first token must be repeated: it ends the
        last message or names who speaks next, while what follows may be left out of history.

        Args:
            mark: The mark.
            tokens: Token ids of the whole prompt.
            block_tokens: Tokens a block.
            is_longer: Whether it must go on after the marked prompt's end.
        """
        num_said = len(mark.end) - self._generation_prompts.num_tokens(mark)
        start = mark.num_blocks * block_tokens
        num_repeated = min(num_said + 1, len(mark.end))
        if len(tokens) < start + (len(mark.end) + 1 if is_longer else num_repeated):
            return False
        return array("q", tokens[start : start + num_repeated]) == mark.end[:num_repeated]

    def candidates(
        self, hashes: Sequence[bytes], above: int, depth: int
    ) -> Iterator[tuple[S, MarkKind, PromptMark]]:
        """Marks whose blocks a prompt begins with, the deepest first. Pure; O(depth - above).

        Args:
            hashes: Prefix hashes of the prompt's full blocks.
            above: Depth that marks must exceed (blocks).
            depth: Depth that they may have at most (blocks).
        """
        for block_hash in reversed(hashes[above:depth]):
            for (session, kind), mark in self._by_hash.get(block_hash, {}).items():
                yield session, kind, mark
