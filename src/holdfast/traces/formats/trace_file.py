"""Trace files, decoded with errors that say which line and field."""

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
# A session of the longest published traces takes some megabytes.
_MAX_LINE_BYTES = 1 << 28


MAX_PREAMBLE_LINES: Final = 64
"""Lines read to find out what a file is: some clients begin with lines of no known layout."""

OnSkipped = Callable[[TraceError], None]
"""Told what is wrong with a part of a file that is left out."""


@dataclass(frozen=True, slots=True)
class TraceFile:
    """One file: a JSON document, JSON objects a line, or lines of something else.

    Attributes:
        source: The file's name, for messages and `Session.source`.
        content: UTF-8 text; or the file that holds it, which is then read as a stream, once for
            each call. Blank lines are left out.
        on_skipped: Told about each part that is left out because it is wrong; None stops the
            reading there.
        keeps_text: Whether what was said is kept, by readers that see it.
        children: Files that are read with this one: those of its sub-agents.
        repairs: Counts what is read as something else than what the file has.
        left_out: Files that would be read with this one as well, but for what is wrong in them.
        own_label: `label`, where another file is called by the same `name`.
    """

    source: str
    content: bytes | Path
    on_skipped: OnSkipped | None = None
    keeps_text: bool = False
    children: tuple[Path, ...] = ()
    repairs: Repairs = field(default_factory=Repairs)
    left_out: tuple[Path, ...] = ()
    own_label: str = ""

    @property
    def name(self) -> str:
        """The file's name without its directory and suffixes."""
        return Path(self.source).name.partition(".")[0]

    @property
    def label(self) -> str:
        """What no other file of a reading is called, for sessions that have no own name."""
        return self.own_label or self.name

    def silently(self) -> TraceFile:
        """The same file, to be read once more without telling what is left out or repaired."""
        on_skipped = None if self.on_skipped is None else ignored
        return replace(self, on_skipped=on_skipped, repairs=Repairs())

    def beside(self, path: Path) -> TraceFile:
        """Another file that is read with this one, and tells the same ones what is wrong in it."""
        return replace(self, source=str(path), content=path, children=(), own_label="")

    def fields(self) -> Iterator[dict[str, msgspec.Raw]]:
        """Yield each line's fields by their names; none for a line that will be left out.

        Raises:
            TraceError: A line is not a JSON object, and none may be left out.
        """
        for number, line in self.lines():
            try:
                yield decode_json(line, _OBJECT, self.error_maker(number))
            except TraceError:
                if self.on_skipped is None:
                    raise
                yield {}

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line that is not blank with its number, from 1; one in memory at a time.

        Raises:
            TraceError: The file cannot be read, is damaged, or has a line of 256 MiB or more.
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
            document_type: What msgspec shall make of it.
            hint: Says what a document should look like when this one does not.
            strict: Whether a number may not be written as text.

        Raises:
            TraceError: It cannot be read, is not JSON or not of this type; names the field.
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
            line_type: What msgspec shall make of a line.
            hint: Says what a line should look like when one does not.
            strict: Whether a number may not be written as text.
            num_header_lines: Leading lines that are something else and are left out.

        Raises:
            TraceError: A line is not JSON or not of this type, and none may be left out; names
                the line and the field.
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
        """Return one field's value, left as JSON until its type was known; pure.

        Raises:
            TraceError: It is not of the decoder's type; names the line, where
                there is one, and the field inside.
        """
        error_maker = within(field, self.error_maker(line))
        return decode_json(part, decoder, error_maker, hint=hint, repairs=self.repairs)

    def refuse(self, error: TraceError) -> None:
        """Stop at a part that is wrong, or leave it out where that is wanted.

        Raises:
            TraceError: That error, unless `on_skipped` is there to be told.
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
        """Make the error for one line, or a document's field, to be raised by the caller."""
        where = ", ".join(part for part in (line and f"line {line}", field) if part)
        return TraceError(message, source=self.source, where=where or None, hint=hint)

    def error_maker(self, line: int | None = None) -> ErrorMaker:
        """Return what makes the errors of one line, or of a document; pure."""
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
    """Tell no more: what is left out has been told once."""
