"""The future of a simulated run, as policies may see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

__all__ = ["Oracle"]


class Oracle(Protocol):
    """The future, for bounds and for applications' hints; only a simulator has one."""

    def gap_after_s(self, request_id: str) -> float:
        """Time from a turn's end to its stream's next request (s; inf after the last)."""
        ...

    def work_left(self, request_id: str) -> float:
        """Tokens that a session computes from a turn on (count).

        Output tokens, and prompt tokens new to the session; these count a quarter, since many are
        computed at once.
        """
        ...

    def session_id_of(self, request_id: str) -> str:
        """The id of the session or workflow of a request."""
        ...

    def prompts_after(self, request_id: str) -> Iterator[Sequence[bytes]]:
        """Prefix hashes of the workflow's prompts after a request, soonest first."""
        ...
