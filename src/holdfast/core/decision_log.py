"""Decisions as JSON lines, written beside the serving path.

Each line has `time_s` (host's monotonic clock), `event` and the event's own fields. Knows nothing
about what the fields mean.
"""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["DecisionLog"]

logger = logging.getLogger(__name__)

_MAX_PENDING = 100_000


class DecisionLog:
    """Appends records to a file from a thread of its own; never blocks or raises into the caller.

    A file that cannot be written is reported once and ends the log. Records beyond what the disk
    keeps up with are dropped and counted in the next one written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: queue.Queue[dict[str, Any] | None] = queue.Queue(_MAX_PENDING)
        self._num_dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="holdfast-log", daemon=True)
        self._thread.start()

    def write(self, event: str, time_s: float, **fields: Any) -> None:
        """Queue one record; O(1)."""
        record = {"time_s": time_s, "event": event, **fields}
        if self._num_dropped:
            record["num_dropped"] = self._num_dropped
        try:
            self._pending.put_nowait(record)
        except queue.Full:
            self._num_dropped += 1
        else:
            self._num_dropped = 0

    def close(self) -> None:
        """Write what is queued and end the thread; waits at most two seconds."""
        try:
            self._pending.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(timeout=2.0)

    def _write_all(self) -> None:
        encoder = msgspec.json.Encoder()
        try:
            with self._path.open("ab") as file:
                while (record := self._pending.get()) is not None:
                    file.write(encoder.encode(record) + b"\n")
                    if self._pending.empty():
                        file.flush()
        except OSError as error:
            logger.warning("decision log %s ends: %s", self._path, error)
            while self._pending.get() is not None:
                pass
