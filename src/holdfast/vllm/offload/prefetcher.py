"""Bringing the blocks of paused sessions back before they ask, where room and link are idle.

Process: scheduler. Checked on vLLM 0.32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from holdfast.core.sessions import Session
from holdfast.vllm.offload.ghosts import Ghosts

__all__ = ["Prefetcher"]

_STEPS_BETWEEN_LOOKS = 8
_LOOKED_AT = 4


class Prefetcher:
    """One copy at a time, for the session that is expected back first.

    Room is what no running turn will grow into and no session holds; what comes back takes blocks
    there by the usual order of victims. So nothing that runs is slowed down, and a turn that
    arrives finds the link at most one copy away from idle.

    Args:
        ghosts: Starts and ends the copies.
        is_cached: Whether the KV cache has a block of this prefix hash.

    Attributes:
        outcomes: Copies by what became of them: `used` by the session's next turn, `late` when it
            arrived before the copy had ended, `wasted` when the session did not come back or its
            blocks were evicted again, `refused` where there was nothing to copy or no room.
    """

    def __init__(self, ghosts: Ghosts, is_cached: Callable[[Any], bool]) -> None:
        self.outcomes: Counter[str] = Counter()
        self._ghosts = ghosts
        self._is_cached = is_cached
        self._num_steps = 0
        self._under_way: set[Session] = set()
        self._brought: dict[Session, Any] = {}  # last hash that came back

    def step(
        self, num_steps: int, paused: Callable[[], Iterable[Session]], room_blocks: int
    ) -> None:
        """End copies that are over, and begin another if there is room. Before `schedule` only.

        Args:
            num_steps: Engine steps begun (count).
            paused: Sessions that are away, the first expected back foremost.
            room_blocks: Blocks that may be taken (count).
        """
        for session in self._ghosts.take_finished():
            self._under_way.discard(session)
        is_early = num_steps < self._num_steps + _STEPS_BETWEEN_LOOKS
        if len(self._ghosts) or room_blocks <= 0 or is_early:
            return
        self._num_steps = num_steps
        for session in islice(paused(), _LOOKED_AT):
            if self._begin(session, room_blocks):
                return

    def arrived(self, session: Session) -> None:
        """The session's next prompt is here: see what became of a copy for it."""
        last = self._brought.pop(session, None)
        if last is None:
            return
        if session in self._under_way:
            self.outcomes["late"] += 1
        else:
            self.outcomes["used" if self._is_cached(last) else "wasted"] += 1

    def ended(self, session: Session) -> None:
        """The session will not come back."""
        if self._brought.pop(session, None) is not None:
            self.outcomes["wasted"] += 1

    def drain(self) -> None:
        """Give up what is under way, for good. Mutates the scheduler."""
        self._ghosts.drain()

    def _begin(self, session: Session, room_blocks: int) -> bool:
        hashes = chain_of(session)
        if not hashes or self._is_cached(hashes[-1]):
            return False
        num_hashes = self._ghosts.begin(session, hashes, room_blocks)
        if not num_hashes:
            self.outcomes["refused"] += 1
            return False
        self._under_way.add(session)
        self._brought[session] = hashes[num_hashes - 1]
        return True


def chain_of(session: Session) -> list[Any]:
    """Prefix hashes of a session's whole chain, in order. O(blocks)."""
    runs = list(session.tail.path())
    return [block_hash for run in reversed(runs) for block_hash in run.hashes]
