"""Writes the sessions of one reading in another format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from holdfast.errors import ConfigError, TraceError
from holdfast.traces.order import families
from holdfast.traces.record import Session
from holdfast.traces.storage import COMPRESSIONS, new_directory, new_file
from holdfast.traces.writers.losses import Losses
from holdfast.traces.writers.registry import WRITERS

__all__ = ["write_sessions"]

_SUFFIXES = tuple(f".jsonl{compression}" for compression in COMPRESSIONS)


def write_sessions(
    sessions: Iterable[Session], output: Path, format_name: str, block_size_tokens: int | None
) -> Losses:
    """Write sessions to a file atomically: the whole file appears, or none.

    Args:
        sessions: Sessions of one reading.
        output: A file that ends in `.jsonl`, with or without a compression suffix; for WEKA's
            format also the name of a new directory, which gets a file for each main agent.
        format_name: One of `WRITERS`.
        block_size_tokens: Tokens in a block; None leaves it to the format.

    Returns:
        Counts of values that the format cannot hold.

    Raises:
        ConfigError: The format or the output name is unknown, the output cannot be written, or the
            format does not support this block size.
        TraceError: Reading a session failed, or there is none.
    """
    write = WRITERS.get(format_name)
    if write is None:
        raise ConfigError(f"format {format_name!r}; expected one of {', '.join(WRITERS)}")
    if output.name.endswith(_SUFFIXES):
        with new_file(output) as file:
            return write(_at_least_one(sessions, output), file, block_size_tokens=block_size_tokens)
    if format_name != "weka" or output.suffix:
        raise ConfigError(
            f"--output is {str(output)!r}; expected a name that ends in {', '.join(_SUFFIXES)}"
        )
    losses = Losses()
    with new_directory(output) as directory:
        for number, family in enumerate(families(_at_least_one(sessions, output))):
            with new_file(directory / f"trace_{number:04d}.json") as file:
                losses += write(family, file, block_size_tokens=block_size_tokens)
    return losses


def _at_least_one(sessions: Iterable[Session], output: Path) -> Iterator[Session]:
    session = None
    for session in sessions:
        yield session
    if session is None:
        raise TraceError("no session to write", source=str(output))
