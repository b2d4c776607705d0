"""A cache without an engine: what a policy's host does, in a hundred lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.cache.eviction_queue import EvictionQueue
from holdfast.core.turn import Turn
from holdfast.predict.step_cost import StepCostModel
from holdfast.runtime.runtime import AgentRuntime
from holdfast.tool_calls.turn_end import TurnEnd

GROUP_ID = b"\x00\x00\x00\x00"
TOOL = TurnEnd("tool", ())


@dataclass(eq=False)
class FakeBlock:
    """As much of vLLM's block as the queue touches."""

    block_id: int
    block_hash: bytes | None = None
    prev_free_block: Any = None
    next_free_block: Any = None


@dataclass
class FixedOracle:
    """A future that is told beforehand: the gap after each request, the prompts of one run."""

    gaps_s: dict[str, float] = field(default_factory=dict)
    prompts: dict[str, list[bytes]] = field(default_factory=dict)

    def gap_after_s(self, request_id: str) -> float:
        return self.gaps_s.get(request_id, math.inf)

    def session_id_of(self, request_id: str) -> str:
        del request_id
        return "run"

    def prompts_after(self, request_id: str) -> Iterator[Sequence[bytes]]:
        order = list(self.prompts)
        later = order[order.index(request_id) + 1 :] if request_id in self.prompts else []
        return (self.prompts[i] for i in later)


class FlatCosts(StepCostModel):
    """Every token costs the same, nothing else costs anything."""

    def __init__(self, token_s: float) -> None:
        super().__init__()
        self._token_s = token_s

    def prefill_s(self, num_tokens: float, context_tokens: float = 0.0) -> float:
        del context_tokens
        return self._token_s * num_tokens


class Cache:
    """Blocks of a few characters each, one turn at a time, under any policy."""

    def __init__(self, policy: str, num_blocks: int, oracle: FixedOracle | None = None) -> None:
        self.now_s = 0.0
        self.runtime = AgentRuntime(
            max_sessions=1000,
            max_wait_ratio=1.5,
            policy=policy,
            oracle=oracle or FixedOracle(),
        )
        self.runtime.costs = FlatCosts(0.1)
        self.evicted: list[bytes] = []
        self.num_stored = 0
        self.num_batches = 0
        self.in_use: set[int] = set()
        self.queue = EvictionQueue(
            [FakeBlock(i) for i in range(num_blocks)],
            num_blocks,
            self.runtime.tree,
            self.runtime.priority_of,
            self._note_evicted,
        )
        self.runtime.attach(self.queue, num_blocks, 16)
        self.cached: dict[bytes, FakeBlock] = {}

    def run(
        self,
        request_id: str,
        hashes: Sequence[bytes],
        end: TurnEnd | None = TOOL,
        group: str | None = None,
    ) -> int:
        """Run one turn; returns the blocks it found."""
        self.runtime.tick(self.now_s)
        turn = self.runtime.turn_arrived(request_id, list(hashes), group)
        self.runtime.step(num_stale=4 * self.num_batches)
        self.num_batches = 0
        offers = self.offers([turn])
        assert offers == [turn], "an idle engine is given its only turn"
        self.runtime.turn_started(turn)
        blocks, num_found = self._allocate(hashes)
        self.now_s += 0.1
        self.runtime.tick(self.now_s)
        self.runtime.turn_ended(turn, list(hashes), end)
        self.in_use.clear()
        self.queue.append_n(list(reversed(blocks)))
        return num_found

    def offers(self, waiting: list[Turn]) -> list[Turn]:
        if not self.runtime.policies.orders_requests:
            return waiting
        free = self.queue.num_free_blocks - self.queue.num_reserved_blocks
        return list(self.runtime.admit(waiting, free, 8, 0).admitted)

    def _allocate(self, hashes: Sequence[bytes]) -> tuple[list[FakeBlock], int]:
        found = []
        for block_hash in hashes:
            if block_hash not in self.cached:
                break
            found.append(self.cached[block_hash])
        for block in found:
            self.queue.remove(block)
            self.in_use.add(block.block_id)
        new = [self._take(block_hash) for block_hash in hashes[len(found) :]]
        return found + new, len(found)

    def _take(self, block_hash: bytes) -> FakeBlock:
        block: FakeBlock = self.queue.popleft()
        assert block.block_id not in self.in_use, "a block in use was given away"
        self.in_use.add(block.block_id)
        if block.block_hash is not None:
            content = block.block_hash[: -len(GROUP_ID)]
            del self.cached[content]
            self.evicted.append(content)
        self.num_stored += 1
        block.block_hash = block_hash + GROUP_ID
        self.cached[block_hash] = block
        return block

    def _note_evicted(self, node: Any, num_blocks: int) -> None:
        del node, num_blocks
        self.num_batches += 1

    def check(self) -> None:
        self.queue.check_integrity()
        self.runtime.tree.check_integrity()


def chain(text: str) -> list[bytes]:
    """One block a character; the hash spells out the whole prefix."""
    return [text[: i + 1].encode() for i in range(len(text))]
