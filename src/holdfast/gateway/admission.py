"""Admission of turns to one engine, over a model of its cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Final

from holdfast.core.identity import Identity
from holdfast.core.tenants import Tenants
from holdfast.core.turn import Turn
from holdfast.gateway.cache_model import CacheModel, ModelBlock
from holdfast.gateway.prompt_path import PromptPath
from holdfast.predict.step_cost import StepWork
from holdfast.runtime.runtime import AgentRuntime
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["EngineAdmission"]

_MOST_BYTES_PER_TOKEN: Final = 8.0
_LEAST_BYTES_PER_TOKEN: Final = 1.0
_BLOCKS: Final = 2048  # of the model: each small beside a turn, and few enough to decide quickly
_MOST_SESSIONS: Final = _BLOCKS  # remembered: more have no block that could be kept
_LEAST_BLOCK_TOKENS: Final = 16
_MOST_BLOCK_TOKENS: Final = 1024
_SPARE_SIZE: Final = 2  # times the size first believed, should tokens turn out longer
_MOST_MEASURED: Final = 64
_SLOTS: Final = 1 << 16  # the engine's own limit on running requests is its own matter
_LOOK_S: Final = 0.25  # between decisions while nothing happens
_OUTPUT_MEMORY: Final = 0.05
_ALL: Final = 0.9  # of a prompt, as bytes a token differ between prompts


@dataclass(slots=True, eq=False)
class _InTurn:
    """A turn that waits here or runs in the engine.

    Attributes:
        turn: The turn.
        hashes: Its prompt's blocks.
        reported: Bytes of its session in the engine's cache, by the engine; None if not known.
        blocks: Its blocks in the model; None while it waits.
        sent_s: When it was admitted (s).
        first_s: When its first token came (s).
        num_beside: Turns that ran when it started to decode, itself included (count).
    """

    turn: Turn
    hashes: Sequence[bytes]
    reported: Callable[[], int | None]
    blocks: list[ModelBlock] | None = None
    sent_s: float = 0.0
    first_s: float | None = None
    num_beside: int = 1


@dataclass(slots=True)
class _Output:
    """Length of answers: mean and mean deviation (blocks)."""

    mean: float = 1.0
    spread: float = 1.0

    def expected(self) -> int:
        """Blocks to provide for an answer (count). Pure."""
        return math.ceil(self.mean + 2.0 * self.spread)

    def learn(self, blocks: float) -> None:
        """Learn from an answer. Mutates."""
        error = blocks - self.mean
        self.mean += _OUTPUT_MEMORY * error
        self.spread += _OUTPUT_MEMORY * (abs(error) - self.spread)


class EngineAdmission:
    """Holds turns that would evict what other sessions still need.

    The runtime and its admission policies are those that run inside `holdfast serve`. What an
    engine tells them there is modelled here: its blocks from the prompts that it was sent and,
    where it publishes them, from its KV events; its costs from the times of its answers. While
    everything fits, nothing is held. A turn is held for at most `max_wait_ratio` times the engine
    time of what it found ahead of it, see `WaitBound`.

    Not thread-safe.

    Args:
        kv_tokens: Size of the engine's KV cache (tokens).
        bytes_per_token: Prompt bytes a token, as far as known.
        max_wait_ratio: Wait bound.
        lease_s: Sessions idle for longer count as gone (s).
        policy: Name of the policy, or product of policies, that admits. What it decides besides has
            no effect: the engine evicts in its own order.
        tenants: Who has been served how much by all engines; None knows of none.

    Raises:
        PolicyError: There is no such policy, or it needs the future.
    """

    def __init__(
        self,
        kv_tokens: int,
        bytes_per_token: float,
        max_wait_ratio: float = 2.0,
        lease_s: float = 1800.0,
        policy: str = "working-set",
        tenants: Tenants | None = None,
    ) -> None:
        self._lease_s = lease_s
        self._kv_tokens = kv_tokens
        self._runtime = AgentRuntime(
            max_sessions=_MOST_SESSIONS,
            max_wait_ratio=max_wait_ratio,
            max_known_evictions=0,
            policy=policy,
            tenants=tenants,
        )
        block_tokens = min(max(kv_tokens // _BLOCKS, _LEAST_BLOCK_TOKENS), _MOST_BLOCK_TOKENS)
        self._block_tokens = block_tokens
        self._block_bytes = block_tokens * _bounded(bytes_per_token)
        num_blocks = max(kv_tokens // block_tokens, 1)
        self._cache = CacheModel(_SPARE_SIZE * num_blocks, self._runtime.tree)
        self._cache.resize(num_blocks)
        self._runtime.attach(self._cache.queue, num_blocks, block_tokens)
        self._turns: dict[str, _InTurn] = {}
        self._waiting: dict[str, _InTurn] = {}
        self._output = _Output()
        self._last_first_s = -math.inf

    @property
    def held(self) -> list[str]:
        """Request ids of the turns that wait here, in order of arrival."""
        return list(self._waiting)

    @property
    def held_tokens(self) -> int:
        """Tokens that they would take from others in the cache (count, about)."""
        return sum(each.turn.demand_blocks for each in self._waiting.values()) * self._block_tokens

    def next_s(self, now_s: float) -> float:
        """When to ask again without an event (s); inf while nothing is held. Pure."""
        return now_s + _LOOK_S if self._waiting else math.inf

    def arrived(
        self,
        request_id: str,
        path: PromptPath,
        identity: Identity,
        now_s: float,
        reported: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Take in a turn, which waits until `take` names it. Mutates.

        Args:
            request_id: Unique among turns in the engine.
            path: Its prompt, not empty.
            identity: Who sends it.
            now_s: Time now (s, monotonic).
            reported: Gives the bytes of its session in the engine's cache as the engine reports
                them; None where it does not.
        """
        self._runtime.tick(now_s)
        hashes = _blocks_of(path, self._block_bytes)
        turn = self._runtime.turn_arrived(request_id, hashes, identity)
        self._turns[request_id] = self._waiting[request_id] = _InTurn(turn, hashes, reported)

    def take(self, now_s: float) -> list[str]:
        """Return the turns to send now, in this order; they count as sent. Mutates."""
        runtime = self._runtime
        runtime.tick(now_s)
        runtime.forget_idle(self._lease_s)
        if not self._waiting:
            return []
        runtime.step()
        turns = self._measured(now_s)
        queue = self._cache.queue
        blocks = queue.num_free_blocks - queue.num_reserved_blocks
        num_running = len(self._turns) - len(self._waiting)
        admission = runtime.admit(turns, blocks, _SLOTS, num_running)
        for turn in admission.admitted:
            self._start(turn, now_s)
        return [turn.request_id for turn in admission.admitted]

    def started(self, request_id: str, now_s: float) -> None:
        """Take in that the engine has computed a turn's prompt. Mutates."""
        each = self._turns.get(request_id)
        if each is None or each.first_s is not None:
            return
        each.first_s = now_s
        each.num_beside = max(len(self._turns) - len(self._waiting), 1)
        tokens = each.turn.missing_blocks * self._block_tokens
        context = each.turn.resident_blocks * self._block_tokens
        # Prompts are computed one after the other, so each takes the time since the one before.
        seconds = now_s - max(each.sent_s, self._last_first_s)
        self._last_first_s = now_s
        if tokens:
            work = StepWork(1, tokens, tokens * (context + 0.5 * tokens), 0)
            self._runtime.costs.observe(work, seconds)

    def ended(
        self,
        request_id: str,
        now_s: float,
        output_tokens: int | None = None,
        end: TurnEnd | None = None,
    ) -> None:
        """Take in that a turn is over, however it ended. Mutates.

        Args:
            request_id: The turn; unknown ones are ignored.
            now_s: Time now (s, monotonic).
            output_tokens: Length of its answer; None if it is not known.
            end: What ended the turn, if known.
        """
        each = self._turns.pop(request_id, None)
        if each is None:
            return
        self._waiting.pop(request_id, None)
        self._runtime.tick(now_s)
        if output_tokens is not None:
            self._output.learn(output_tokens / self._block_tokens)
            self._learn_decoding(each, output_tokens, now_s)
        self._runtime.turn_ended(each.turn, each.hashes, end)
        if each.blocks is not None:
            self._cache.end(each.blocks)

    def gone(self, identity: Identity) -> None:
        """Close the streams of a session that has moved to another engine. Mutates."""
        for session in list(self._runtime.sessions.of_group(identity.group or "")):
            if session.state.is_paused:
                self._runtime.session_closed(session)

    def learn_bytes_per_token(self, bytes_per_token: float) -> None:
        """Take in how many bytes a token has: the cache holds as many more bytes. Mutates."""
        num_blocks = self._kv_tokens * _bounded(bytes_per_token) / self._block_bytes
        self._cache.resize(int(num_blocks))

    def _start(self, turn: Turn, now_s: float) -> None:
        each = self._waiting.pop(turn.request_id)
        each.blocks = self._cache.start(each.hashes, self._output.expected())
        each.sent_s = now_s
        self._runtime.turn_started(turn)

    def _measured(self, now_s: float) -> list[Turn]:
        """The waiting turns to consider now, measured anew, in order of arrival."""
        waiting: list[_InTurn] = list(self._waiting.values())
        if len(waiting) > _MOST_MEASURED:
            waiting = nsmallest(_MOST_MEASURED, waiting, key=lambda each: each.turn.rank(now_s))
            waiting.sort(key=lambda each: each.turn.sequence)
        for each in waiting:
            self._measure(each)
        return [each.turn for each in waiting]

    def _measure(self, each: _InTurn) -> None:
        turn, output_blocks = each.turn, self._output.expected()
        turn.resident_blocks = self._num_resident(each)
        turn.missing_blocks = len(each.hashes) - turn.resident_blocks
        unreserved = sum(
            node.free_blocks.num_blocks
            for node in turn.session.tail.path()
            if not node.num_reservations
        )
        turn.demand_blocks = turn.missing_blocks + unreserved + output_blocks
        turn.footprint_blocks = len(each.hashes) + output_blocks

    def _num_resident(self, each: _InTurn) -> int:
        """Leading blocks that the engine has: at most what it reports, where it does."""
        num_blocks = self._cache.num_resident(each.hashes, each.turn.resident_blocks)
        reported_bytes = each.reported()
        if reported_bytes is None or reported_bytes >= _ALL * num_blocks * self._block_bytes:
            return num_blocks
        num_reported = math.ceil(reported_bytes / self._block_bytes)
        self._cache.forget(each.hashes, num_reported)
        return self._cache.num_resident(each.hashes, num_reported)

    def _learn_decoding(self, each: _InTurn, output_tokens: int, now_s: float) -> None:
        """Learn from an answer's time: its part of steps that others share."""
        self._runtime.costs.turn_ended()
        if each.first_s is None or output_tokens < 2:
            return
        steps = max(output_tokens // each.num_beside, 1)
        seconds = (now_s - each.first_s) / each.num_beside
        self._runtime.costs.observe(StepWork(steps, 0, 0.0, output_tokens), seconds)


def _bounded(bytes_per_token: float) -> float:
    return min(max(bytes_per_token, _LEAST_BYTES_PER_TOKEN), _MOST_BYTES_PER_TOKEN)


def _blocks_of(path: PromptPath, block_bytes: float) -> list[bytes]:
    """Cut a prompt into blocks; equal hashes mean equal prefixes. Pure.

    A block is named by the piece in which it ends.
    """
    hashes: list[bytes] = []
    for key, end in zip(path.keys, path.ends, strict=True):
        for index in range(int(end / block_bytes) - len(hashes)):
            hashes.append(key + bytes((index % 256,)))
    return hashes
