"""The worker's half: compacts prefixes out of the KV cache, and loads them.

Process: worker. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from holdfast.compress.cached_layer import CachedLayer
from holdfast.compress.methods import Method
from holdfast.compress.rotation import Rotation
from holdfast.compress.uniform import chosen_entries
from holdfast.errors import EngineError
from holdfast.vllm.compaction.compaction_file import (
    CompactedPrefix,
    Header,
    read_prefix,
    write_prefix,
)
from holdfast.vllm.compaction.page_layout import BlockReader, PageLayout

__all__ = ["CompactJob", "Compactor", "LoadJob"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompactJob:
    """A prefix to compact before its blocks are overwritten.

    Attributes:
        path: File to write.
        block_ids: Its blocks in order, all full; of a tier, the numbers of the copied chunks.
        num_tokens: Tokens that it stands for: more than the blocks' if it begins with a compaction.
        num_kept: Entries to keep of each KV head (count).
        salt: Salt of the placeholder tokens' prefix hashes.
        base: File of the compaction that it begins with, or None.
    """

    path: str
    block_ids: list[int]
    num_tokens: int
    num_kept: int
    salt: str
    base: str | None


@dataclass(frozen=True, slots=True)
class LoadJob:
    """A compacted prefix to load.

    Attributes:
        path: Its file.
        block_ids: The request's blocks in order.
        first: Tokens before this one are in the KV cache already (count).
        num_kept: Tokens that the file should have (count).
    """

    path: str
    block_ids: list[int]
    first: int
    num_kept: int


class Compactor:
    """Compacts prefixes between two engine steps; a thread writes them.

    Args:
        layers: Reads and writes each attention layer's KV blocks, in the model's order.
        method: Chooses the entries that stay.
        rotation: Turns keys.
    """

    def __init__(self, layers: Sequence[PageLayout], method: Method, rotation: Rotation) -> None:
        self._layers = layers
        self._method = method
        self._rotation = rotation
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="holdfast-compaction")
        self._failed_blocks: set[int] = set()

    def compact(self, job: CompactJob, blocks: Sequence[BlockReader] | None = None) -> None:
        """Compact a prefix and have it written; an error is logged and loses it alone.

        Args:
            job: The prefix.
            blocks: Reads each layer's blocks, if they are not in the KV cache.
        """
        started_s = time.perf_counter()
        layers: Sequence[BlockReader] = self._layers if blocks is None else blocks
        try:
            positions = _positions(job, layers)
            parts = [
                self._compacted(index, layer, job, positions[index])
                for index, layer in enumerate(layers)
            ]
        except (EngineError, RuntimeError) as error:
            _logger.warning("a session was not compacted: %s", error)
            return
        prefix = CompactedPrefix(*(torch.stack(part) for part in zip(*parts, strict=True)))
        header = Header(
            num_tokens=job.num_tokens,
            num_kept=job.num_kept,
            salt=job.salt,
            method=self._method.name,
            num_bytes_before=sum(layer.bytes_per_token * positions.shape[-1] for layer in layers),
            seconds=time.perf_counter() - started_s,
        )
        self._writer.submit(_write, Path(job.path), header, prefix)

    def load(self, job: LoadJob) -> None:
        """Put a compacted prefix into a request's blocks; see `take_failed_blocks`."""
        try:
            prefix = read_prefix(Path(job.path))
            if prefix.keys.shape[::2] != (len(self._layers), job.num_kept):
                raise EngineError(f"{job.path}: has other layers or tokens than were announced")
        except EngineError as error:
            _logger.error(
                "a compacted session cannot be loaded, so its request fails; the next one is"
                " computed in full: %s",
                error,
            )
            Path(job.path).unlink(missing_ok=True)
            self._failed_blocks.update(job.block_ids)
            return
        for layer, keys, values in zip(self._layers, prefix.keys, prefix.values, strict=True):
            layer.write(keys, values, job.block_ids, job.first)

    def take_failed_blocks(self) -> set[int]:
        """Blocks of loads that failed since the last call. Mutates."""
        failed, self._failed_blocks = self._failed_blocks, set()
        return failed

    def close(self) -> None:
        """Wait until all files are written."""
        self._writer.shutdown()

    def _compacted(
        self, index: int, layer: BlockReader, job: CompactJob, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer's keys, values and positions that are left, in host memory."""
        keys, values = layer.read(job.block_ids)
        num_heads, num_entries, size = keys.shape
        shown = CachedLayer(
            index=index,
            queries=keys.new_zeros(num_heads, 1, 0, size),
            keys=keys,
            values=values,
            positions=positions.long().to(keys.device),
            available=torch.ones(num_heads, num_entries, dtype=torch.bool, device=keys.device),
            output_weight=keys.new_zeros(num_heads, 1, size, 0),
            scaling=1.0,
            num_tokens=job.num_tokens,
        )
        chosen = chosen_entries(self._method, shown, job.num_kept)
        at = chosen[..., None].expand(-1, -1, size)
        kept = self._rotation.turned_back(keys.gather(1, at), num_entries - job.num_kept)
        host = chosen.cpu()
        return kept.cpu(), values.gather(1, at).cpu(), positions.gather(1, host)


def _positions(job: CompactJob, layers: Sequence[BlockReader]) -> Tensor:
    """Positions of the entries' tokens, (L, H, n), int32."""
    num_entries = len(job.block_ids) * layers[0].block_tokens
    num_before = job.num_tokens - num_entries
    shape = (len(layers), layers[0].num_heads, -1)
    later = torch.arange(num_entries, dtype=torch.int32) + num_before
    if job.base is None:
        return later.expand(*shape)
    first = read_prefix(Path(job.base)).positions
    return torch.cat([first, later[first.shape[-1] :].expand(*shape)], dim=-1)


def _write(path: Path, header: Header, prefix: CompactedPrefix) -> None:
    try:
        write_prefix(path, header, prefix)
    except OSError as error:
        _logger.warning("a compacted session was not stored: %s", error)
