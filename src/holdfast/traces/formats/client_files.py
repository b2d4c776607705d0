"""Directories in which clients keep their files."""

from __future__ import annotations

from pathlib import Path

__all__ = ["lies_below"]


def lies_below(path: Path, *directories: str) -> bool:
    """Whether a path has these directories in sequence above the file; pure."""
    parts, num = path.parts[:-1], len(directories)
    return any(parts[at : at + num] == directories for at in range(len(parts)))
