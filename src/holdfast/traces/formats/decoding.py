"""JSON decoded into types; errors name the field and never quote the content."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final, TypeVar

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.repairs import Repairs, repaired, with_whole_characters

__all__ = ["DAMAGED_HINT", "ErrorMaker", "convert_json", "decode_json", "within"]

ErrorMaker = Callable[[str, str, str | None], TraceError]
"""Makes an error from a message, a field ("" if unknown) and a hint."""

DAMAGED_HINT: Final = "the file may be cut off or damaged; fetch it again"
"""Advice for a damaged file."""

_Value = TypeVar("_Value")
_PLAIN: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_AT = re.compile(r"^(?P<message>.*) - at `\$\.?(?P<field>.*)`$", re.DOTALL)


def decode_json(
    data: bytes | str | msgspec.Raw,
    decoder: msgspec.json.Decoder[_Value],
    error_maker: ErrorMaker,
    *,
    hint: str | None = None,
    repairs: Repairs | None = None,
) -> _Value:
    """Decode one JSON text; pure, except for `repairs`.

    Args:
        data: UTF-8 JSON; a str is JSON inside a JSON string, which may hold halves of characters.
        decoder: Has the type.
        error_maker: Makes the raised error.
        hint: The expected content, for JSON of another type.
        repairs: Counts repaired values; mutated.

    Raises:
        TraceError: The data is not JSON or not of the decoder's type.
    """
    try:
        if isinstance(data, str):
            data = with_whole_characters(data.encode())
        if isinstance(data, bytes) and not data.isascii():
            # A decoder does not check the UTF-8 of raw fields, which others decode later.
            data.decode()
        return _decoded(data, decoder, repairs)
    except msgspec.ValidationError as error:
        raise _invalid(error, error_maker, hint) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise error_maker(f"not valid UTF-8 JSON: {error}", "", DAMAGED_HINT) from None
    except RecursionError:
        raise error_maker("nested too deeply to be read", "", DAMAGED_HINT) from None


def _decoded(
    data: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[_Value], repairs: Repairs | None
) -> _Value:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        return _counted(_repaired(data, decoder, error), error, repairs)


def _repaired(
    data: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[_Value], error: msgspec.ValidationError
) -> tuple[_Value, Repairs] | None:
    try:
        value = _PLAIN.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return repaired(value, error, lambda odd: decoder.decode(msgspec.json.encode(odd)))


def _counted(
    found: tuple[_Value, Repairs] | None, error: Exception, repairs: Repairs | None
) -> _Value:
    if found is None:
        raise error
    value, made = found
    if repairs is not None:
        repairs.num_negative += made.num_negative
    return value


def convert_json(
    value: object,
    value_type: type[_Value],
    error_maker: ErrorMaker,
    *,
    hint: str | None = None,
    repairs: Repairs | None = None,
) -> _Value:
    """Convert decoded values to a type, also numbers written as text; pure.

    Takes and raises what `decode_json` does; repairs a copy.
    """
    try:
        return msgspec.convert(value, value_type, strict=False)
    except msgspec.ValidationError as error:
        found = repaired(
            deepcopy(value), error, lambda odd: msgspec.convert(odd, value_type, strict=False)
        )
        try:
            return _counted(found, error, repairs)
        except msgspec.ValidationError:
            raise _invalid(error, error_maker, hint) from None


def _invalid(
    error: msgspec.ValidationError, error_maker: ErrorMaker, hint: str | None
) -> TraceError:
    match = _AT.match(str(error))
    message, field = (str(error), "") if match is None else match.group("message", "field")
    return error_maker(message, field, hint)


def within(place: str, error_maker: ErrorMaker) -> ErrorMaker:
    """Return an error maker that prefixes fields with `place`; pure."""

    def make(message: str, field: str, hint: str | None) -> TraceError:
        joint = "." if place and field and not field.startswith("[") else ""
        return error_maker(message, f"{place}{joint}{field}", hint)

    return make
