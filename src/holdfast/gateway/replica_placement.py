"""Places sessions on replicas that come and go, as the gateway does on engines."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Final

from holdfast.gateway.coordinator import Asked
from holdfast.gateway.dispatch import Dispatcher
from holdfast.gateway.engines import Engine
from holdfast.gateway.shared_origins import Origin

__all__ = ["ReplicaPlacement"]

_MOST_OPEN: Final = 10_000


class ReplicaPlacement:
    """Chooses a replica for each request; holds none.

    Not thread-safe.

    Args:
        lease_s: Sessions idle for longer count as gone (s).
        kv_tokens: Size of a replica's KV cache; None if not known (tokens).
    """

    def __init__(self, lease_s: float = 1800.0, kv_tokens: int | None = None) -> None:
        self._kv_tokens = kv_tokens
        self._replicas: list[Engine] = []
        self._dispatcher = Dispatcher(self._replicas, lease_s)
        self._open: OrderedDict[str, str] = OrderedDict()

    def choice(
        self,
        request_id: str,
        asked: Asked,
        names: Collection[str],
        now_s: float,
        told: Origin | None = None,
    ) -> str:
        """Choose a replica; a request that is asked for again keeps its own. Mutates.

        Args:
            request_id: Unique among open requests; `ended` must follow.
            asked: The request.
            names: Replicas to choose from, at least one.
            now_s: Time now (s, monotonic).
            told: Where another process sent its session last; None if none did.
        """
        chosen = self._open.get(request_id)
        if chosen in names:
            return str(chosen)
        self.ended(request_id, now_s)
        known = self._known(names)
        placements = self._dispatcher.placements
        told_engine = None
        if told is not None and told.engine in known:
            mine = placements.origin(asked.session_id, asked.path)
            if mine is not known[told.engine]:
                told_engine = known[told.engine], told.num_bytes
        return self._place(request_id, asked, now_s, told=told_engine)

    def sent(self, request_id: str, asked: Asked, name: str, now_s: float) -> None:
        """Take in where a request was sent, should that be elsewhere. Mutates."""
        if self._open.get(request_id) == name:
            return
        self.ended(request_id, now_s)
        where = next((each for each in self._replicas if each.name == name), None)
        if where is not None:
            self._place(request_id, asked, now_s, where=where)

    def ended(self, request_id: str, now_s: float) -> None:
        """Take in that a request is over, however it ended. Mutates."""
        if self._open.pop(request_id, None) is not None:
            self._dispatcher.ended(request_id, now_s)

    def _place(
        self,
        request_id: str,
        asked: Asked,
        now_s: float,
        where: Engine | None = None,
        told: tuple[Engine, int] | None = None,
    ) -> str:
        placed = self._dispatcher.place(
            request_id, asked.session_id, asked.path, now_s, where=where, told=told
        )
        self._dispatcher.take(now_s)
        self._open[request_id] = placed.engine.name
        if len(self._open) > _MOST_OPEN:
            self.ended(next(iter(self._open)), now_s)
        return placed.engine.name

    def _known(self, names: Collection[str]) -> dict[str, Engine]:
        """The replicas by name; those that are gone are forgotten. Mutates."""
        for each in [each for each in self._replicas if each.name not in names]:
            self._replicas.remove(each)
            self._dispatcher.lost(each)
        known = {each.name: each for each in self._replicas}
        for name in names:
            if name not in known:
                known[name] = Engine(name, "", admits=True)
                known[name].learn_capacity(self._kv_tokens)
                self._replicas.append(known[name])
        return known
