"""Identities of engines' blocks, and engines without one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.errors import ConfigError

pytestmark = pytest.mark.engine


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real configuration of the tiny model."""
    import torch
    from vllm.config import CacheConfig, DeviceConfig, ModelConfig, VllmConfig
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    from holdfast.bench.model import build_tiny_model
    from holdfast.vllm.offload.connector import EngineConfig

    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    model = str(build_tiny_model(tmp_path / "model"))
    config = VllmConfig(
        model_config=ModelConfig(model=model, tokenizer=model, dtype="float32"),
        cache_config=CacheConfig(block_size=32, prefix_caching_hash_algo="sha256_cbor"),
        device_config=DeviceConfig("cpu"),
    )
    spec = FullAttentionSpec(block_size=32, num_kv_heads=1, head_size=64, dtype=torch.float32)
    groups = [KVCacheGroupSpec(["layer"], spec)]
    return EngineConfig(
        config, KVCacheConfig(num_blocks=8, kv_cache_tensors=[], kv_cache_groups=groups)
    )


def _name(engine: Any, *, block_bytes: int = 8192, run_config: str = "x") -> str:
    from holdfast.vllm.offload.model_identity import model_identity

    spec = SimpleNamespace(
        kv_bytes_per_chunk=block_bytes, config=SimpleNamespace(kv_cache_layout="LBHNC")
    )
    return model_identity(engine, spec, {"tokens_per_hash": run_config}).name


def _other_weights(engine: Any) -> None:
    from holdfast.bench.model import build_tiny_model

    build_tiny_model(Path(engine.vllm.model_config.model), seed=1)


def _other_revision(engine: Any) -> None:
    engine.vllm.model_config.revision = "main2"


def _other_dtype(engine: Any) -> None:
    import torch

    engine.vllm.model_config.dtype = torch.bfloat16


def _other_kv_dtype(engine: Any) -> None:
    engine.vllm.cache_config.cache_dtype = "fp8"


def _other_hash(engine: Any) -> None:
    engine.vllm.cache_config.prefix_caching_hash_algo = "sha256"


def _other_group(engine: Any) -> None:
    engine.kv_cache.kv_cache_groups[0].layer_names.append("another")


def _other_rope(engine: Any) -> None:
    engine.vllm.model_config.hf_config.rope_theta = 7.0
    engine.vllm.model_config.hf_config.rope_parameters = {"rope_type": "default", "rope_theta": 7.0}


_CHANGES: list[Callable[[Any], None]] = [
    _other_weights, _other_revision, _other_dtype, _other_kv_dtype, _other_hash, _other_group,
    _other_rope,
]  # fmt: skip


def test_identity_is_stable_across_starts(engine: Any) -> None:
    assert _name(engine) == _name(copy.deepcopy(engine))


@pytest.mark.parametrize("change", _CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_changed_engine_has_another_identity(engine: Any, change: Callable[[Any], None]) -> None:
    before = _name(engine)
    change(engine)
    assert _name(engine) != before


def test_seed_version_block_and_layout_change_the_identity(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {_name(engine), _name(engine, block_bytes=4096), _name(engine, run_config="y")}
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    names.add(_name(engine))
    monkeypatch.setattr("vllm.__version__", "0.99")
    names.add(_name(engine))
    assert len(names) == 5


def test_batch_sizes_do_not_change_the_identity(engine: Any) -> None:
    before = _name(engine)
    engine.vllm.scheduler_config.max_num_seqs = 7
    engine.vllm.scheduler_config.max_num_batched_tokens = 777
    engine.vllm.cache_config.gpu_memory_utilization = 0.5
    engine.kv_cache.num_blocks = 99
    assert _name(engine) == before


@pytest.mark.parametrize("model", ["missing/model", "s3://bucket/some/model", "a/b:Q4_K_M"])
def test_unreadable_weights_are_logged(
    engine: Any, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    engine.vllm.model_config.model = model
    _name(engine)
    assert "cannot read the weights" in caplog.text


def test_seed_identifies_random_weights(engine: Any) -> None:
    engine.vllm.load_config.load_format = "dummy"
    before = _name(engine)
    engine.vllm.model_config.seed = 5
    assert _name(engine) != before


def _check(engine: Any) -> None:
    from holdfast.vllm.offload.model_identity import check_persistable

    check_persistable(engine.vllm)


def test_ordinary_engine_is_persistable(engine: Any) -> None:
    _check(engine)


def test_engines_with_ambiguous_blocks_are_refused(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.vllm.lora_config = object()
    with pytest.raises(ConfigError, match="LoRA"):
        _check(engine)
    engine.vllm.lora_config = None
    engine.vllm.cache_config.prefix_caching_hash_algo = "xxhash"
    with pytest.raises(ConfigError, match="random seed"):
        _check(engine)
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    _check(engine)
