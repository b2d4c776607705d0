"""The directory through which the processes of one server share their metrics.

Each process that writes into it holds a shared lock, which the kernel releases however the process
ends. A directory that no process has locked is left over from a server that was killed, and the
next server removes it. A lock tells that across containers too, where process ids do not.

Process: engine core and API server.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["new_directory", "open_locked", "remove_abandoned"]

_PREFIX: Final = "holdfast-metrics-"
_LOCK: Final = "lock"
_MAX_TRIES = 8


def new_directory() -> Path:
    """The path of a directory that no other server uses; nothing is made."""
    return Path(tempfile.gettempdir()) / f"{_PREFIX}{secrets.token_hex(8)}"


def open_locked(directory: Path) -> io.FileIO:
    """Make `directory` unless it is there, and lock it until the file returned is closed.

    Raises:
        OSError: It cannot be made or locked.
    """
    for _ in range(_MAX_TRIES):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock = io.FileIO(directory / _LOCK, "a")
        except FileNotFoundError:
            continue  # removed meanwhile, as it was empty
        fcntl.flock(lock, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), (directory / _LOCK).stat()):
                return lock
        lock.close()  # removed before it was locked
    raise OSError(f"{directory} is removed again and again")


def remove_abandoned() -> None:
    """Remove the directories of servers that are gone; those of other users are left alone."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = directory.stat(follow_symlinks=False)
            if status.st_uid == os.getuid() and directory.is_dir():
                _remove_unlocked(directory)


def _remove_unlocked(directory: Path) -> None:
    try:
        lock = io.FileIO(directory / _LOCK, "r")
    except FileNotFoundError:
        directory.rmdir()  # only where nothing was written yet
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
