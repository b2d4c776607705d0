"""Where sessions are, as far as several gateways know it together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

__all__ = ["Origin", "OriginTable", "SharedOrigins", "hashed_choice"]

_MOST_KEYS: Final = 200_000

SessionKey = bytes | str


class Origin(NamedTuple):
    """Where a session was last sent.

    Attributes:
        engine: Name of the engine.
        num_bytes: Length of the prompt that it was sent (bytes).
    """

    engine: str
    num_bytes: int


class SharedOrigins(Protocol):
    """What one of several gateways asks and tells the others."""

    async def find(self, keys: Sequence[SessionKey]) -> Origin | None:
        """Where the first known of some keys was sent; None if none is known."""

    def note(self, key: SessionKey, origin: Origin) -> None:
        """Take in where a session is sent. Mutates."""


class OriginTable:
    """Origins by session; the least recently noted are forgotten first."""

    def __init__(self) -> None:
        self._origins: OrderedDict[SessionKey, Origin] = OrderedDict()

    def find(self, keys: Sequence[SessionKey]) -> Origin | None:
        """The origin of the first known key; None if none is known. Pure."""
        return next((self._origins[key] for key in keys if key in self._origins), None)

    def note(self, key: SessionKey, origin: Origin) -> None:
        """Take in where a session is sent. Mutates."""
        self._origins[key] = origin
        self._origins.move_to_end(key)
        if len(self._origins) > _MOST_KEYS:
            self._origins.popitem(last=False)


def hashed_choice(key: SessionKey, names: Sequence[str]) -> list[str]:
    """Order names by a session's preference; all who ask agree. Pure.

    When a name leaves, only the sessions that preferred it go elsewhere.

    Source: rendezvous hashing (Thaler and Ravishankar, 1998).
    """
    seed = sha256(key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key).digest()
    return sorted(names, key=lambda name: sha256(seed + name.encode()).digest())
