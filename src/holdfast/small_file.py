"""Reading of small files that an operator names: settings, profiles, markers."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["read_small_text"]

_MAX_BYTES: Final = 4 << 20


def read_small_text(path: Path) -> str:
    """The text of a file of at most 4 MiB, or of a pipe with a writer.

    Never waits for a writer, and never reads a device without end.

    Raises:
        OSError: The file cannot be read, is larger, or is a pipe without a writer.
        UnicodeDecodeError: It is not UTF-8.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(handle).st_mode
        os.set_blocking(handle, True)
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {_MAX_BYTES >> 20} MiB", str(path))
    if not content and not stat.S_ISREG(mode):
        raise OSError(errno.ENODATA, "it is not a regular file, and it is empty", str(path))
    return content.decode("utf-8")
