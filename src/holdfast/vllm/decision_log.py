"""Writes decisions as JSON lines, off the serving path.

Each line has `time_s` (the host's monotonic clock), `event`, the log's common fields and the
event's own.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import queue
import threading
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["DecisionLog", "NoDecisionLog"]

logger = logging.getLogger(__name__)

_MAX_PENDING = 100_000
_MAX_WRITE_BYTES = 1 << 16


class DecisionLog:
    """Appends records to a file from a thread of its own; never blocks or raises.

    Several processes may append to one file: each write ends with a whole line. A write error is
    logged once and ends the log. If the disk is too slow, records are dropped, and the next record
    has their number (`num_dropped`).

    Args:
        path: The file.
        common: Fields of every record, for example the engine's number.

    Attributes:
        is_written: True; see `NoDecisionLog`.
    """

    is_written: Final = True

    def __init__(self, path: Path, **common: Any) -> None:
        self._path = path
        self._common = common
        self._pending: queue.Queue[dict[str, Any] | None] = queue.Queue(_MAX_PENDING)
        self._num_dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="holdfast-log", daemon=True)
        self._thread.start()

    def write(self, event: str, time_s: float, **fields: Any) -> None:
        """Queue one record; O(1). Any thread may call it."""
        record = {"time_s": time_s, "event": event, **self._common, **fields}
        if self._num_dropped:
            record["num_dropped"] = self._num_dropped
        try:
            self._pending.put_nowait(record)
        except queue.Full:
            self._num_dropped += 1
        else:
            self._num_dropped = 0

    def close(self) -> None:
        """Write the queued records and end the thread; waits at most two seconds."""
        try:
            self._pending.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(timeout=2.0)

    def _write_all(self) -> None:
        encoder = msgspec.json.Encoder()
        lines: list[bytes] = []
        num_bytes = 0
        record: dict[str, Any] | None = {}
        try:
            with os.fdopen(_opened(self._path), "ab", buffering=0) as file:
                while (record := self._pending.get()) is not None:
                    lines.append(encoder.encode(record) + b"\n")
                    num_bytes += len(lines[-1])
                    if num_bytes >= _MAX_WRITE_BYTES or self._pending.empty():
                        _append(file, b"".join(lines))
                        lines.clear()
                        num_bytes = 0
                _append(file, b"".join(lines))
        except OSError as error:
            logger.warning(
                "the decision log %s is not written any more (%s); requests are served as usual."
                " Set HOLDFAST_DECISION_LOG to another file and restart",
                *(self._path, error.strerror or error),
            )
            while record is not None:
                record = self._pending.get()


class NoDecisionLog:
    """Stands in for `DecisionLog` where the operator named no file.

    Attributes:
        is_written: False, so that what only the log wants need not be computed.
    """

    is_written: Final = False

    def write(self, event: str, time_s: float, **fields: Any) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Close nothing."""


def _opened(path: Path) -> int:
    """Open a file, a device or a pipe with a reader; never waits for a reader."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(error.errno, "it is a pipe or a socket that no process reads") from error
        raise
    os.set_blocking(handle, True)
    return handle


def _append(file: io.FileIO, lines: bytes) -> None:
    """Append whole lines in one write, which the kernel does not mix with another's."""
    rest = memoryview(lines)
    while rest:
        rest = rest[file.write(rest) :]
