"""How the files that a call names look at one time."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["FileStamp", "stamp_files"]

_LONGEST_PATH = 4096
_MAX_FILES = 4096


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Files and directories at one time; equal stamps mean unchanged files.

    Attributes:
        digest: Of each one's path, inode, size and times.
        newest_s: Latest change of any (s since the epoch; 0 without a file).
        num_files: Files and directories (count).
    """

    digest: bytes
    newest_s: float
    num_files: int


def stamp_files(arguments: object, directory: Path) -> FileStamp | None:
    """Look at every file that a call's arguments name; reads the file system.

    A directory counts with all that is below it. Links to directories are not followed. A name
    that is no file yet changes the stamp when it becomes one.

    Args:
        arguments: JSON values.
        directory: Where relative names begin.

    Returns:
        The stamp; None if there are more than 4,096 files, or one cannot be looked at.
    """
    digest = hashlib.blake2b(digest_size=16)
    newest_ns = num_files = 0
    try:
        for path, status in _files(arguments, directory):
            digest.update(f"{path!r} {_text(status)}\n".encode("utf-8", "surrogatepass"))
            num_files += 1
            newest_ns = max(newest_ns, status.st_ctime_ns)
            if num_files > _MAX_FILES:
                return None
    except OSError:
        return None
    return FileStamp(digest.digest(), newest_ns / 1e9, num_files)


def _text(s: os.stat_result) -> str:
    return f"{s.st_dev} {s.st_ino} {s.st_mode} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"


def _files(arguments: object, directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    for name in _names(arguments):
        path = directory / _path_of(name)
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        yield str(path), status
        if stat.S_ISDIR(status.st_mode):
            yield from _below(str(path))


def _below(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(directory) as entries:
        found = sorted(entries, key=attrgetter("name"))
    for entry in found:
        yield entry.path, entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path)


def _names(value: object) -> Iterator[str]:
    """Strings that may name a file, in order."""
    if isinstance(value, str):
        if value and len(value) <= _LONGEST_PATH and "\0" not in value and "\n" not in value:
            yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _names(each)
    elif isinstance(value, list):
        for each in value:
            yield from _names(each)


def _path_of(name: str) -> str:
    return unquote(urlsplit(name).path) if name.startswith("file://") else name
