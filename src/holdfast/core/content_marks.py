"""Marks of prompts' beginnings, across salts, adapters and resets."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

__all__ = ["ContentMarks", "Origin"]

_FIRST_TOKENS: Final = 64
_GROWTH: Final = 1.25
_DIGEST_BYTES: Final = 8


class Origin(NamedTuple):
    """Where a prompt was computed; prompts of different origins share no blocks.

    Attributes:
        num_resets: Resets of the cache before it (count).
        adapter: Name of the adapter; "" without one.
        tenant: The fairness domain, by its salt.
    """

    num_resets: int
    adapter: str
    tenant: str


class ContentMarks:
    """The last origin of prompts' beginnings, at lengths that grow by a quarter.

    So a beginning that two prompts share is known but for a fifth of its length. It keeps digests
    only, the oldest forgotten first.

    Args:
        max_marks: Marks remembered (count).
    """

    def __init__(self, max_marks: int) -> None:
        self._max_marks = max_marks
        self._origins: dict[bytes, Origin] = {}

    def __len__(self) -> int:
        """Marks remembered (count)."""
        return len(self._origins)

    def note(self, tokens: Sequence[int], origin: Origin) -> None:
        """Remember where a prompt's beginnings were computed. Mutates; O(tokens)."""
        origins = self._origins
        # The shortest last, as it is found first: the rest is of no use without it.
        for _, digest in reversed(list(_digests(tokens))):
            origins.pop(digest, None)
            origins[digest] = origin
        while len(origins) > self._max_marks:
            del origins[next(iter(origins))]

    def find(self, tokens: Sequence[int], origin: Origin) -> tuple[Origin, int] | None:
        """The origin of the longest beginning last computed elsewhere. Pure.

        Returns:
            The origin and the length (tokens); None if all of it is new, or of this origin.
        """
        found: tuple[Origin, int] | None = None
        for length, digest in _digests(tokens):
            other = self._origins.get(digest)
            if other is None:
                break
            if other != origin:
                found = other, length
        return found


def _digests(tokens: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Lengths and digests of a prompt's beginnings, shortest first."""
    content = memoryview(array("q", tokens))
    hasher = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    first, length = 0, _FIRST_TOKENS
    while length <= len(content):
        hasher.update(content[first:length])
        yield length, hasher.copy().digest()
        first, length = length, int(length * _GROWTH)
