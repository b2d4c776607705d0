"""Rows put aside while a file is read, where those of one session stand among those of others.

A first pass over the file finds out what is wrong and which rows are whose; then sessions are
built one at a time. In between only the place of each row is held in memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from tempfile import SpooledTemporaryFile
from typing import Generic, TypeVar

import msgspec

from holdfast.errors import TraceError

__all__ = ["RowSpool"]

_Row = TypeVar("_Row")

# More than this goes to a file without a name, which is gone with the process.
_MEMORY_BYTES = 1 << 26


class RowSpool(Generic[_Row]):
    """Rows of one type; all are added before the first is read.

    Args:
        source: The file they come from, for messages.
        row_type: A type that msgspec writes and reads as JSON. Fields it does not have are not put
            aside.
    """

    def __init__(self, source: str, row_type: type[_Row]) -> None:
        self._source = source
        self._file = SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115 - closed with the spool
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(row_type)
        self._end = 0
        weakref.finalize(self, self._file.close)

    def add(self, row: _Row) -> int:
        """Put a row aside; returns its place.

        Raises:
            TraceError: There is no room for temporary files.
        """
        place = self._end
        line = self._encoder.encode(row) + b"\n"
        try:
            self._file.write(line)
        except OSError as error:
            raise TraceError(
                f"its rows cannot be put aside: {error.strerror or error}",
                source=self._source,
                hint="TMPDIR may name a directory with as much room as the file takes unpacked",
            ) from error
        self._end += len(line)
        return place

    def read(self, places: Iterable[int]) -> list[_Row]:
        """The rows at these places, in their order."""
        return [self._read(place) for place in places]

    def _read(self, place: int) -> _Row:
        self._file.seek(place)
        return self._decoder.decode(self._file.readline())
