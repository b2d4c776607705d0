"""Metrics of the disk tier, on vLLM's own `/metrics`.

vLLM counts hits, bytes and times of each tier (`vllm:kv_offload_tiering_*`, `DiskTier` in the
label). These count blocks that were not loaded or stored, by reason.

Process: scheduler and API server. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vllm.v1.kv_offload.base import OffloadingCounterMetadata, OffloadingGaugeMetadata

from holdfast.pool.garbage_collection import Collected

__all__ = ["METRICS", "record"]

_REFUSED: Final = "holdfast_pool_refused_blocks"
_SKIPPED: Final = "holdfast_pool_skipped_blocks"
_REMOVED: Final = "holdfast_pool_removed_files"
_BYTES: Final = "holdfast_pool_bytes"

METRICS: Final[Mapping[str, Any]] = {
    _REFUSED: OffloadingCounterMetadata(
        documentation="Blocks not loaded from the pool and computed again, by reason.",
        labelnames=("reason",),
    ),
    _SKIPPED: OffloadingCounterMetadata(
        documentation="Blocks not stored in the pool, by reason (quota: raise pool_gib).",
        labelnames=("reason",),
    ),
    _REMOVED: OffloadingCounterMetadata(
        documentation="Files that this engine removed from the pool, by reason.",
        labelnames=("reason",),
    ),
    _BYTES: OffloadingGaugeMetadata(documentation="Bytes in the pool, all engines together."),
}


def record(
    stats: Any, counts: Mapping[tuple[str, str], int], removed: Collected, num_bytes: int
) -> None:
    """Add the counts since the last call to vLLM's statistics. Mutates `stats`.

    Args:
        stats: Receives the counts.
        counts: Blocks by ("refused" or "skipped", reason).
        removed: Removed files.
        num_bytes: Bytes in the pool now.
    """
    for (what, reason), num_blocks in counts.items():
        name = _REFUSED if what == "refused" else _SKIPPED
        stats.increase_counter(name, num_blocks, labelvalues=(reason,))
    for reason, num_files in (
        ("evicted", removed.num_evicted),
        ("expired", removed.num_expired),
        ("abandoned", removed.num_abandoned),
    ):
        if num_files:
            stats.increase_counter(_REMOVED, num_files, labelvalues=(reason,))
    stats.set_gauge(_BYTES, num_bytes)
