"""A compacted prefix as a file.

    DIR/IDENTITY/KEY.safetensors         a compaction; KEY is the prefix hash of all its tokens
    DIR/IDENTITY/KEY.safetensors.*.tmp   an unfinished one, perhaps of a killed engine

Tensors: `keys` and `values` (L, H, m, d) and `positions` (L, H, m). The metadata has the header.

Process: every.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from holdfast.errors import EngineError

__all__ = ["SUFFIX", "CompactedPrefix", "Header", "read_header", "read_prefix", "write_prefix"]

SUFFIX: Final = ".safetensors"
TEMPORARY_SUFFIX: Final = ".tmp"

_FORMAT: Final = 1
_FIELD: Final = "holdfast"
_TENSORS: Final = ("keys", "values", "positions")


class Header(msgspec.Struct, frozen=True):
    """What a file says of its compaction.

    Attributes:
        num_tokens: Tokens of the prefix (count).
        num_kept: Entries of each KV head, m (count).
        salt: Of the prefix hashes of the placeholder tokens; no other compaction has it.
        method: What chose the entries.
        num_bytes_before: Memory that the prefix had in the KV cache.
        seconds: What reading, choosing and turning took (s).
        format: Version of the file's format.
    """

    num_tokens: int
    num_kept: int
    salt: str
    method: str
    num_bytes_before: int
    seconds: float
    format: int = _FORMAT


@dataclass(frozen=True, slots=True)
class CompactedPrefix:
    """The entries that are left of a prefix, at their new positions.

    L is the number of layers, H that of KV heads, m that of entries a head, d the head size.

    Attributes:
        keys: Keys, turned to positions that end with m - 1, (L, H, m, d).
        values: Values, (L, H, m, d).
        positions: Positions that the entries' tokens had in the prefix, (L, H, m), int32.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor

    @property
    def num_bytes(self) -> int:
        """Memory of keys and values."""
        return int(self.keys.nbytes + self.values.nbytes)


def write_prefix(path: Path, header: Header, prefix: CompactedPrefix) -> None:
    """Write a compaction, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    tensors = {name: getattr(prefix, name).contiguous() for name in _TENSORS}
    metadata = {_FIELD: msgspec.json.encode(header).decode(), "digest": _digest(prefix)}
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        save_file(tensors, temporary, metadata)
        temporary.replace(path)
    except SafetensorError as error:
        raise OSError(f"{temporary}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_header(path: Path) -> Header:
    """Read what a file says of its compaction, without its tensors.

    Raises:
        EngineError: There is no such file, or it is not whole, or of another version.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        header = msgspec.json.decode(metadata[_FIELD], type=Header)
    except (OSError, SafetensorError, KeyError, msgspec.MsgspecError) as error:
        raise EngineError(f"{path}: is not a compacted prefix: {error}") from error
    if header.format != _FORMAT:
        raise EngineError(f"{path}: has format {header.format}, expected {_FORMAT}")
    return header


def read_prefix(path: Path) -> CompactedPrefix:
    """Read a compaction.

    Raises:
        EngineError: There is no such file, or it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            prefix = CompactedPrefix(*(file.get_tensor(name) for name in _TENSORS))
            digest = (file.metadata() or {}).get("digest")
    except (OSError, SafetensorError) as error:
        raise EngineError(f"{path}: cannot be read: {error}") from error
    if digest != _digest(prefix):
        raise EngineError(f"{path}: is damaged: its content has another digest than its header")
    return prefix


def _digest(prefix: CompactedPrefix) -> str:
    found = hashlib.blake2b(digest_size=16)
    for name in _TENSORS:
        content = getattr(prefix, name).contiguous().flatten().view(torch.uint8)
        found.update(content.numpy())
    return found.hexdigest()
