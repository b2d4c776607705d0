"""Engines whose sessions cannot be compacted, by vLLM's own configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ConfigError

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "vocab_size": 256,
    "dtype": "float32",
}


def _engine_config(directory: Path, model: dict[str, Any], **arguments: Any) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    (directory / "config.json").write_text(json.dumps(model))
    return EngineArgs(
        model=str(directory),
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=256,
        **{"enable_prefix_caching": True, **arguments},
    ).create_engine_config()


def _check(config: Any) -> None:
    from holdfast.vllm.compaction.requirements import check_engine

    check_engine(config)


def test_plain_llama_is_taken(tmp_path: Path) -> None:
    _check(_engine_config(tmp_path, _LLAMA))


def test_dynamic_rotary_embedding_is_refused(tmp_path: Path) -> None:
    scaling = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}
    with pytest.raises(ConfigError, match="'dynamic' cannot be moved"):
        _check(_engine_config(tmp_path, {**_LLAMA, **scaling}))


def test_sliding_windows_are_refused(tmp_path: Path) -> None:
    from transformers import Gemma3TextConfig, MistralConfig

    # vLLM reads both of the model's own configuration.
    for text in (MistralConfig(sliding_window=64), Gemma3TextConfig(sliding_window=64)):
        config = _engine_config(tmp_path, _LLAMA)
        config.model_config.hf_text_config = text
        with pytest.raises(ConfigError, match="sliding windows"):
            _check(config)


@pytest.mark.parametrize(("kind", "why"), [("use_mla", "MLA"), ("is_hybrid", "recurrent layers")])
def test_other_caches_are_refused(
    kind: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # vLLM's answer for such a model, whose code it would import in a process of its own.
    config = _engine_config(tmp_path, _LLAMA)
    monkeypatch.setattr(type(config.model_config), kind, True)
    with pytest.raises(ConfigError, match=why):
        _check(config)


def test_unknown_architecture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _engine_config(tmp_path, _LLAMA)
    names = property(lambda model: ["GPTNeoXForCausalLM"])
    monkeypatch.setattr(type(config.model_config), "architectures", names)
    with pytest.raises(ConfigError, match="GPTNeoXForCausalLM is none of Llama"):
        _check(config)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"kv_cache_dtype": "fp8"}, "quantized to fp8"),
        ({"enable_prefix_caching": False}, "prefix caching is off"),
        ({"enable_lora": True}, "LoRA adapters"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size is 2"),
    ],
)
def test_engine_refused_with_a_reason(arguments: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=why):
        _check(_engine_config(tmp_path, _LLAMA, **arguments))


@pytest.mark.parametrize(
    "name",
    [
        *("pipeline_parallel_size", "data_parallel_size"),
        *("decode_context_parallel_size", "prefill_context_parallel_size"),
    ],
)
def test_every_split_of_an_engine_is_refused(name: str, tmp_path: Path) -> None:
    # Set on vLLM's own configuration, which would want as many devices.
    config = _engine_config(tmp_path, _LLAMA)
    setattr(config.parallel_config, name, 2)
    with pytest.raises(ConfigError, match=f"{name} is 2"):
        _check(config)


def test_speculative_decoding_is_refused(tmp_path: Path) -> None:
    ngram = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}
    with pytest.raises(ConfigError, match="would draft from placeholder tokens"):
        _check(_engine_config(tmp_path, _LLAMA, speculative_config=ngram))


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_tiers_refuse_what_compaction_alone_refuses(kind: str, tmp_path: Path) -> None:
    from vllm.config import KVTransferConfig
    from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole

    from holdfast.config import HoldfastConfig
    from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

    if is_older(engine_version(), OLDEST_WITH_TIERS):
        pytest.skip("this vLLM is older than the offloading that tiers need")
    from holdfast.vllm.tiered_compaction.arguments import tiered_compaction_config
    from holdfast.vllm.tiered_compaction.connector import TieredCompactionConnector

    config = _engine_config(tmp_path, _LLAMA)
    config.model_config.hf_text_config.rope_parameters = {
        **config.model_config.hf_text_config.rope_parameters,
        "rope_type": kind,
    }
    settings = HoldfastConfig(compact_dir=str(tmp_path / "compacted"), host_gib=0.01)
    config.kv_transfer_config = KVTransferConfig(**tiered_compaction_config(settings))
    with pytest.raises(ConfigError, match=f"'{kind}' cannot be moved"):
        TieredCompactionConnector(config, KVConnectorRole.SCHEDULER, None)


@pytest.mark.parametrize("method", ["snapkv", "layer-defensivekv", "keydiff:scope=all"])
def test_method_that_no_block_table_holds_is_refused(method: str) -> None:
    from holdfast.vllm.compaction.requirements import engine_method

    with pytest.raises(ConfigError, match=r"queries|one for all heads"):
        engine_method(method)
