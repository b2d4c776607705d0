"""Where sessions are, as far as several gateways know it together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from itertools import islice
from typing import Final, NamedTuple

from holdfast.gateway.sessions_in_use import SessionKey

__all__ = ["Origin", "OriginTable", "hashed_choice"]

_MOST_KEYS: Final = 200_000


class Origin(NamedTuple):
    """Where a session was last sent.

    Attributes:
        engine: Name of the engine.
        num_bytes: Length of the prompt that it was sent (bytes).
        sent_s: When (s, the table's clock).
    """

    engine: str
    num_bytes: int
    sent_s: float


class OriginTable:
    """Origins by session; the least recently noted are forgotten first.

    Args:
        lease_s: Those older than this are not found (s).
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._origins: OrderedDict[SessionKey, Origin] = OrderedDict()

    def find(self, keys: Sequence[SessionKey], now_s: float) -> Origin | None:
        """The origin of the first known key; None if none is known. Pure."""
        for key in keys:
            found = self._origins.get(key)
            if found is not None and now_s - found.sent_s <= self._lease_s:
                return found
        return None

    def note(self, key: SessionKey, origin: Origin) -> None:
        """Take in where a session was sent, unless a later origin is known. Mutates."""
        known = self._origins.get(key)
        if known is not None and known.sent_s > origin.sent_s:
            return
        self._origins[key] = origin
        self._origins.move_to_end(key)
        if len(self._origins) > _MOST_KEYS:
            self._origins.popitem(last=False)

    def recent(self, most: int, now_s: float) -> list[tuple[SessionKey, Origin]]:
        """The last noted origins, each with its age (s) in place of its time. Pure."""
        return [
            (key, origin._replace(sent_s=now_s - origin.sent_s))
            for key, origin in islice(reversed(self._origins.items()), most)
        ]


def hashed_choice(key: SessionKey, names: Sequence[str]) -> list[str]:
    """Order names by a session's preference; all who ask agree. Pure.

    When a name leaves, only the sessions that preferred it go elsewhere.

    Source: rendezvous hashing (Thaler and Ravishankar, 1998).
    """
    seed = sha256(key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key).digest()
    return sorted(names, key=lambda name: sha256(seed + name.encode()).digest())
