"""Checks of rows for several formats; errors name line and field."""

from __future__ import annotations

from collections.abc import Sized

from holdfast.errors import TraceError
from holdfast.traces.formats.trace_file import TraceFile

__all__ = ["second_request", "too_many_blocks", "wrong_turn"]


def too_many_blocks(
    file: TraceFile, line: int, hash_ids: Sized, input_length: int, block_tokens: int
) -> TraceError | None:
    """Return the error of a row with more blocks than its prompt; None for no error."""
    num_blocks = -(-input_length // block_tokens)
    if len(hash_ids) <= num_blocks:
        return None
    return file.error(
        f"{len(hash_ids)} blocks of {block_tokens} tokens; expected at most {num_blocks} for "
        f"`input_length` {input_length}",
        line=line,
        field="hash_ids",
    )


def wrong_turn(
    file: TraceFile, line: int, field: str, turn: str, number: int, expected: int
) -> TraceError | None:
    """Return the error of a row that is not its session's next; None for no error.

    Args:
        file: The row's file.
        line: Its line.
        field: The field with its number.
        turn: Its name in the message, such as "turn 3 of session 'a'".
        number: Its number, from 0.
        expected: The next number.
    """
    if number == expected:
        return None
    return file.error(f"{turn}; expected {expected}, the next", line=line, field=field)


def second_request(file: TraceFile, line: int, field: str, name: object) -> TraceError:
    """Return the error of a row whose `field` repeats another row's id."""
    return file.error(f"a second request {name!r}; expected another id", line=line, field=field)
