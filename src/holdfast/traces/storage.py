"""Files as they are stored: plain or compressed by their suffix, read as streams, written whole.

Knows nothing about what is in them.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, cast

from holdfast.errors import ConfigError, TraceError

__all__ = [
    "COMPRESSIONS",
    "new_directory",
    "new_file",
    "open_stored",
    "printable",
    "stored_digest",
]

COMPRESSIONS = ("", ".xz", ".gz", ".zst")
"""Suffixes that say how a file is compressed."""


@contextmanager
def open_stored(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed as it is read.

    Raises:
        TraceError: It cannot be opened or, from within the block, cannot be read or is damaged.
        ConfigError: It needs a library that is not installed.
    """
    damages: tuple[type[Exception], ...] = (
        lzma.LZMAError,
        EOFError,
        gzip.BadGzipFile,
        zlib.error,
        *_zstd_errors(path),
    )
    try:
        with _opened(path, "rb") as file:
            yield file
    except damages as error:
        raise TraceError(
            f"damaged {path.suffix[1:]} data: {error}",
            source=str(path),
            hint="fetch the file again",
        ) from error
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror or error}", source=str(path)) from error


def printable(name: str) -> str:
    """A file's name as text that can be written: bytes of it that are no UTF-8 become `?`. Pure."""
    return name.encode(errors="replace").decode()


def stored_digest(path: Path) -> str:
    """SHA-256 of the bytes as stored, hexadecimal; reads the file once, in constant memory.

    Raises:
        TraceError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror or error}", source=str(path)) from error


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that is there whole or not at all, compressed as its suffix says.

    What is written goes to a temporary file beside it, which takes its place when the block ends
    well and is removed when it does not. A pipe or device is written as it is.

    Raises:
        ConfigError: The directory does not exist, the file cannot be written, or its suffix needs
            a library that is missing.
    """
    if path.exists() and not path.is_file():
        with _naming_what_fails(path), path.open("wb") as raw, _packed(path, raw) as file:
            yield file
        return
    with _taking_the_place_of(path) as temporary, temporary.open("xb") as raw:
        with _packed(path, raw) as file:
            yield file
        raw.flush()
        os.fsync(raw.fileno())


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Fill a directory that is there whole or not at all; yields where to put its files.

    Raises:
        ConfigError: Something is there already, the directory around it is not, or it cannot be
            written.
    """
    if path.exists():
        raise ConfigError(f"{str(path)!r} is there already; expected the name of a new directory")
    with _taking_the_place_of(path) as temporary:
        temporary.mkdir()
        yield temporary


@contextmanager
def _taking_the_place_of(path: Path) -> Iterator[Path]:
    # A link goes on pointing to what it points to.
    place = path.resolve()
    if not place.parent.is_dir():
        raise ConfigError(f"cannot write {str(path)!r}: its directory does not exist")
    # Readers of a directory leave out names that begin with a dot, so that what a killed process
    # leaves behind is not taken for a trace.
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
    try:
        with _naming_what_fails(path):
            yield temporary
            temporary.replace(place)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


@contextmanager
def _naming_what_fails(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error


def _opened(path: Path, mode: str) -> IO[bytes]:
    if path.suffix == ".xz":
        return cast(IO[bytes], lzma.open(path, mode))
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, mode))
    if path.suffix == ".zst":
        return cast(IO[bytes], _zstd().open(path, mode))
    return cast(IO[bytes], path.open(mode))


@contextmanager
def _packed(path: Path, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if path.suffix == ".xz":
        with lzma.open(raw, "wb") as file:
            yield cast(IO[bytes], file)
    elif path.suffix == ".gz":
        # Without the time of day equal content gives equal bytes.
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            yield cast(IO[bytes], file)
    elif path.suffix == ".zst":
        zstd = _zstd()
        # Unlike the others it has no checksum unless told to.
        with zstd.open(raw, "wb", options={zstd.CompressionParameter.checksum_flag: 1}) as file:
            yield file
    else:
        yield raw


def _zstd_errors(path: Path) -> tuple[type[Exception], ...]:
    return (cast(type[Exception], _zstd().ZstdError),) if path.suffix == ".zst" else ()


def _zstd() -> ModuleType:
    try:
        from backports import zstd
    except ImportError as error:
        raise ConfigError(
            "files that end in .zst need a library that is not installed",
            hint="pip install 'holdfast[zst]'",
        ) from error
    return zstd
