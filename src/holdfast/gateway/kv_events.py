"""KV events of stock engines, as they are on the wire.

The gateway names its sessions to the engine (`X-Session-ID`), and the engine names them with the
blocks that it stores. So neither a tokenizer nor the engine's hash function is needed. Checked on
vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec

__all__ = ["SESSION_PREFIX", "BlockKey", "KvBatch", "KvEvent", "decode_batch", "engine_session_id"]

SESSION_PREFIX: Final = "hf-"
"""Begins the names of the gateway's sessions."""

_FULL_ATTENTION: Final = frozenset({"full_attention", "mla_attention"})
# Fields of the positional form, in the order of vLLM's older builds.
_ARRAYS: Final[Mapping[str, Sequence[str]]] = {
    "BlockStored": (
        *("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id"),
        *("medium", "lora_name", "extra_keys", "group_idx", "kv_cache_spec_kind"),
        *("kv_cache_spec_sliding_window", "locality", "ownership", "session_id"),
    ),
    "BlockRemoved": ("block_hashes", "medium", "group_idx", "locality", "ownership"),
    "AllBlocksCleared": (),
}
_decode = msgspec.msgpack.Decoder().decode

BlockKey = tuple[int, bytes | int]
"""A cache group and a block's hash."""


class KvEvent(NamedTuple):
    """One event.

    Attributes:
        kind: Stored, removed, or everything cleared.
        keys: The blocks; none if everything is cleared.
        parent: The block before the first of stored ones; None at the beginning of a prompt.
        block_tokens: Tokens a block, of stored ones.
        session_id: The session that stored them; None if the engine does not say.
        is_whole: Whether the cache group keeps whole prompts: a sliding window drops by itself.
    """

    kind: str
    keys: Sequence[BlockKey] = ()
    parent: BlockKey | None = None
    block_tokens: int = 0
    session_id: str | None = None
    is_whole: bool = True


class KvBatch(NamedTuple):
    """Events that an engine publishes together.

    Attributes:
        published_s: When, by the engine's clock (s).
        events: In order.
    """

    published_s: float
    events: Sequence[KvEvent]


def engine_session_id(key: bytes | str) -> str:
    """Return the opaque name of a session for engines. Pure."""
    text = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    return SESSION_PREFIX + sha256(text).hexdigest()[:32]


def decode_batch(payload: bytes) -> KvBatch:
    """Read a batch of events, as maps or as arrays. Pure.

    Unknown events and lower tiers are left out.

    Raises:
        ValueError: It is no such batch.
    """
    try:
        published_s, events = _decode(payload)[:2]
        found = [event for each in events if (event := _event_of(_named(each))) is not None]
        return KvBatch(float(published_s), found)
    except (msgspec.MsgspecError, TypeError, KeyError, IndexError, ValueError) as error:
        raise ValueError(f"not a batch of KV events: {error}") from None


def _named(event: Any) -> Mapping[str, Any]:
    if isinstance(event, Mapping):
        return event
    kind, *values = event
    return {"type": kind, **dict(zip(_ARRAYS.get(kind, ()), values, strict=False))}


def _event_of(event: Mapping[str, Any]) -> KvEvent | None:
    kind = event["type"]
    if kind not in _ARRAYS or event.get("medium") not in (None, "GPU"):
        return None
    group = event.get("group_idx") or 0
    spec = event.get("kv_cache_spec_kind")
    session_id = event.get("session_id")
    parent = event.get("parent_block_hash")
    return KvEvent(
        kind,
        [(group, name) for name in event.get("block_hashes", ())],
        None if parent is None else (group, parent),
        event.get("block_size", 0),
        session_id if isinstance(session_id, str) else None,
        spec is None or spec in _FULL_ATTENTION,
    )
