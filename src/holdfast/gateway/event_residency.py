"""How much of each session an engine still holds, by its KV events."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

from holdfast.gateway.kv_events import SESSION_PREFIX, BlockKey, KvEvent

__all__ = ["EventResidency"]

logger = logging.getLogger(__name__)

_MOST_BLOCKS: Final = 1 << 20
_MOST_SESSIONS: Final = 100_000


@dataclass(slots=True)
class _Block:
    """A block in the cache.

    Attributes:
        num_tokens: Its length (tokens).
        parent: The block before it; None at the beginning of a prompt.
        users: Sessions of the gateway whose prompts have it.
    """

    num_tokens: int
    parent: BlockKey | None
    users: set[str] = field(default_factory=set)


class EventResidency:
    """Blocks of the gateway's sessions in one engine's prefix cache, by its events.

    An engine names the session that stores a block, not those that use it again. So a session has
    the blocks that it stored and all those before them.

    Attributes:
        is_current: Whether it knows all events since it began or was cleared.
    """

    def __init__(self) -> None:
        self.is_current = False
        self._blocks: dict[BlockKey, _Block] = {}
        self._groups: set[int] = set()
        self._num_tokens: Counter[tuple[str, int]] = Counter()  # by session and group
        self._is_known: OrderedDict[str, bool] = OrderedDict()  # of the sessions named
        self._gone: set[str] = set()  # of those, forgotten with their last block

    def resident_tokens(self, session_id: str) -> int | None:
        """Tokens of a session in the cache; None if not known. Pure.

        It is not before the engine has named the session: older engines name none, and a short
        prompt may use blocks of others only. Nor is it where blocks before the session's own were
        stored in events that are lost.
        """
        if not self.is_current or not self._is_known.get(session_id):
            return None
        return min(self._num_tokens[session_id, group] for group in self._groups)

    def forget(self, session_id: str) -> None:
        """Forget a session that is gone, once none of its blocks is left. Mutates."""
        if session_id in self._is_known:
            self._gone.add(session_id)
            self._drop_if_gone(session_id)

    def apply(self, event: KvEvent) -> None:
        """Take in an event; a repeated one changes nothing. Mutates."""
        if event.kind == "AllBlocksCleared":
            self._forget_blocks()
        elif event.kind == "BlockRemoved":
            for key in event.keys:
                if block := self._blocks.pop(key, None):
                    for user in block.users:
                        self._count(user, key[0], -block.num_tokens)
        elif event.is_whole:
            self._store(event)

    def clear(self) -> None:
        """Forget everything: events were lost. Mutates."""
        self.is_current = False
        self._forget_blocks()
        self._is_known.clear()
        self._gone.clear()

    def _store(self, event: KvEvent) -> None:
        parent = event.parent
        for key in event.keys:
            self._groups.add(key[0])
            self._blocks.setdefault(key, _Block(event.block_tokens, parent))
            parent = key
        session_id = event.session_id
        if session_id is not None and session_id.startswith(SESSION_PREFIX):
            self._note(session_id, self._use(session_id, parent))
        if len(self._blocks) > _MOST_BLOCKS:
            logger.warning("more than %d KV blocks reported; residency starts anew", _MOST_BLOCKS)
            self.clear()

    def _use(self, session_id: str, last: BlockKey | None) -> bool:
        """Count a block and all before it for a session; whether all are known.

        O(blocks not yet counted).
        """
        while last is not None:
            block = self._blocks.get(last)
            if block is None:
                return False
            if session_id in block.users:
                break
            block.users.add(session_id)
            self._count(session_id, last[0], block.num_tokens)
            last = block.parent
        return True

    def _note(self, session_id: str, is_known: bool) -> None:
        self._is_known[session_id] = is_known and self._is_known.get(session_id, True)
        self._is_known.move_to_end(session_id)
        self._gone.discard(session_id)
        if len(self._is_known) > _MOST_SESSIONS:
            self._gone.discard(self._is_known.popitem(last=False)[0])

    def _count(self, session_id: str, group: int, change: int) -> None:
        self._num_tokens[session_id, group] += change
        if not self._num_tokens[session_id, group]:
            del self._num_tokens[session_id, group]
            self._drop_if_gone(session_id)

    def _drop_if_gone(self, session_id: str) -> None:
        held = any((session_id, group) in self._num_tokens for group in self._groups)
        if session_id in self._gone and not held:
            self._gone.discard(session_id)
            self._is_known.pop(session_id, None)

    def _forget_blocks(self) -> None:
        self._blocks.clear()
        self._num_tokens.clear()
        for session_id in self._gone:
            self._is_known.pop(session_id, None)
        self._gone.clear()
