"""Blocks that running requests will still fill.

Process: scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["DecodeGrowth"]

_MAX_UPDATED = 64


class DecodeGrowth:
    """Expected growth of all running requests; each update estimates a few of them.

    Blocks that a request has filled since its last estimate still count as growth: with many
    running requests the sum is too large, by less than a block a request.

    A request whose session gets no reservation releases its blocks when it ends, and others can
    fill them. Then the peak of all requests together counts, if all grow at one rate.

    Args:
        remaining: Blocks that a running request will still fill (count, >= 0).
    """

    def __init__(self, remaining: Callable[[Any], int]) -> None:
        self._remaining = remaining
        self._by_request: dict[str, int] = {}
        self._released: dict[str, int] = {}
        self._next = 0
        self._num_blocks = 0

    def update(self, running: Sequence[Any]) -> int:
        """Blocks that all running requests will still fill (count). Mutates estimates."""
        num_running = len(running)
        num_updated = min(num_running, _MAX_UPDATED)
        for index in range(self._next, self._next + num_updated):
            request = running[index % num_running]
            self.expect(request.request_id, self._remaining(request))
        self._next = (self._next + num_updated) % max(num_running, 1)
        return self._peak() if self._released else self._num_blocks

    def expect(self, request_id: str, num_blocks: int) -> None:
        """Set how many blocks a request will still fill (count). Mutates."""
        self._num_blocks += num_blocks - self._by_request.get(request_id, 0)
        self._by_request[request_id] = num_blocks

    def releases(self, request_id: str, num_blocks: int) -> None:
        """Set how many blocks a request will release when it ends (count). Mutates."""
        self._released[request_id] = num_blocks

    def forget(self, request_id: str) -> None:
        """Remove a request that does not run any more. Mutates."""
        self._num_blocks -= self._by_request.pop(request_id, 0)
        self._released.pop(request_id, None)

    def clear(self) -> None:
        """Remove all requests. Mutates."""
        self._by_request.clear()
        self._released.clear()
        self._num_blocks = 0

    def _peak(self) -> int:
        """Peak of blocks filled at a request's end; the one with least to fill ends next."""
        growing = sorted(self._by_request.items(), key=lambda item: item[1])
        peak = settled = 0
        for number, (request_id, remaining) in enumerate(growing):
            peak = max(peak, settled + remaining * (len(growing) - number))
            settled += remaining - self._released.get(request_id, 0)
        return peak
