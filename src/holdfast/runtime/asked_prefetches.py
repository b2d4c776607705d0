"""Prefetches that clients ask for by hints, a few a tenant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.core.session import Session

__all__ = ["AskedPrefetches"]

_MAX_PER_TENANT: Final = 4
_MAX_TENANTS: Final = 256


class AskedPrefetches:
    """Sessions whose blocks are to be loaded from a lower tier before their next turn."""

    def __init__(self) -> None:
        self._by_tenant: dict[str, dict[Session, None]] = {}

    def __iter__(self) -> Iterator[Session]:
        """One session of each tenant, then the next of each, and so on."""
        rows = [list(asked) for asked in self._by_tenant.values()]
        for position in range(_MAX_PER_TENANT):
            for row in rows:
                if position < len(row):
                    yield row[position]

    def ask(self, session: Session) -> bool:
        """Add a session; false if its tenant has enough of them already. Mutates."""
        asked = self._by_tenant.get(session.tenant)
        if asked is None:
            if len(self._by_tenant) >= _MAX_TENANTS:
                return False
            asked = self._by_tenant[session.tenant] = {}
        if session not in asked and len(asked) >= _MAX_PER_TENANT:
            return False
        asked[session] = None
        return True

    def drop(self, session: Session) -> None:
        """Remove a session that has returned or will not. Mutates."""
        asked = self._by_tenant.get(session.tenant)
        if asked is not None:
            asked.pop(session, None)
            if not asked:
                del self._by_tenant[session.tenant]

    def clear(self) -> None:
        """Remove all sessions. Mutates."""
        self._by_tenant.clear()
