"""Stored files: compressed by their suffix, read as streams, written atomically.

Independent of the content.
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
"""Suffixes of supported compressions; "" for none."""


@contextmanager
def open_stored(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading as a decompressed stream.

    Raises:
        TraceError: The file cannot be opened, cannot be read or is damaged.
        ConfigError: Its compression needs a library that is not installed.
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
    """A file name as printable text: bytes that are not UTF-8 become `?`. Pure."""
    return name.encode(errors="replace").decode()


def stored_digest(path: Path) -> str:
    """Hexadecimal SHA-256 of the stored bytes; constant memory.

    Raises:
        TraceError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror or error}", source=str(path)) from error


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file atomically, compressed by its suffix.

    Writes a temporary file in the same directory, which replaces `path` when the block ends without
    an error and is deleted otherwise. A pipe or device is written directly.

    Raises:
        ConfigError: The directory does not exist, the file cannot be written, or its suffix needs
            a library that is missing.
    """
    if path.exists() and not path.is_file():
        with _write_errors(path), path.open("wb") as raw, _compressed(path, raw) as file:
            yield file
        return
    with _replacing(path) as temporary, temporary.open("xb") as raw:
        with _compressed(path, raw) as file:
            yield file
        raw.flush()
        os.fsync(raw.fileno())


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Write a directory atomically; yields a temporary directory for its files.

    Raises:
        ConfigError: `path` exists, its parent directory does not, or it cannot be written.
    """
    if path.exists():
        raise ConfigError(f"{str(path)!r} exists; expected the name of a new directory")
    with _replacing(path) as temporary:
        temporary.mkdir()
        yield temporary


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    # A link stays and its target is replaced.
    target = path.resolve()
    if not target.parent.is_dir():
        raise ConfigError(f"cannot write {str(path)!r}: its directory does not exist")
    # Readers of a directory leave out names that begin with a dot, so a partial file of a killed
    # process is never read as a trace.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with _write_errors(path):
            yield temporary
            temporary.replace(target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
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
def _compressed(path: Path, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if path.suffix == ".xz":
        with lzma.open(raw, "wb") as file:
            yield cast(IO[bytes], file)
    elif path.suffix == ".gz":
        # Without a timestamp equal content gives equal bytes.
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            yield cast(IO[bytes], file)
    elif path.suffix == ".zst":
        zstd = _zstd()
        # Unlike the others zstd writes no checksum by default.
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
            "reading or writing .zst files needs a library that is not installed",
            hint="pip install 'holdfast[zst]'",
        ) from error
    return zstd
