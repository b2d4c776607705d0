"""Sets predictions aside while a plain LRU cache would have had more hits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from holdfast.core.turn import Turn

__all__ = ["PredictionGuard", "Predictions"]

Predictions = Literal["guarded", "always", "never"]

_SHADOW_BLOCKS = 1024
_TURNOVERS_A_WINDOW = 4
_REGRET_SHARE = 0.02
_LONGEST_PENALTY = 64


class PredictionGuard:
    """Compares the cache with a shadow LRU cache over a sample of the blocks.

    The shadow sees the admitted turns in their order. A window ends once prompts have asked for
    four times the cache. If the shadow's hit ratio in it is two percentage points above the real
    one, predictions are not used for a window; for two the next time, then for four and so on up to
    64, and for half as many after each window in which they did no harm. So predictions that always
    mislead are used in one window of 65 in the end.

    Source: sampled miniature caches, Waldspurger et al., SHARDS, FAST 2015, and Miniature Cache
    Simulation, ATC 2017; choosing between policies by what each would have done, as adaptive
    caches do.
    Differs: blocks are sampled by depth, which is the same for all that share them, so that a turn
    costs one look at every n-th block.

    Args:
        predictions: `guarded` compares; `always` and `never` do not.

    Attributes:
        trusts: Whether predictions may be used now.
        num_trips: Windows after which predictions were set aside (count).
    """

    def __init__(self, predictions: Predictions = "guarded") -> None:
        self.trusts = predictions != "never"
        self.num_trips = 0
        self._is_guarded = predictions == "guarded"
        self._stride = self._capacity = 0
        self._idle: OrderedDict[bytes, None] = OrderedDict()
        self._num_users: dict[bytes, int] = {}
        self._arrived: dict[Turn, Sequence[bytes]] = {}
        self._running: dict[Turn, Sequence[bytes]] = {}
        self._num_wanted = self._num_found = self._num_shadow_found = 0
        self._penalty = 1
        self._num_windows_left = 0

    def watch(self, capacity_blocks: int) -> None:
        """Compare from now on, with a shadow cache of so many blocks. Mutates."""
        if self._is_guarded:
            self._stride = max(capacity_blocks // _SHADOW_BLOCKS, 1)
            self._capacity = max(capacity_blocks // self._stride, 1)

    def turn_arrived(self, turn: Turn, hashes: Sequence[bytes]) -> None:
        """Sample a prompt. Mutates."""
        if self._capacity:
            self._arrived[turn] = hashes[self._stride - 1 :: self._stride]

    def turn_started(self, turn: Turn) -> bool:
        """Compare the turn's hits, and put its blocks into the shadow. Mutates.

        Returns:
            Whether `trusts` has changed.
        """
        keys = self._arrived.pop(turn, None)
        if keys is None:
            return False
        self._num_wanted += len(keys)
        self._num_found += min(turn.resident_blocks // self._stride, len(keys))
        is_found = True
        for key in keys:
            is_found = is_found and (key in self._idle or key in self._num_users)
            self._num_shadow_found += is_found
            self._use(key)
        self._running[turn] = keys
        return self._judge() if self._num_wanted >= _TURNOVERS_A_WINDOW * self._capacity else False

    def turn_ended(self, turn: Turn, hashes: Sequence[bytes]) -> None:
        """Free the turn's blocks in the shadow, deepest first as in the engine. Mutates."""
        self._arrived.pop(turn, None)
        held = self._running.pop(turn, None)
        if held is None:
            return
        answer = hashes[self._stride - 1 :: self._stride][len(held) :]
        for key in answer:
            self._use(key)
        for key in reversed([*held, *answer]):
            num_users = self._num_users[key] - 1
            if num_users:
                self._num_users[key] = num_users
            else:
                del self._num_users[key]
                self._idle[key] = None

    def clear(self) -> None:
        """Empty the shadow, as the cache was emptied. Mutates."""
        self._idle.clear()
        self._num_users.clear()
        self._arrived.clear()
        self._running.clear()

    def _use(self, key: bytes) -> None:
        if key in self._num_users:
            self._num_users[key] += 1
            return
        self._idle.pop(key, None)
        self._num_users[key] = 1
        while self._idle and len(self._idle) + len(self._num_users) > self._capacity:
            self._idle.popitem(last=False)

    def _judge(self) -> bool:
        regret = (self._num_shadow_found - self._num_found) / self._num_wanted
        self._num_wanted = self._num_found = self._num_shadow_found = 0
        if not self.trusts:
            self._num_windows_left -= 1
            self.trusts = not self._num_windows_left
            return self.trusts
        if regret <= _REGRET_SHARE:
            self._penalty = max(self._penalty // 2, 1)
            return False
        self.trusts = False
        self.num_trips += 1
        self._num_windows_left = self._penalty
        self._penalty = min(2 * self._penalty, _LONGEST_PENALTY)
        return True
