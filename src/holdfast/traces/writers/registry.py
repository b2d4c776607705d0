"""The registry of writers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Protocol

from holdfast.traces.record import Session
from holdfast.traces.writers.agentic_mooncake import write_agentic_mooncake
from holdfast.traces.writers.canonical import write_canonical
from holdfast.traces.writers.losses import Losses
from holdfast.traces.writers.mooncake import write_mooncake
from holdfast.traces.writers.weka import write_weka

__all__ = ["WRITERS", "TraceWriter"]


class TraceWriter(Protocol):
    """Writes sessions to one file, and returns the losses."""

    def __call__(
        self, sessions: Iterable[Session], file: IO[bytes], *, block_size_tokens: int | None = None
    ) -> Losses:
        """See the writers."""
        ...


WRITERS: Mapping[str, TraceWriter] = {
    "holdfast": write_canonical,
    "mooncake": write_mooncake,
    "agentic-mooncake": write_agentic_mooncake,
    "weka": write_weka,
}
"""Writers by the name in `holdfast traces convert --to`."""
