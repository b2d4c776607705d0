"""How many blocks the running requests will still take.

Process: scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["DecodeGrowth"]

_LOOKED_AT = 64


class DecodeGrowth:
    """Expected growth by request, kept as a sum; a review looks at a few requests, in turn.

    What a request has filled since it was looked at counts as growth still: with many running the
    sum errs to the safe side, by less than a block a request.

    Where requests give their blocks up as they end, others can grow into those. Then what counts is
    the most that all take at any time, if all grow at one pace.

    Args:
        remaining: Blocks that a running request will still take (count, >= 0).
    """

    def __init__(self, remaining: Callable[[Any], int]) -> None:
        self._remaining = remaining
        self._by_request: dict[str, int] = {}
        self._given_up: dict[str, int] = {}
        self._next = 0
        self._num_blocks = 0

    def review(self, running: Sequence[Any]) -> int:
        """Blocks that all running requests will take (count). Mutates what is known of some."""
        num_running = len(running)
        num_looked_at = min(num_running, _LOOKED_AT)
        for place in range(self._next, self._next + num_looked_at):
            request = running[place % num_running]
            self.expect(request.request_id, self._remaining(request))
        self._next = (self._next + num_looked_at) % max(num_running, 1)
        return self._peak() if self._given_up else self._num_blocks

    def expect(self, request_id: str, num_blocks: int) -> None:
        """A request will take so many blocks (count)."""
        self._num_blocks += num_blocks - self._by_request.get(request_id, 0)
        self._by_request[request_id] = num_blocks

    def gives_up(self, request_id: str, num_blocks: int) -> None:
        """A request will leave so many blocks to others when it ends (count)."""
        self._given_up[request_id] = num_blocks

    def forget(self, request_id: str) -> None:
        """A request runs no more."""
        self._num_blocks -= self._by_request.pop(request_id, 0)
        self._given_up.pop(request_id, None)

    def clear(self) -> None:
        """No request runs."""
        self._by_request.clear()
        self._given_up.clear()
        self._num_blocks = 0

    def _peak(self) -> int:
        """The most that is taken at any end of a request; the next to end has least to grow."""
        growing = sorted(self._by_request.items(), key=lambda item: item[1])
        peak = settled = 0
        for number, (request_id, remaining) in enumerate(growing):
            peak = max(peak, settled + remaining * (len(growing) - number))
            settled += remaining - self._given_up.get(request_id, 0)
        return peak
