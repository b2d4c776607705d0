"""Files with one JSON object a line, decoded with errors that say which line and field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TypeVar

import msgspec

from holdfast.errors import TraceError

__all__ = ["LineFile"]

_Line = TypeVar("_Line")
_AT = re.compile(r"^(?P<message>.*) - at `\$\.?(?P<field>.*)`$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LineFile:
    """One file's decompressed content.

    Attributes:
        source: The file's name, for messages and `Session.source`.
        data: UTF-8 JSON, one object a line; blank lines are left out.
    """

    source: str
    data: bytes

    def fields(self) -> frozenset[str]:
        """Return the names of the first object's fields; pure.

        Raises:
            TraceError: There is no line, or the first is not a JSON object.
        """
        for _, line in self.decode(dict[str, msgspec.Raw]):
            return frozenset(line)
        raise TraceError("holds no line", source=self.source)

    def decode(
        self, line_type: type[_Line], *, hint: str | None = None
    ) -> Iterator[tuple[int, _Line]]:
        """Yield each line with its number, from 1.

        Args:
            line_type: What msgspec shall make of a line.
            hint: Says what a line should look like when one does not.

        Raises:
            TraceError: A line is not JSON or not of this type; names the line and the field.
        """
        decoder = msgspec.json.Decoder(line_type)
        for number, line in enumerate(BytesIO(self.data), start=1):
            if line.isspace():
                continue
            try:
                decoded = decoder.decode(line)
            except msgspec.ValidationError as error:
                raise self._invalid(number, str(error), hint) from None
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self.error(
                    f"not valid UTF-8 JSON: {error}",
                    line=number,
                    hint="the file may be cut off or damaged; fetch it again",
                ) from None
            yield number, decoded

    def error(
        self, message: str, *, line: int, field: str = "", hint: str | None = None
    ) -> TraceError:
        """Make the error for one line, to be raised by the caller."""
        where = f"line {line}, {field}" if field else f"line {line}"
        return TraceError(message, source=self.source, where=where, hint=hint)

    def _invalid(self, number: int, message: str, hint: str | None) -> TraceError:
        match = _AT.match(message)
        if match is None:
            return self.error(message, line=number, hint=hint)
        return self.error(match["message"], line=number, field=match["field"], hint=hint)
