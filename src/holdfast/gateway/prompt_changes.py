"""Finds what changed in prompts since their session's last one."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from time import monotonic, thread_time
from typing import Final, NamedTuple

from holdfast.core.identity import Identity
from holdfast.core.prompt_history import PromptHistory, stream_of
from holdfast.core.request_body import RequestBody
from holdfast.gateway.prompt_metrics import PromptMetrics
from holdfast.gateway.time_budget import TimeBudget

__all__ = ["PromptChanges", "SentPrompt"]

logger = logging.getLogger(__name__)

_UNKNOWN: Final = "unknown"
_QUEUE_BYTES: Final = 32 << 20
_IDLE_SHARE: Final = 0.1  # of the time in which the gateway has nothing else to do
_BUSY_SHARE: Final = 0.01  # of that in which requests would wait for it
_MOST_S: Final = 0.05
_SLICE_S: Final = 0.001
_PAUSE_S: Final = 0.001


class SentPrompt(NamedTuple):
    """A prompt that was sent.

    Attributes:
        body: The request, as it was sent.
        identity: Who sent it.
        bytes_per_token: Bytes of prompts that a token has on its engine.
        time_s: When it was sent (s, monotonic).
    """

    body: RequestBody
    identity: Identity
    bytes_per_token: float
    time_s: float


class PromptChanges:
    """Compares prompts with their sessions' last ones, and counts what changed.

    A prompt is compared after it was sent, in the order of sending, in slices of about a
    millisecond between other work, within a tenth of the time in which the gateway idles and a
    hundredth of that in which it works. One that finds no space in the queue, or waits there for
    longer than the lease, is skipped and counted; its session's next prompt is then compared with
    an older one. Of prompts that were compared it knows fingerprints only.

    Args:
        metrics: Takes the counts.
        lease_s: Sessions idle for longer are forgotten (s).
        queue_bytes: Prompts that wait (bytes).
    """

    def __init__(
        self, metrics: PromptMetrics, lease_s: float, queue_bytes: int = _QUEUE_BYTES
    ) -> None:
        self._metrics = metrics
        self._lease_s = lease_s
        self._queue_bytes = queue_bytes
        self._history = PromptHistory(lease_s=lease_s)
        self._queue: deque[SentPrompt] = deque()
        self._queued_bytes = 0
        self._steps: Iterator[None] | None = None
        self._has_failed = False
        self._has_work = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether all prompts have been compared. Pure."""
        return self._steps is None and not self._queue

    def add(self, prompt: SentPrompt) -> None:
        """Let a prompt wait for its comparison, or skip it. Mutates; O(1)."""
        self._metrics.sent()
        num_bytes = len(prompt.body.text)
        if self._queued_bytes + num_bytes > self._queue_bytes:
            self._metrics.skipped("busy")
            return
        self._queue.append(prompt)
        self._queued_bytes += num_bytes
        self._has_work.set()

    async def run(self) -> None:
        """Compare prompts as they come, until cancelled."""
        budget = TimeBudget(_IDLE_SHARE, _BUSY_SHARE, _MOST_S, monotonic(), thread_time())
        while True:
            await self._has_work.wait()
            # The pause also lets what was just sent reach its engine first.
            await asyncio.sleep(_PAUSE_S)
            while (wait_s := budget.wait_s(monotonic(), thread_time())) > 0.0:
                await asyncio.sleep(max(_PAUSE_S, wait_s))
            began_s, cpu_s = monotonic(), thread_time()
            while self.step(now_s := monotonic()) and now_s - began_s < _SLICE_S:
                pass
            thread_s = thread_time()
            budget.spend(thread_s - cpu_s, monotonic(), thread_s)
            if self.is_idle:
                self._has_work.clear()

    def step(self, now_s: float) -> bool:
        """Do the next step of a comparison; whether any is left. Mutates.

        Args:
            now_s: Time now (s, monotonic).
        """
        self._steps = self._steps or self._comparing(now_s)
        try:
            next(self._steps)
            return True
        except StopIteration:
            pass
        except Exception:
            self._metrics.skipped("failed")
            if not self._has_failed:
                logger.exception("a prompt could not be compared with its session's last one")
            self._has_failed = True
        self._steps = None
        return bool(self._queue)

    def _comparing(self, now_s: float) -> Iterator[None]:
        """Compare the prompt that has waited longest, if any."""
        if not self._queue:
            return
        body, identity, bytes_per_token, time_s = self._queue.popleft()
        try:
            if now_s - time_s > self._lease_s:
                self._metrics.skipped("busy")
                return
            session = stream_of(identity.session_id, identity.tenant, body)
            change = yield from self._history.comparing(session, body, time_s)
            if change is not None and change.lost_bytes:
                client = identity.client or _UNKNOWN
                self._metrics.lost(change.kind, client, change.lost_bytes / bytes_per_token)
        finally:
            self._queued_bytes -= len(body.text)
