"""Requests that arrive at recorded times and belong to nobody: read again rather than held."""

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
    """One request: when it arrived, in any unit; its line; and what else is known."""

    at: float
    line: int
    row: _Row


class Arrivals(Generic[_Row]):
    """The requests of one file in the order of time.

    The file is read once to find out what is wrong with it, and once more as requests are taken.
    Published files are in that order; the requests of one that is not are held in memory.

    Args:
        file: The file.
        rows: Yields the requests in the order of lines, once for each call.
        hint: Says what a file should look like that has none.

    Raises:
        TraceError: As `rows` does, or there is none.
    """

    def __init__(
        self,
        file: TraceFile,
        rows: Callable[[TraceFile], Iterator[Arrival[_Row]]],
        *,
        hint: str,
    ) -> None:
        self._rows = rows
        self._file = file.silently()
        self._held: list[Arrival[_Row]] | None = None
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
            self._held = sorted(self._all(), key=attrgetter("at"))

    def taken(self, rng: random.Random | None) -> Iterator[tuple[Arrival[_Row], float]]:
        """Yield the requests from one that `rng` chooses on, then those before it.

        With each comes how much later it arrives: the latter, one length of the recording. None
        begins at the beginning.
        """
        begin = 0 if rng is None else rng.randrange(self.num_rows)
        return self._taken(begin)

    def _taken(self, begin: int) -> Iterator[tuple[Arrival[_Row], float]]:
        for arrival in islice(self._all(), begin, None):
            yield arrival, 0.0
        for arrival in islice(self._all(), begin):
            yield arrival, self._lap

    def _all(self) -> Iterator[Arrival[_Row]]:
        return self._rows(self._file) if self._held is None else iter(self._held)
