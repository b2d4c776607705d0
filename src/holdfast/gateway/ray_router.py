"""Routes requests of Ray Serve LLM as the gateway places them.

`LLMConfig(deployment_config={"request_router_config": {"request_router_class":
"holdfast.gateway.ray_router:HoldfastRequestRouter"}})`, or a deployment's `RequestRouterConfig`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

import msgspec
import ray
from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from holdfast.core.request_body import RequestBody
from holdfast.gateway.coordinator import Asked
from holdfast.gateway.prompt_path import prompt_path
from holdfast.gateway.replica_placement import ReplicaPlacement
from holdfast.gateway.sessions_in_use import SessionKey
from holdfast.gateway.shared_origins import Origin, OriginTable

__all__ = ["HoldfastRequestRouter"]

logger = logging.getLogger(__name__)

_PROMPTS: Final = ("messages", "input", "prompt")
_NAMESPACE: Final = "serve"


class HoldfastRequestRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]
    """Sends each session to the replica that has its KV blocks.

    The session is what Serve knows as one (`session_id`), else the prompt tells it. A session
    returns to its replica unless waiting there costs more than computing its prompt elsewhere.
    Requests without a prompt go where the fewest are.

    Processes that route tell each other where sessions are by an actor. Without it, as after its
    end, each goes by what it has sent itself.
    """

    def initialize_state(self, lease_s: float = 1800.0, kv_tokens: int | None = None) -> None:
        """Set the router up, once. Mutates.

        Args:
            lease_s: Sessions idle for longer count as gone (s).
            kv_tokens: Size of a replica's KV cache; None if not known (tokens).
        """
        self._lease_s = lease_s
        self._placement = ReplicaPlacement(lease_s, kv_tokens)
        self._shared: Any = None

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The session's replica first, then all others. Mutates."""
        asked = None if pending_request is None else _asked(pending_request)
        if pending_request is None or asked is None or not candidate_replicas:
            return [candidate_replicas]
        by_name = {each.replica_id.to_full_id_str(): each for each in candidate_replicas}
        told = await self._told(asked.keys())
        request_id = pending_request.metadata.internal_request_id
        chosen = by_name[self._placement.choice(request_id, asked, by_name, monotonic(), told)]
        return [[chosen], [each for each in candidate_replicas if each is not chosen]]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Take in where a request was sent, and tell the other routers. Mutates."""
        del result
        asked = _asked(pending_request)
        if asked is None:
            return
        name = replica_id.to_full_id_str()
        request_id = pending_request.metadata.internal_request_id
        self._placement.sent(request_id, asked, name, monotonic())
        if self._shared is not None:
            self._shared.note.remote(asked.keys()[0], name, asked.num_bytes())

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Take in that a request is over. Mutates."""
        del replica_id
        self._placement.ended(internal_request_id, monotonic())

    async def _told(self, keys: Sequence[SessionKey]) -> Origin | None:
        """Where any router sent a session last; None if that is not known."""
        try:
            if self._shared is None:
                name = f"holdfast-origins:{self._deployment_id}"
                options = {"name": name, "namespace": _NAMESPACE, "get_if_exists": True}
                actor = ray.remote(num_cpus=0, max_restarts=-1)(_SharedOrigins)
                self._shared = actor.options(**options).remote(self._lease_s)
            found: Origin | None = await self._shared.find.remote(list(keys))
        except Exception:
            logger.exception("where other routers sent sessions is not known; a new actor is asked")
            self._shared = None
            return None
        return found


class _SharedOrigins:
    """What the routers of one deployment tell each other; an actor."""

    def __init__(self, lease_s: float) -> None:
        self._table = OriginTable(lease_s)

    def find(self, keys: Sequence[SessionKey]) -> Origin | None:
        return self._table.find(keys, monotonic())

    def note(self, key: SessionKey, name: str, num_bytes: int) -> None:
        self._table.note(key, Origin(name, num_bytes, monotonic()))


def _asked(pending: PendingRequest) -> Asked | None:
    """What places a request; None without a prompt."""
    for argument in (*pending.args, *pending.kwargs.values()):
        body = _body(argument)
        if body is not None and any(body.raw(name) for name in _PROMPTS):
            path = prompt_path(body, "")
            session_id = getattr(pending.metadata, "session_id", "") or None
            return Asked(session_id, path) if path else None
    return None


def _body(argument: object) -> RequestBody | None:
    """A request of Serve LLM (a Pydantic model), or a dictionary, as a body."""
    dumped = getattr(argument, "model_dump_json", None)
    if dumped is not None:
        return RequestBody.parse(dumped(exclude_unset=True).encode())
    if isinstance(argument, dict):
        return RequestBody.parse(msgspec.json.encode(argument, enc_hook=str))
    return None
