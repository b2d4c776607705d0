"""Copies of paused prefixes below the KV cache, as compaction needs them.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.vllm.compaction.compactor import CompactJob
from holdfast.vllm.compaction.paused_prefixes import PausedPrefix

__all__ = ["Ended", "LowerCopies", "NoLowerCopies"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A prefix whose copies are not watched any more.

    Attributes:
        prefix: The prefix.
        outcome: `compacted`, `incomplete` or `skipped`; "" if its session returned.
    """

    prefix: PausedPrefix
    outcome: str


class LowerCopies(Protocol):
    """Copies of KV blocks in tiers."""

    def covers(self, hashes: Sequence[bytes]) -> bool:
        """Whether each block of a part of a path can be loaded from a tier. Pure."""

    def keeps(self, hashes: Sequence[bytes]) -> bool:
        """Whether one tier has a path whole, so that it can be watched. Pure."""

    def watch(self, prefix: PausedPrefix, job: CompactJob) -> None:
        """Compact a prefix when the last tier drops a block of it. Mutates."""

    def forget(self, hashes: Iterable[bytes]) -> None:
        """Stop to watch prefixes that end with one of these hashes. Mutates."""

    def clear(self) -> None:
        """Stop to watch any prefix. Mutates."""

    def take_ended(self) -> list[Ended]:
        """Prefixes that are not watched any more since the last call. Mutates."""


class NoLowerCopies:
    """See `LowerCopies`; without tiers there are none."""

    def covers(self, hashes: Sequence[bytes]) -> bool:
        """See `LowerCopies`: only what has no blocks."""
        return not hashes

    def keeps(self, hashes: Sequence[bytes]) -> bool:
        """See `LowerCopies`: none."""
        return False

    def watch(self, prefix: PausedPrefix, job: CompactJob) -> None:
        """Do nothing; it is not called."""

    def forget(self, hashes: Iterable[bytes]) -> None:
        """Do nothing."""

    def clear(self) -> None:
        """Do nothing."""

    def take_ended(self) -> list[Ended]:
        """See `LowerCopies`: none."""
        return []
