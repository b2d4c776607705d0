"""A cache without an engine: what a policy's host does, in a few hundred lines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.cache.eviction_queue import EvictionQueue
from holdfast.core.identity import Identity
from holdfast.core.session import Session
from holdfast.core.tenants import Tenants
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission
from holdfast.policies.base import EvictionPolicy, Priority
from holdfast.predict.features import GapFeatures, GapKind
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.predict.step_cost import StepCostModel
from holdfast.runtime.runtime import AgentRuntime
from holdfast.tool_calls.turn_end import TurnEnd

GROUP_ID = b"\x00\x00\x00\x00"
TOOL = TurnEnd("tool", ())
HUMAN = TurnEnd("human", ())
TOKEN_S = 0.1
BLOCK_TOKENS = 16
BLOCK_S = BLOCK_TOKENS * TOKEN_S
"""Time to compute a block (s)."""


@dataclass(eq=False)
class FakeBlock:
    """As much of vLLM's block as the queue touches."""

    block_id: int
    block_hash: bytes | None = None
    prev_free_block: Any = None
    next_free_block: Any = None


@dataclass
class FixedOracle:
    """A given future: the gap and the work after each request, the prompts of one run."""

    gaps_s: dict[str, float] = field(default_factory=dict)
    prompts: dict[str, list[bytes]] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)

    def gap_after_s(self, request_id: str) -> float:
        return self.gaps_s.get(request_id, math.inf)

    def work_left(self, request_id: str) -> float:
        return self.work.get(request_id, 0.0)

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
    """Blocks of one character each, under any policy; 1.6 s to compute a block.

    `run` runs one turn; `arrive`, `start` and `end` are its parts, for turns that overlap.
    """

    def __init__(
        self,
        policy: str,
        num_blocks: int,
        oracle: FixedOracle | None = None,
        returns: ReturnTimeModel | None = None,
        *,
        has_oracle: bool = True,
        tenants: Tenants | None = None,
    ) -> None:
        self.now_s = 0.0
        self.runtime = AgentRuntime(
            max_sessions=1000,
            max_wait_ratio=1.5,
            policy=policy,
            oracle=(oracle or FixedOracle()) if has_oracle else None,
            returns=returns,
            tenants=tenants,
        )
        self.runtime.costs = FlatCosts(TOKEN_S)
        self.evicted: list[bytes] = []
        self.num_stored = 0
        self.num_batches = 0
        self.users: Counter[int] = Counter()
        self.queue = EvictionQueue(
            [FakeBlock(i) for i in range(num_blocks)],
            num_blocks,
            self.runtime.tree,
            self.runtime.priority_of,
            self._note_evicted,
        )
        self.runtime.attach(self.queue, num_blocks, BLOCK_TOKENS)
        self.cached: dict[bytes, FakeBlock] = {}
        self._prompts: dict[Turn, list[bytes]] = {}
        self._allocated: dict[Turn, list[FakeBlock]] = {}

    @property
    def eviction(self) -> EvictionPolicy:
        """The eviction policy."""
        return self.runtime.policies.eviction

    def run(
        self,
        request_id: str,
        hashes: Sequence[bytes],
        end: TurnEnd | None = TOOL,
        group: str | None = None,
        served_s: float = 0.1,
        identity: Identity | None = None,
    ) -> int:
        """Run one turn; returns the blocks it found."""
        turn = self.arrive(request_id, hashes, group, identity)
        self.step()
        offers = self.offers([turn])
        assert offers == [turn], "an idle engine is given its only turn"
        num_found = self.start(turn)
        self.at(self.now_s + served_s)
        self.end(turn, end)
        return num_found

    def session(
        self, request_id: str, hashes: Sequence[bytes], end: TurnEnd | None = TOOL
    ) -> Session:
        """Run one turn that takes no time; returns its session, whose pause has been scored."""
        self.run(request_id, hashes, end, served_s=0.0)
        self.runtime.step(0)
        *_, latest = self.runtime.sessions
        return latest

    def at(self, now_s: float) -> None:
        """Set the time (s)."""
        self.now_s = now_s
        self.runtime.tick(now_s)

    def step(self, num_steps: int = 1) -> None:
        """Begin an engine step, which rescores what has changed."""
        self.runtime.step(num_steps, num_stale=4 * self.num_batches)
        self.num_batches = 0

    def rescore(self) -> None:
        """Let enough steps pass that a policy that rescores every so many does so now."""
        self.step(16)
        self.step()

    def arrive(
        self,
        request_id: str,
        hashes: Sequence[bytes],
        group: str | None = None,
        identity: Identity | None = None,
        fixed_blocks: int | None = None,
    ) -> Turn:
        """Report a prompt; the turn's counts are those of the cache now."""
        self.runtime.tick(self.now_s)
        identity = identity or Identity(session_id=group)
        turn = self.runtime.turn_arrived(
            request_id, list(hashes), identity, fixed_blocks=fixed_blocks
        )
        self._prompts[turn] = list(hashes)
        turn.resident_blocks = self._num_found(hashes)
        turn.missing_blocks = len(hashes) - turn.resident_blocks
        turn.demand_blocks = turn.footprint_blocks = turn.missing_blocks
        return turn

    def start(self, turn: Turn) -> int:
        """Start a turn; returns the blocks it found."""
        self.runtime.turn_started(turn)
        hashes = self._prompts[turn]
        num_found = self._num_found(hashes)
        found = [self.cached[block_hash] for block_hash in hashes[:num_found]]
        for block in found:
            if not self.users[block.block_id]:
                self.queue.remove(block)
            self.users[block.block_id] += 1
        self._allocated[turn] = found + [self._take(h) for h in hashes[num_found:]]
        return num_found

    def end(self, turn: Turn, end: TurnEnd | None = TOOL) -> None:
        """End a turn that was started."""
        self.runtime.tick(self.now_s)
        self.runtime.turn_ended(turn, self._prompts.pop(turn), end)
        blocks = self._allocated.pop(turn)
        for block in blocks:
            self.users[block.block_id] -= 1
        self.queue.append_n([b for b in reversed(blocks) if not self.users[b.block_id]])

    def admit(self, waiting: Sequence[Turn], num_running: int = 1) -> Admission:
        """What admission decides, with the cache's free blocks and eight slots."""
        free = self.queue.num_free_blocks - self.queue.num_reserved_blocks
        return self.runtime.admit(waiting, free, 8, num_running)

    def offers(self, waiting: list[Turn]) -> list[Turn]:
        """What an engine that runs nothing may start."""
        if not self.runtime.policies.orders_requests:
            return waiting
        return list(self.admit(waiting, 0).admitted)

    def priority(self, prefix: str) -> Priority:
        """Priority of the node that ends or contains the prefix's last block."""
        node = self.runtime.tree.locate(prefix.encode())
        assert node is not None
        return self.eviction.priority(node)

    def evict(self, num_blocks: int) -> list[str]:
        """Begin a step, and take blocks until so many prefixes are lost; returns these in order."""
        self.step()
        before = len(self.evicted)
        while len(self.evicted) < before + num_blocks:
            self._take(b"")
        return [content.decode() for content in self.evicted[before:]]

    def _num_found(self, hashes: Sequence[bytes]) -> int:
        missing = (n for n, block_hash in enumerate(hashes) if block_hash not in self.cached)
        return next(missing, len(hashes))

    def _take(self, block_hash: bytes) -> FakeBlock:
        block: FakeBlock = self.queue.popleft()
        assert not self.users[block.block_id], "a block in use was given away"
        if block.block_hash is not None:
            content = block.block_hash[: -len(GROUP_ID)]
            del self.cached[content]
            self.evicted.append(content)
            block.block_hash = None
        if block_hash:
            self.num_stored += 1
            self.users[block.block_id] += 1
            block.block_hash = block_hash + GROUP_ID
            self.cached[block_hash] = block
        return block

    def _note_evicted(self, node: Any, num_blocks: int) -> None:
        del node, num_blocks
        self.num_batches += 1

    def check(self) -> None:
        """Assert that queue and tree are consistent."""
        self.queue.check_integrity()
        self.runtime.tree.check_integrity()


def hashes_of(text: str) -> list[bytes]:
    """One block a character; the hash spells out the whole prefix."""
    return [text[: i + 1].encode() for i in range(len(text))]


def requests(turns: Sequence[Turn]) -> list[str]:
    """Ids of turns, in order."""
    return [turn.request_id for turn in turns]


def returns_after(gaps_s: Mapping[GapKind, Sequence[float]]) -> ReturnTimeModel:
    """A model that has seen these gaps by kind, and goes by them alone.

    Its grid has four bins an octave, and gaps are spread evenly in a bin.
    """
    model = ReturnTimeModel(parent_weight=1e-9, half_life_observations=1e12)
    for kind, gaps in gaps_s.items():
        for gap_s in gaps:
            model.observe(GapFeatures(kind), gap_s)
    return model
