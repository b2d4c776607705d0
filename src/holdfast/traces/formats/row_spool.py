"""A spool of rows, for files that mix the rows of several sessions.

A first pass checks the file and assigns rows to sessions; then sessions are built one at a time. In
between only each row's offset is in memory.
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

# More bytes go to an unnamed file, which disappears with the process.
_MEMORY_BYTES = 1 << 26


class RowSpool(Generic[_Row]):
    """Rows of one type; all are added before the first is read.

    Args:
        source: The rows' file, for error messages.
        row_type: A type that msgspec encodes as JSON. Other fields are dropped.
    """

    def __init__(self, source: str, row_type: type[_Row]) -> None:
        self._source = source
        self._file = SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115 - closed with the spool
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(row_type)
        self._end = 0
        weakref.finalize(self, self._file.close)

    def add(self, row: _Row) -> int:
        """Add a row; return its offset.

        Raises:
            TraceError: The temporary file cannot be written.
        """
        offset = self._end
        line = self._encoder.encode(row) + b"\n"
        try:
            self._file.write(line)
        except OSError as error:
            raise TraceError(
                f"its rows cannot be written to a temporary file: {error.strerror or error}",
                source=self._source,
                hint="set TMPDIR to a directory with as much free space as the uncompressed file",
            ) from error
        self._end += len(line)
        return offset

    def read(self, offsets: Iterable[int]) -> list[_Row]:
        """Return the rows at these offsets, in the given order."""
        return [self._read(offset) for offset in offsets]

    def _read(self, offset: int) -> _Row:
        self._file.seek(offset)
        return self._decoder.decode(self._file.readline())
