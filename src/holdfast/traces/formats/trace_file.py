"""Trace files, decoded with errors that name line and field."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import IO, Final, TypeVar

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.decoding import (
    DAMAGED_HINT,
    ErrorMaker,
    decode_json,
    within,
)
from holdfast.traces.formats.repairs import Repairs, with_whole_characters
from holdfast.traces.storage import open_stored

__all__ = ["MAX_PREAMBLE_LINES", "OnSkipped", "TraceFile", "ignored"]

_Value = TypeVar("_Value")
_OBJECT: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Sessions of the longest published traces take some megabytes.
_MAX_LINE_BYTES = 1 << 28


MAX_PREAMBLE_LINES: Final = 64
"""Lines read to detect a format: some clients begin with lines of no known layout."""

OnSkipped = Callable[[TraceError], None]
"""Called with the error of each skipped part of a file."""


@dataclass(frozen=True, slots=True)
class TraceFile:
    """One file: a JSON document, or one JSON object a line.

    Attributes:
        source: The file's name, for messages and `Session.source`.
        content: UTF-8 text, or the path of a file, which each call reads anew as a stream. Blank
            lines are ignored.
        on_skipped: Called for each wrong part, which is then skipped; None raises its error.
        keeps_text: Whether readers keep the text of messages.
        children: Files that are read with this one: its sub-agents'.
        repairs: Counts repaired values.
        unreadable: Files that would be read with this one but are wrong.
        own_label: The `label`, if another file has the same `name`.
    """

    source: str
    content: bytes | Path
    on_skipped: OnSkipped | None = None
    keeps_text: bool = False
    children: tuple[Path, ...] = ()
    repairs: Repairs = field(default_factory=Repairs)
    unreadable: tuple[Path, ...] = ()
    own_label: str = ""

    @property
    def name(self) -> str:
        """The file's name without its directory and suffixes."""
        return Path(self.source).name.partition(".")[0]

    @property
    def label(self) -> str:
        """A name that is unique among the files of a reading, for sessions without an id."""
        return self.own_label or self.name

    def without_reports(self) -> TraceFile:
        """Return the same file for another pass that reports no skips and repairs."""
        on_skipped = None if self.on_skipped is None else ignored
        return replace(self, on_skipped=on_skipped, repairs=Repairs())

    def sibling(self, path: Path) -> TraceFile:
        """Return another file that is read with this one, with the same `on_skipped`."""
        return replace(self, source=str(path), content=path, children=(), own_label="")

    def fields(self) -> Iterator[dict[str, msgspec.Raw]]:
        """Yield each line's fields by name; {} for a line that is skipped.

        Raises:
            TraceError: A line is not a JSON object, and `on_skipped` is None.
        """
        for number, line in self.lines():
            try:
                yield decode_json(line, _OBJECT, self.error_maker(number))
            except TraceError:
                if self.on_skipped is None:
                    raise
                yield {}

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line with its number, from 1; one in memory at a time, none blank.

        Raises:
            TraceError: The file is unreadable, damaged, or has a line of 256 MiB or more.
        """
        if isinstance(self.content, bytes):
            yield from self._numbered(BytesIO(self.content))
        else:
            with open_stored(self.content) as file:
                yield from self._numbered(file)

    def document(
        self, document_type: type[_Value], *, hint: str | None = None, strict: bool = True
    ) -> _Value:
        """Return the whole content as one JSON document.

        Args:
            document_type: A type that msgspec decodes.
            hint: The expected content, for a document of another type.
            strict: Whether to reject numbers written as text.

        Raises:
            TraceError: The file is unreadable, not JSON or not of this type; names the field.
        """
        decoder = msgspec.json.Decoder(document_type, strict=strict)
        return decode_json(
            self._data(), decoder, self.error_maker(), hint=hint, repairs=self.repairs
        )

    def decode(
        self,
        line_type: type[_Value],
        *,
        hint: str | None = None,
        strict: bool = True,
        num_header_lines: int = 0,
    ) -> Iterator[tuple[int, _Value]]:
        """Yield each line with its number, from 1.

        Args:
            line_type: A type that msgspec decodes.
            hint: The expected content, for a line of another type.
            strict: Whether to reject numbers written as text.
            num_header_lines: Leading lines of another type to ignore.

        Raises:
            TraceError: A line is not JSON or not of this type, and `on_skipped` is None; names the
                line and the field.
        """
        decoder = msgspec.json.Decoder(line_type, strict=strict)
        for number, line in islice(self.lines(), num_header_lines, None):
            try:
                decoded = decode_json(
                    line, decoder, self.error_maker(number), hint=hint, repairs=self.repairs
                )
            except TraceError as error:
                self.refuse(error)
            else:
                yield number, decoded

    def decode_part(
        self,
        part: bytes | msgspec.Raw,
        decoder: msgspec.json.Decoder[_Value],
        *,
        line: int | None,
        field: str,
        hint: str | None = None,
    ) -> _Value:
        """Decode one raw field; pure, except for `repairs`.

        Raises:
            TraceError: It is not of the decoder's type; names the line, if any, and the field
                inside.
        """
        error_maker = within(field, self.error_maker(line))
        return decode_json(part, decoder, error_maker, hint=hint, repairs=self.repairs)

    def refuse(self, error: TraceError) -> None:
        """Report a wrong part to `on_skipped`, or raise its error.

        Raises:
            TraceError: That error, if `on_skipped` is None.
        """
        if self.on_skipped is None:
            raise error
        self.on_skipped(error)

    def error(
        self,
        message: str,
        *,
        line: int | None = None,
        field: str = "",
        hint: str | None = None,
    ) -> TraceError:
        """Return an error for one line or one field of a document; pure."""
        where = ", ".join(part for part in (line and f"line {line}", field) if part)
        return TraceError(message, source=self.source, where=where or None, hint=hint)

    def error_maker(self, line: int | None = None) -> ErrorMaker:
        """Return an error maker for one line or for a document; pure."""
        return lambda message, field, hint: self.error(message, line=line, field=field, hint=hint)

    def _data(self) -> bytes:
        if isinstance(self.content, bytes):
            return with_whole_characters(self.content.removeprefix(BOM_UTF8))
        with open_stored(self.content) as file:
            return with_whole_characters(file.read().removeprefix(BOM_UTF8))

    def _numbered(self, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
        number = 0
        while line := file.readline(_MAX_LINE_BYTES):
            number += 1
            if len(line) == _MAX_LINE_BYTES:
                raise self.error("longer than 256 MiB", line=number, hint=DAMAGED_HINT)
            if not line.isspace():
                yield number, with_whole_characters(line.removeprefix(BOM_UTF8))


def ignored(_: TraceError) -> None:
    """Ignore an error that an earlier pass reported."""
