"""A KV block as a file: the block's bytes, then a footer of one page.

The footer comes last, so that the block is written from and read into the engine's own memory
without a copy, past the page cache where the file system allows (`O_DIRECT`). It contains a digest
of the file's location in the pool, so that a moved or foreign file is not taken for this block.

A file appears whole or not at all: it is written under a temporary name and then renamed. It is not
flushed to the disk, which would slow down every store: after a power failure the checksum finds
damaged files.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import struct
import zlib
from enum import StrEnum
from pathlib import Path
from typing import Final

__all__ = [
    "FOOTER_BYTES",
    "TEMPORARY_SUFFIX",
    "BlockState",
    "read_block",
    "verify_block",
    "write_block",
]

FOOTER_BYTES: Final = 4096
"""Size of the footer; a multiple of the alignment of direct reads."""

TEMPORARY_SUFFIX: Final = ".tmp"
"""End of the name of an unfinished file."""

_MAGIC: Final = b"holdfast"
_VERSION: Final = 1
_FIELDS: Final = struct.Struct("<8sIIQ32s")  # magic, version, checksum, block bytes, location
_OWN_CHECKSUM: Final = struct.Struct("<I")
_DIRECT: Final = getattr(os, "O_DIRECT", 0)  # Linux only
_MODE: Final = 0o600  # a block reveals the prompt that it was computed from
_CREATE_ATTEMPTS: Final = 3


class BlockState(StrEnum):
    """Result of checking a block's file; only a `WHOLE` block may be used."""

    WHOLE = "whole"
    MISSING = "missing"
    EXPIRED = "expired"
    TRUNCATED = "truncated"
    FOREIGN = "foreign"
    CORRUPT = "corrupt"


def write_block(path: Path, location: bytes, block: memoryview, *, is_direct: bool = False) -> None:
    """Write a block's file, whole or not at all; replaces an existing one.

    Args:
        path: The file.
        location: The file's location in the pool, as `read_block` will check it; 32 bytes.
        block: The block's bytes, one-dimensional.
        is_direct: Write past the page cache; memory and length must be aligned to pages.

    Raises:
        OSError: It could not be written; `ENOSPC` also after a short write.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        descriptor = _create(temporary, _DIRECT if is_direct else 0)
        try:
            with contextlib.closing(_footer(location, block)) as footer:
                num_written = os.writev(descriptor, [block, footer])
        finally:
            os.close(descriptor)
        if num_written < len(block) + FOOTER_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def read_block(
    path: Path,
    location: bytes,
    into: memoryview,
    *,
    not_before_s: float = 0.0,
    is_direct: bool = False,
) -> BlockState:
    """Read a block and check it; a whole one counts as used now.

    `into` is usable only if the result is `WHOLE`.

    Args:
        path: The file.
        location: The location in the pool that it must have been written for; 32 bytes.
        into: Receives exactly the block's bytes, one-dimensional.
        not_before_s: Files last used before this moment (s since the epoch) have expired.
        is_direct: Read past the page cache; memory and length must be aligned to pages.

    Raises:
        OSError: It exists but cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | (_DIRECT if is_direct else 0))
    except (FileNotFoundError, NotADirectoryError):
        return BlockState.MISSING
    try:
        status = os.fstat(descriptor)
        if status.st_mtime < not_before_s:
            return BlockState.EXPIRED
        num_expected = len(into) + FOOTER_BYTES
        if status.st_size != num_expected:
            is_short = status.st_size < num_expected
            return BlockState.TRUNCATED if is_short else BlockState.FOREIGN
        with contextlib.closing(mmap.mmap(-1, FOOTER_BYTES)) as footer:
            if _read_fully(descriptor, into, footer) < num_expected:
                return BlockState.TRUNCATED
            state = _check(footer, location, into)
        if state is BlockState.WHOLE:
            with contextlib.suppress(OSError):  # such as on a read-only file system
                os.utime(descriptor)
        return state
    finally:
        os.close(descriptor)


def verify_block(path: Path, location: bytes) -> BlockState:
    """Read a file of any size and check it, without counting as use.

    Raises:
        OSError: It exists but cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return BlockState.MISSING
    if len(content) < FOOTER_BYTES:
        return BlockState.TRUNCATED
    view = memoryview(content)
    return _check(view[-FOOTER_BYTES:], location, view[:-FOOTER_BYTES])


def _create(path: Path, flags: int) -> int:
    """Open a new file; make its directory if missing, or if just garbage-collected."""
    flags |= os.O_CREAT | os.O_EXCL | os.O_WRONLY
    for _ in range(_CREATE_ATTEMPTS):
        try:
            return os.open(path, flags, _MODE)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, flags, _MODE)


def _footer(location: bytes, block: memoryview) -> mmap.mmap:
    fields = _FIELDS.pack(_MAGIC, _VERSION, zlib.crc32(block), len(block), location)
    page = mmap.mmap(-1, FOOTER_BYTES)  # aligned, as direct writes need it
    page.write(fields + _OWN_CHECKSUM.pack(zlib.crc32(fields)))
    return page


def _read_fully(descriptor: int, block: memoryview, footer: mmap.mmap) -> int:
    """Fill both, reading on after the short reads that network file systems return."""
    num_read = os.preadv(descriptor, [block, footer], 0)
    num_wanted = len(block) + FOOTER_BYTES
    if num_read in (0, num_wanted):
        return num_read
    while num_read < num_wanted:
        parts = (
            [block[num_read:], memoryview(footer)]
            if num_read < len(block)
            else [memoryview(footer)[num_read - len(block) :]]
        )
        more = os.preadv(descriptor, parts, num_read)
        for part in parts:
            part.release()
        if more == 0:
            break
        num_read += more
    return num_read


def _check(footer: mmap.mmap | memoryview, location: bytes, block: memoryview) -> BlockState:
    fields = bytes(footer[: _FIELDS.size])
    (own_checksum,) = _OWN_CHECKSUM.unpack(
        bytes(footer[_FIELDS.size : _FIELDS.size + _OWN_CHECKSUM.size])
    )
    magic, version, checksum, num_bytes, written_location = _FIELDS.unpack(fields)
    if zlib.crc32(fields) != own_checksum:
        # A damaged footer of ours, or a foreign file.
        return BlockState.CORRUPT if magic == _MAGIC else BlockState.FOREIGN
    if (magic, version, num_bytes, written_location) != (_MAGIC, _VERSION, len(block), location):
        return BlockState.FOREIGN
    return BlockState.WHOLE if zlib.crc32(block) == checksum else BlockState.CORRUPT
