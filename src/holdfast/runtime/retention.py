"""Promises to retain sessions' blocks, within each tenant's share of the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session
from holdfast.policies.base import Priority, PriorityClass, users_of

__all__ = ["Retention"]

_MAX_PROMISES: Final = 128  # a tenant
_RETAINED: Final = PriorityClass.LIVE + 0.5


class Retention:
    """Which sessions' blocks are evicted last, and which first, as clients ask.

    All promises together take at most a share of the cache, and each tenant's an equal part of it,
    by the tenants that have turns in the engine or promises. Beyond that a tenant's own promises
    lapse, the least urgent first, then the oldest. A shared block counts once a tenant.

    Args:
        num_blocks: KV blocks of the cache (count).
        tenants_with_turns: Names of the tenants with turns in the engine.

    Attributes:
        share: Share of the cache for all promises together (0 to 1).
    """

    def __init__(
        self, num_blocks: Callable[[], int], tenants_with_turns: Callable[[], set[str]]
    ) -> None:
        self.share = 0.0
        self._num_blocks = num_blocks
        self._tenants_with_turns = tenants_with_turns
        self._promises: dict[str, dict[Session, None]] = {}  # by tenant, oldest first
        self._ends: list[tuple[float, int, Session]] = []
        self._first: dict[Session, None] = {}
        self._num_sharers = 0
        self._numbers = count()

    def __contains__(self, session: Session) -> bool:
        """Whether the session's blocks are promised to stay."""
        return session in self._promises.get(session.tenant, ())

    def share_blocks(self) -> int:
        """Blocks that one tenant's promises may take now (count). Pure."""
        num_sharers = len(self._tenants_with_turns() | self._promises.keys())
        return int(self.share * self._num_blocks() / max(num_sharers, 1))

    def grant(self, session: Session, until_s: float) -> tuple[bool, list[Session]]:
        """Promise to retain blocks, if they fit the tenant's share. Mutates.

        Args:
            session: A paused session.
            until_s: When the promise ends (s, host's clock).

        Returns:
            Whether it is granted, and the sessions of the tenant whose promises lapse for it.
        """
        self.drop(session)
        own = self._promises.setdefault(session.tenant, {})
        own[session] = None
        most_blocks = self.share_blocks()
        if session.tail.end > most_blocks:
            self.drop(session)
            return False, []
        session.retained_until_s = until_s
        self._first.pop(session, None)
        heappush(self._ends, (until_s, next(self._numbers), session))
        return True, self._fit(session.tenant, most_blocks)

    def evict_first(self, session: Session) -> None:
        """Evict a paused session's blocks before those of others. Mutates."""
        self.drop(session)
        self._first[session] = None

    def step(self, now_s: float) -> Iterator[tuple[Session, bool]]:
        """End promises whose time is over, and fit the rest to all tenants. Mutates.

        Yields:
            Sessions whose promises end, and whether before their time.
        """
        if not self._ends:
            return
        while self._ends and self._ends[0][0] <= now_s:
            _, _, session = heappop(self._ends)
            if session in self and session.retained_until_s <= now_s:
                self.drop(session)
                yield session, False
        num_sharers = len(self._tenants_with_turns() | self._promises.keys())
        if num_sharers > self._num_sharers:
            most_blocks = self.share_blocks()
            for tenant in list(self._promises):
                for session in self._fit(tenant, most_blocks):
                    yield session, True
        self._num_sharers = num_sharers

    def drop(self, session: Session) -> bool:
        """End a session's promise, and treat it like others again. Mutates.

        Returns:
            Whether it had a promise.
        """
        self._first.pop(session, None)
        own = self._promises.get(session.tenant)
        if own is None or session not in own:
            return False
        del own[session]
        session.retained_until_s = float("-inf")
        if not own:
            del self._promises[session.tenant]
        if len(self._ends) > 2 * sum(map(len, self._promises.values())) + 64:
            alive = [entry for entry in self._ends if entry[2].retained_until_s == entry[0]]
            self._ends = sorted(alive)
        return True

    def clear(self) -> None:
        """End all promises. Mutates."""
        for own in list(self._promises.values()):
            for session in list(own):
                self.drop(session)
        self._ends.clear()
        self._first.clear()

    def adjusted(self, node: Node[Any], priority: Priority) -> Priority:
        """A node's priority with what its users' clients ask. Pure."""
        if not self._promises and not self._first:
            return priority
        has_first = False
        is_last_use = True
        for user in users_of(node):
            if user in self:
                return max(priority[0], _RETAINED), priority[1]
            has_first |= user in self._first
            is_last_use &= user in self._first or user.state.is_ended
        if has_first and is_last_use:
            return min(priority[0], PriorityClass.CLOSED), priority[1]
        return priority

    def _fit(self, tenant: str, most_blocks: int) -> list[Session]:
        """End promises of a tenant until the rest fits. Mutates; returns their sessions."""
        own = self._promises.get(tenant, {})
        lapsed: list[Session] = []
        while len(own) > _MAX_PROMISES:
            lapsed.append(_first_to_lapse(own))
            self.drop(lapsed[-1])
        if sum(session.tail.end for session in own) <= most_blocks:
            return lapsed
        uses = Counter(node for session in own for node in session.tail.path())
        num_blocks = sum(len(node.hashes) for node in uses)
        while num_blocks > most_blocks and own:
            session = _first_to_lapse(own)
            self.drop(session)
            lapsed.append(session)
            for node in session.tail.path():
                uses[node] -= 1
                if not uses[node]:
                    num_blocks -= len(node.hashes)
        return lapsed


def _first_to_lapse(own: dict[Session, None]) -> Session:
    """The least urgent session, among equals the oldest promise."""
    return max(own, key=lambda session: session.own_priority)
