"""The layout of a pool's directory.

    POOL/holdfast-pool.json             makes the directory a pool
    POOL/IDENTITY/identity.json         fields of the identity, see `PoolIdentity`
    POOL/IDENTITY/.../HASH.bin          a block, see `block_file`
    POOL/IDENTITY/.../HASH.bin.*.tmp    an unfinished one, perhaps of a killed engine

The engine chooses the directories between IDENTITY and HASH. Files outside the identities'
directories are neither read nor removed. Several engines may use one pool at once, so any file may
vanish at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from holdfast.errors import ConfigError
from holdfast.pool.block_file import TEMPORARY_SUFFIX
from holdfast.pool.identity import PoolIdentity
from holdfast.small_file import read_small_text

__all__ = ["BLOCK_SUFFIX", "PoolDirectory", "StoredFile"]

BLOCK_SUFFIX: Final = ".bin"

_MARKER: Final = "holdfast-pool.json"
_IDENTITY_FILE: Final = "identity.json"
_FORMAT: Final = 1
_NAME_DIGITS: Final = 24
_IDENTITY_NAME: Final = re.compile(rf"[0-9a-f]{{{_NAME_DIGITS}}}(-[0-9a-f]{{16}})?")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A block's file, perhaps unfinished, as listed.

    Attributes:
        path: Its path.
        num_bytes: Its size.
        used_s: When it was last stored, loaded or marked as used (s since the epoch).
        is_temporary: Whether it is unfinished: being written, or left by a killed engine.
    """

    path: str
    num_bytes: int
    used_s: float
    is_temporary: bool


class PoolDirectory:
    """The directory of a pool.

    Args:
        path: Its path.

    Raises:
        ConfigError: It is not a pool, or a pool of another version of Holdfast.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise ConfigError(f"{str(path)!r} is not a directory")
        try:
            marker = json.loads(read_small_text(path / _MARKER))
        except OSError as error:
            raise ConfigError(
                f"{str(path)!r} is not a pool: {_MARKER} cannot be read ({error.strerror})",
                hint="`holdfast serve` makes a pool in the directory that HOLDFAST_POOL_DIR names",
            ) from error
        except ValueError as error:
            raise ConfigError(
                f"{str(path)!r} is not a pool: {_MARKER} is damaged",
                hint=f"if it should be a pool, remove {_MARKER}; `holdfast serve` writes it again",
            ) from error
        if marker != {"format": _FORMAT}:
            raise ConfigError(
                f"the pool {str(path)!r} was written by another version of Holdfast: {marker!r}",
                hint="give each version a directory of its own",
            )

    @classmethod
    def make(cls, path: Path) -> PoolDirectory:
        """Open the pool at `path`; make it and its directory if there is none.

        Raises:
            ConfigError: It cannot be made, cannot be written to, or is of another version.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (path / _MARKER).exists():
                _write_new(path / _MARKER, {"format": _FORMAT})
        except FileExistsError as error:
            raise ConfigError(f"pool_dir is {str(path)!r}, which is not a directory") from error
        except OSError as error:
            raise _unusable(path, error.strerror) from error
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise _unusable(path, "reading and writing are not both allowed")
        return cls(path)

    def directory_of(self, identity: PoolIdentity, epoch: str = "") -> Path:
        """Return the directory of an identity's blocks. Pure.

        Args:
            identity: The identity.
            epoch: 16 hexadecimal digits that keep its blocks apart from those of other epochs.
        """
        return self.path / (f"{identity.name}-{epoch}" if epoch else identity.name)

    def make_directory(self, directory: Path, identity: PoolIdentity) -> None:
        """Make an identity's directory, with the file of its fields.

        Raises:
            OSError: It cannot be made.
        """
        directory.mkdir(mode=0o700, exist_ok=True)
        if not (directory / _IDENTITY_FILE).exists():
            _write_new(directory / _IDENTITY_FILE, dict(identity.fields))

    def identities(self) -> list[tuple[str, dict[str, Any] | None]]:
        """Return identities in order of name; fields are None where damaged."""
        found: list[tuple[str, dict[str, Any] | None]] = []
        for directory in sorted(self.path.iterdir()):
            if not _IDENTITY_NAME.fullmatch(directory.name) or not directory.is_dir():
                continue
            try:
                fields = json.loads(read_small_text(directory / _IDENTITY_FILE))
            except (OSError, ValueError):
                fields = None
            found.append((directory.name, fields if isinstance(fields, dict) else None))
        return found

    def files(self, identity: str | None = None) -> Iterator[StoredFile]:
        """Yield all block files, unfinished ones too, of one identity or of all."""
        names = [name for name, _ in self.identities()] if identity is None else [identity]
        for name in names:
            yield from _files_below(str(self.path / name))

    def location_of(self, path: str | Path) -> bytes:
        """Return a digest of the path relative to the pool, 32 bytes. Pure."""
        relative = Path(path).relative_to(self.path)
        return hashlib.blake2b(relative.as_posix().encode(), digest_size=32).digest()

    def clear(self, identity: str) -> None:
        """Remove an identity and all its blocks; engines that use it compute them again.

        Raises:
            ConfigError: There is no identity of that name.
            OSError: It cannot be removed.
        """
        names = [name for name, _ in self.identities()]
        if identity not in names:
            raise ConfigError(
                f"the pool has no identity {identity!r}", hint=f"it has: {', '.join(names) or '-'}"
            )
        # Renamed first: an engine that stores meanwhile would refill the directory. The new name is
        # an identity's too, so that an interrupted removal can be repeated.
        removed = self.path / f"{identity[:_NAME_DIGITS]}-{secrets.token_hex(8)}"
        (self.path / identity).rename(removed)
        shutil.rmtree(removed)


def _unusable(path: Path, why: str | None) -> ConfigError:
    return ConfigError(f"pool_dir is {str(path)!r}, which cannot be used: {why}")


def _write_new(path: Path, content: dict[str, Any]) -> None:
    """Write a small file whole; of two engines at once one wins."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _files_below(directory: str) -> Iterator[StoredFile]:
    try:
        with os.scandir(directory) as entries:
            found = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(entry.path)
            continue
        is_temporary = entry.name.endswith(TEMPORARY_SUFFIX)
        if not is_temporary and not entry.name.endswith(BLOCK_SUFFIX):
            continue
        with contextlib.suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            yield StoredFile(entry.path, status.st_size, status.st_mtime, is_temporary)
