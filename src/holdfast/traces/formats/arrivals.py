"""Open-loop requests in the order of time, read twice instead of held in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Generic, TypeVar

from holdfast.errors import TraceError
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.order import lap_after

__all__ = ["Arrival", "Arrivals"]

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Arrival(Generic[_Row]):
    """One request: its arrival time in the file's unit, its line, and its row."""

    at: float
    line: int
    row: _Row


class Arrivals(Generic[_Row]):
    """The requests of one file in the order of time.

    Reads the file once to check it, and again for each iteration. Published files are in the order
    of time; the requests of a file that is not are held in memory.

    Args:
        file: The file.
        rows: Yields the requests in the order of lines, anew for each call.
        hint: The expected content, for a file without a request.

    Raises:
        TraceError: From `rows`, or the file has no request.
    """

    def __init__(
        self,
        file: TraceFile,
        rows: Callable[[TraceFile], Iterator[Arrival[_Row]]],
        *,
        hint: str,
    ) -> None:
        self._rows = rows
        self._file = file.without_reports()
        self._sorted: list[Arrival[_Row]] | None = None
        self.num_rows = 0
        first = last = 0.0
        is_in_order = True
        for arrival in rows(file):
            at = arrival.at
            first, last = (at, at) if not self.num_rows else (min(first, at), max(last, at))
            is_in_order = is_in_order and at == last
            self.num_rows += 1
        if not self.num_rows:
            raise TraceError("holds no request", source=file.source, hint=hint)
        self._lap = lap_after(first, last, self.num_rows)
        if not is_in_order:
            self._sorted = sorted(self._all(), key=attrgetter("at"))

    def rotated(self, rng: random.Random | None) -> Iterator[tuple[Arrival[_Row], float]]:
        """Yield requests from a random one on, then the earlier ones, each with its shift.

        Earlier requests shift by the length of the recording, others by 0. None starts with the
        first request.
        """
        begin = 0 if rng is None else rng.randrange(self.num_rows)
        return self._rotated(begin)

    def _rotated(self, begin: int) -> Iterator[tuple[Arrival[_Row], float]]:
        for arrival in islice(self._all(), begin, None):
            yield arrival, 0.0
        for arrival in islice(self._all(), begin):
            yield arrival, self._lap

    def _all(self) -> Iterator[Arrival[_Row]]:
        return self._rows(self._file) if self._sorted is None else iter(self._sorted)
