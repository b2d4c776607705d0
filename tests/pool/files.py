"""Files in pools."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.pool.directory import PoolDirectory
from holdfast.pool.identity import PoolIdentity


def stored(
    pool: PoolDirectory,
    identity: PoolIdentity,
    name: str,
    content: bytes,
    *,
    used_s: float | None = None,
) -> Path:
    """Write a file into an identity's directory; returns its path."""
    directory = pool.directory_of(identity)
    pool.make_directory(directory, identity)
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if used_s is not None:
        os.utime(path, (used_s, used_s))
    return path
