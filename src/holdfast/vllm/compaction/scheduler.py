"""The scheduler for engines whose sessions are compacted.

Process: scheduler (engine core). Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from typing import Any

from holdfast.vllm.compaction.sessions import CompactedSessions
from holdfast.vllm.scheduler import HoldfastScheduler

__all__ = ["CompactingScheduler"]


class CompactingScheduler(HoldfastScheduler):
    """Holdfast's scheduler, which sees a compacted prompt as its blocks.

    A session that returns compacted is one that rewrote its prompt, as if its client had.
    """

    def add_request(self, request: Any) -> None:
        """Take in a request; see vLLM."""
        if request.request_id not in self.requests:
            self.connector.compaction.arrived(request)
        super().add_request(request)

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> bool:
        """Drop all cached content, not what is compacted; see vLLM."""
        is_reset = super().reset_prefix_cache(*args, **kwargs)
        if is_reset:
            self._guard("compaction", self.compacted.content_dropped)
        return is_reset

    @property
    def compacted(self) -> CompactedSessions:
        """The connector's sessions."""
        sessions: CompactedSessions = self.connector.compaction.sessions
        return sessions

    def _leave(self, request: Any) -> None:
        if self._tracker.is_final(request.request_id):
            self.compacted.closed(request.request_id)
        super()._leave(request)

    def _take_census(self) -> None:
        super()._take_census()
        compacted = self.compacted
        self._metrics.set_compactions(compacted.counters, compacted.gauges)
