"""vLLM's offloading classes without an engine; skipped on vLLM without them."""

from __future__ import annotations

import itertools
import mmap
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.waiting import until

from holdfast.pool.identity import PoolIdentity
from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

BLOCK_BYTES = 8192
_NUM_CHUNKS = 64


@pytest.fixture(scope="session", autouse=True)
def has_tiers(loaded_engine: None) -> None:
    if is_older(engine_version(), OLDEST_WITH_TIERS):
        pytest.skip("this vLLM is older than the offloading that tiers need")


class TierRig:
    """A disk tier under a made-up host tier, driven as vLLM's manager drives it.

    Chunk `i` of the host tier stands for key `i`.
    """

    def __init__(self, tier: Any, host: np.ndarray) -> None:
        self.tier = tier
        self.host = host

    def fill(self, *chunks: int) -> None:
        """Fill chunks of the host tier with content of their own."""
        for chunk in chunks:
            self.host[chunk] = content(chunk)

    def store(self, *chunks: int) -> Any:
        """Fill chunks and store them; returns vLLM's `JobResult`."""
        self.fill(*chunks)
        return self._run(self.tier.submit_store, chunks, is_load=False)

    def load(self, *chunks: int) -> Any:
        """Load into overwritten chunks; returns vLLM's `JobResult`."""
        self.host[list(chunks)] = -1
        return self._run(self.tier.submit_load, chunks, is_load=True)

    def begin_store(self, *chunks: int) -> None:
        """Start a store without waiting."""
        self.tier.submit_store(self._job(chunks, is_load=False))

    def finds(self, chunk: int, request_id: str = "r") -> bool:
        """Whether a lookup finds a chunk, once it has its answer."""
        from vllm.v1.kv_offload.base import LookupResult, ReqContext, ScheduleEndContext

        context = ReqContext(req_id=request_id)

        def looked_up() -> Any:
            found = self.tier.lookup(key_of(chunk), context)
            self.tier.on_schedule_end(ScheduleEndContext([], []))
            return None if found is LookupResult.RETRY else (found,)

        return bool(until(looked_up) == (LookupResult.HIT,))

    def finish_request(self, *chunks: int, request_id: str = "r") -> None:
        """End a request whose prompt has these chunks."""
        from vllm.v1.kv_offload.base import ReqContext

        context = ReqContext(req_id=request_id)
        for position, chunk in enumerate(chunks):
            context.set_offload_key_position(key_of(chunk), position)
        self.tier.on_request_finished(context)

    def holds(self, *chunks: int) -> bool:
        """Whether chunks of the host tier have their stored content."""
        return all((self.host[chunk] == content(chunk)).all() for chunk in chunks)

    def path(self, chunk: int) -> Path:
        return Path(self.tier.file_mapper.get_file_name(key_of(chunk)))

    def counted(self) -> Mapping[str, Mapping[tuple[str, ...], float]]:
        """Counts since the last call, by metric and label."""
        data: Mapping[str, Mapping[tuple[str, ...], float]] = self.tier.get_stats().data["data"]
        return data

    def _run(self, submit: Callable[[Any], None], chunks: Sequence[int], *, is_load: bool) -> Any:
        job = self._job(chunks, is_load=is_load)
        submit(job)
        results = self.tier.get_finished_jobs
        return until(lambda: next((each for each in results() if each.job_id == job.job_id), None))

    _numbers = itertools.count()

    def _job(self, chunks: Sequence[int], *, is_load: bool) -> Any:
        from vllm.v1.kv_offload.base import ReqContext
        from vllm.v1.kv_offload.tiering.base import TransferJob

        return TransferJob(
            job_id=next(self._numbers),
            keys=[key_of(chunk) for chunk in chunks],
            chunk_ids=np.array(chunks, dtype=np.int32),
            is_promotion=is_load,
            req_context=ReqContext(req_id="r"),
        )


def key_of(chunk: int) -> Any:
    from vllm.v1.kv_offload.base import make_offload_key

    return make_offload_key(chunk.to_bytes(32, "big"), 0)


def content(chunk: int) -> np.ndarray:
    return np.random.default_rng(chunk).integers(-128, 128, BLOCK_BYTES, dtype=np.int8)


def offloading_config(extra_config: Mapping[str, Any]) -> Any:
    """An `OffloadingConfig` of an engine with one layer and blocks of `BLOCK_BYTES`."""
    from vllm.v1.kv_offload.config import (
        OffloadingCacheConfig,
        OffloadingConfig,
        OffloadingGroupConfig,
        OffloadingModelConfig,
        OffloadingParallelConfig,
    )

    return OffloadingConfig(
        groups=(OffloadingGroupConfig(tokens_per_block=32, layer_names=("a",), group_id=0),),
        worker_kv_bytes_per_block=BLOCK_BYTES,
        enable_kv_cache_events=False,
        extra_config=extra_config,
        engine_id=f"test-{secrets.token_hex(8)}",
        model=OffloadingModelConfig(name="some/model", dtype="float32"),
        cache=OffloadingCacheConfig(tokens_per_hash=32, blocks_per_chunk=1),
        parallel=OffloadingParallelConfig(
            rank=0,
            world_size=1,
            tp_size=1,
            pp_size=1,
            pcp_size=1,
            dcp_size=1,
            data_parallel_index=0,
            data_parallel_size=1,
            data_parallel_rank_local=None,
            is_parallelism_agnostic=False,
        ),
    )


def _offloading_spec() -> Any:
    """The part of vLLM's spec that a tier reads."""
    return SimpleNamespace(
        config=offloading_config({}), blocks_per_chunk=1, kv_bytes_per_chunk=BLOCK_BYTES
    )


TierMaker = Callable[..., TierRig]


@pytest.fixture
def make_tier(
    has_tiers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TierMaker]:
    """Makes disk tiers on one pool, by default of one identity."""
    from holdfast.vllm.offload import disk_tier

    monkeypatch.setattr(disk_tier, "engine_being_built", lambda: SimpleNamespace(vllm=None))
    monkeypatch.setattr(disk_tier, "check_persistable", lambda _config: None)
    rigs: list[TierRig] = []

    def make(identity: str = "one", **options: Any) -> TierRig:
        monkeypatch.setattr(
            disk_tier, "model_identity", lambda *_: PoolIdentity({"identity": identity})
        )
        memory = mmap.mmap(-1, _NUM_CHUNKS * BLOCK_BYTES)  # aligned, as the host tier is
        host = np.frombuffer(memory, dtype=np.int8).reshape(_NUM_CHUNKS, BLOCK_BYTES)
        tier = disk_tier.DiskTier(
            _offloading_spec(), host.data, "DiskTier", str(tmp_path / "pool"), **options
        )
        rigs.append(TierRig(tier, host))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.tier.shutdown()


@pytest.fixture
def rig(make_tier: TierMaker) -> TierRig:
    return make_tier()
