"""The directory through which the processes of one server share their metrics.

Each process that writes into it holds a shared lock, which the kernel releases when the process
ends. A directory without a lock belongs to a server that was killed, and the next server removes
it. Locks work across containers, where process ids do not.

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
    """The path of a directory that no other server uses; makes nothing."""
    return Path(tempfile.gettempdir()) / f"{_PREFIX}{secrets.token_hex(8)}"


def open_locked(directory: Path) -> io.FileIO:
    """Make `directory` if needed, and lock it until the returned file is closed.

    Raises:
        OSError: It cannot be made or locked.
    """
    for _ in range(_MAX_TRIES):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock = io.FileIO(directory / _LOCK, "a")
        except FileNotFoundError:
            continue  # another server removed the empty directory
        fcntl.flock(lock, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), (directory / _LOCK).stat()):
                return lock
        lock.close()  # another server removed it before the lock
    raise OSError(f"another process removed {directory} {_MAX_TRIES} times")


def remove_abandoned() -> None:
    """Remove directories of this user's servers that were killed."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = directory.stat(follow_symlinks=False)
            if status.st_uid == os.getuid() and directory.is_dir():
                _remove_unlocked(directory)


def _remove_unlocked(directory: Path) -> None:
    try:
        lock = io.FileIO(directory / _LOCK, "r")
    except FileNotFoundError:
        directory.rmdir()  # fails if something was written
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
