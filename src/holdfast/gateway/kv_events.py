"""KV events of a stock engine: how much of each session it still holds.

The gateway names its sessions to the engine (`X-Session-ID`), and the engine names them with the
blocks that it stores or uses again. So neither a tokenizer nor the engine's hash function is
needed. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec

__all__ = ["EventResidency", "KvEvent", "KvEventReader", "decode_events", "engine_session_id"]

logger = logging.getLogger(__name__)

_PREFIX: Final = "hf-"
_SEQUENCE_BYTES: Final = 8
_END_OF_REPLAY: Final = (-1).to_bytes(_SEQUENCE_BYTES, "big", signed=True)
_REPLAY_S: Final = 10.0
_MOST_BATCHES: Final = 100_000
_MOST_BLOCKS: Final = 1 << 21
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
        block_tokens: Tokens a block, of stored ones.
        session_id: The session that stored or used them; None if the engine does not say.
        is_whole: Whether the cache group keeps whole prompts: a sliding window drops by itself.
    """

    kind: str
    keys: Sequence[BlockKey] = ()
    block_tokens: int = 0
    session_id: str | None = None
    is_whole: bool = True


def engine_session_id(key: bytes | str) -> str:
    """Return the opaque name of a session for engines. Pure."""
    text = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
    return _PREFIX + sha256(text).hexdigest()[:32]


def decode_events(payload: bytes) -> list[KvEvent]:
    """Read a batch of events, as maps or as arrays. Pure.

    Unknown events and lower tiers are left out.

    Raises:
        ValueError: It is no such batch.
    """
    try:
        _, events = _decode(payload)[:2]
        return [event for each in events if (event := _event_of(_named(each))) is not None]
    except (msgspec.MsgspecError, TypeError, KeyError, IndexError, UnicodeDecodeError) as error:
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
    return KvEvent(
        kind,
        [(group, name) for name in event.get("block_hashes", ())],
        event.get("block_size", 0),
        session_id if isinstance(session_id, str) else None,
        spec is None or spec in _FULL_ATTENTION,
    )


class EventResidency:
    """Blocks of the gateway's sessions in one engine's prefix cache, by its events.

    Attributes:
        is_current: Whether it knows all events since it began or was cleared.
    """

    def __init__(self) -> None:
        self.is_current = False
        self._names_sessions = False
        self._users: dict[BlockKey, set[str]] = {}
        self._num_blocks: Counter[tuple[str, int]] = Counter()  # by session and group
        self._block_tokens: dict[int, int] = {}  # by group

    def resident_tokens(self, session_id: str) -> int | None:
        """Tokens of a session in the cache; None if not known. Pure.

        It is not before the engine has named a session of the gateway's: older ones name none.
        """
        if not self.is_current or not self._names_sessions:
            return None
        return min(
            self._num_blocks[session_id, group] * tokens
            for group, tokens in self._block_tokens.items()
        )

    def apply(self, event: KvEvent) -> None:
        """Take in an event; a repeated one changes nothing. Mutates."""
        if event.kind == "AllBlocksCleared":
            self._forget_blocks()
        elif event.kind == "BlockRemoved":
            for key in event.keys:
                for user in self._users.pop(key, ()):
                    self._count(user, key[0], -1)
        elif event.is_whole:
            self._store(event)

    def clear(self) -> None:
        """Forget everything: events were lost. Mutates."""
        self.is_current = False
        self._forget_blocks()

    def _store(self, event: KvEvent) -> None:
        session_id = event.session_id
        for group, _ in event.keys[:1]:
            self._block_tokens[group] = event.block_tokens
        if session_id is None or not session_id.startswith(_PREFIX):
            return
        self._names_sessions = True
        for key in event.keys:
            users = self._users.setdefault(key, set())
            if session_id not in users:
                users.add(session_id)
                self._count(session_id, key[0], 1)
        if len(self._users) > _MOST_BLOCKS:
            logger.warning("more than %d KV blocks reported; residency starts anew", _MOST_BLOCKS)
            self.clear()

    def _count(self, session_id: str, group: int, change: int) -> None:
        self._num_blocks[session_id, group] += change
        if not self._num_blocks[session_id, group]:
            del self._num_blocks[session_id, group]

    def _forget_blocks(self) -> None:
        self._users.clear()
        self._num_blocks.clear()


class KvEventReader:
    """Subscribes to an engine's events and asks again for missed ones.

    Args:
        name: The engine's, for log lines.
        endpoint: Where the engine publishes (`--kv-events-config` `endpoint`).
        replay_endpoint: Where it repeats (`replay_endpoint`); None if it does not.
        residency: Takes the events in.
    """

    def __init__(
        self, name: str, endpoint: str, replay_endpoint: str | None, residency: EventResidency
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._replay_endpoint = replay_endpoint
        self._residency = residency
        self._expected: int | None = None

    async def run(self) -> None:
        """Read events until cancelled.

        Raises:
            ImportError: pyzmq is not installed.
        """
        import zmq
        import zmq.asyncio

        context = zmq.asyncio.Context.instance()
        with context.socket(zmq.SUB) as socket:
            socket.set_hwm(_MOST_BATCHES)
            socket.subscribe(b"")
            socket.connect(self._endpoint)
            while True:
                frames = await socket.recv_multipart()
                with self._noted():
                    await self._take(int.from_bytes(frames[-2], "big"), frames[-1])

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Go on after a malformed batch, without what was known before it."""
        try:
            yield
        except (ValueError, IndexError) as error:
            logger.warning("engine %s: KV events are not readable: %s", self._name, error)
            self._residency.clear()

    async def _take(self, number: int, payload: bytes) -> None:
        first = 0 if self._expected is None else self._expected
        if number < first:  # the engine has restarted
            self._residency.clear()
            first = 0
        if number > first and not await self._replay(first, number):
            # What it held before is not known; what comes from now on is.
            self._residency.clear()
        self._expected = number + 1
        self._apply(payload)
        self._residency.is_current = True

    def _apply(self, payload: bytes) -> None:
        for event in decode_events(payload):
            self._residency.apply(event)

    async def _replay(self, first: int, end: int) -> bool:
        """Take in the batches from `first` to before `end`; whether all came."""
        if self._replay_endpoint is None:
            return False
        try:
            async with asyncio.timeout(_REPLAY_S):
                return await self._repeated(first, end)
        except TimeoutError:
            logger.warning("engine %s repeats no KV events; some are lost", self._name)
            return False

    async def _repeated(self, first: int, end: int) -> bool:
        import zmq
        import zmq.asyncio

        expected = first
        with zmq.asyncio.Context.instance().socket(zmq.DEALER) as socket:
            socket.set(zmq.LINGER, 0)
            socket.connect(self._replay_endpoint or "")
            await socket.send_multipart([b"", first.to_bytes(_SEQUENCE_BYTES, "big")])
            while True:
                number_bytes, payload = (await socket.recv_multipart())[-2:]
                number = int.from_bytes(number_bytes, "big")
                if number_bytes == _END_OF_REPLAY or expected == end:
                    return expected == end
                if number == expected:
                    self._apply(payload)
                    expected += 1
                elif number > expected:
                    return False
